"""Run the Python SDK's own integration tests against labkit's engine: ``python -m tests.engine.sdk_suite [WORDS OF PYTEST]`` (as root).

They come with the source archive of `docker` 7.0.0 (later archives hold none), which pip fetches into labkit's cache; the SDK under test is
the one that is installed. It takes about four minutes, so it is no part of ``make test``: docs/engine.md says what it gave.
What needs a swarm or plugins is left out, and so is what tests credential helpers of the client.

See: `tests.engine.test_sdk` for what runs always.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import tests.engine.support as support
from labkit.setup.parts import cache_folder, find_busybox

__all__ = ["main"]

_VERSION = "7.0.0"
_LEFT_OUT = "not swarm and not service and not plugin and not secret and not config_test and not node"


def _fetched(folder: Path) -> Path:
    """Return the folder of the source archive's tests; fetch it, and what its helpers import, unless it is there."""
    source = folder / f"docker-{_VERSION}"
    if not (source / "tests").is_dir():
        pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
        subprocess.run(
            [*pip, "download", "--no-binary", "docker", "--no-deps", "-d", str(folder), f"docker=={_VERSION}"],
            check=True,
        )
        subprocess.run([*pip, "install", "--target", str(folder / "beside"), "paramiko"], check=True)
        with tarfile.open(folder / f"docker-{_VERSION}.tar.gz") as archive:
            archive.extractall(folder, filter="data")
        (source / "docker").rename(
            source / "docker-of-the-archive"
        )  # or it would be imported instead of the installed one
    return source


def _prepare(daemon: support.Daemon) -> None:
    """Give the engine the images that the tests expect, made of a static busybox."""
    busybox = find_busybox()
    assert busybox is not None
    listed = subprocess.run([str(busybox), "--list"], capture_output=True, text=True, check=True).stdout.split()
    support.APPLETS[:] = [name for name in listed if name != "busybox"]
    client = daemon.client()
    client.api.import_image_from_data(
        support.busybox_tar(), repository="alpine", tag="3.10", changes=['CMD ["/bin/sh"]']
    )
    for name in ("alpine", "busybox"):
        client.api.tag("alpine:3.10", name, "latest")
    client.close()


def main(words: list[str]) -> int:
    """Run them, print what pytest prints, and return its exit status."""
    source = _fetched(cache_folder() / "tests")
    with tempfile.TemporaryDirectory(prefix="labkit-") as name:
        daemon = support.start_labkit(Path(name))
        try:
            _prepare(daemon)
            command = [
                sys.executable,
                "-m",
                "pytest",
                "-p",
                "no:cacheprovider",
                "-q",
                "-rfE",
                "--tb=line",
                "--timeout=120",
            ]
            chosen = words or ["tests/integration", "--ignore=tests/integration/credentials", "-k", _LEFT_OUT]
            environment = os.environ | {
                "DOCKER_HOST": daemon.url, "HOME": name, "PYTHONPATH": str(source.parent / "beside"),
            }  # fmt: skip
            inside = ["nsenter", f"--net=/proc/{daemon.pid}/ns/net", "--", *command, *chosen]
            return subprocess.run(inside, cwd=source, env=environment, check=False).returncode
        finally:
            daemon.stop()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""A pod as Binder gives one, made with Docker's daemon: its default filter, uid 1000, no capabilities, read-only cgroups, 1 CPU, 2 GB.

The root file system is a few empty folders; the programs are this machine's own (``/usr`` and the Python that the tests run in) and the
checkout with its environment, all bound in read-only. The lessons are copied to the home of the pod's user, which vanishes with it. There is
no network. So a pod differs from Binder's in its distribution, not in what it forbids.

See: docs/pod.md; docker-run(1); Docker's documentation, "Seccomp security profiles for Docker".
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.engine.support import Daemon, start_dockerd
from tests.support import PROJECT

__all__ = ["LIMITS", "Pod", "pod"]

HOME = "/home/jovyan"
LIMITS = (
    "--user=1000:1000", "--cap-drop=ALL", "--security-opt=no-new-privileges", "--cpus=1", "--memory=2g", "--memory-swap=2g",
    "--network=none", "--hostname=pod", "--pids-limit=512",
)  # fmt: skip
_FOLDERS = {
    "usr": 0o755, "etc": 0o755, "home": 0o755, "tmp": 0o1777, "var": 0o755, "var/tmp": 0o1777, "run": 0o755, "proc": 0o755, "sys": 0o755,
    "dev": 0o755, "root": 0o755, HOME[1:]: 0o755,
}  # fmt: skip
_FILES = {
    "etc/passwd": f"root:x:0:0::/root:/bin/sh\njovyan:x:1000:1000::{HOME}:/bin/sh\n",
    "etc/group": "root:x:0:\njovyan:x:1000:\n",
    "etc/nsswitch.conf": "passwd: files\nhosts: files\n",
}
_PREPARE = f"mkdir lessons && cp -r {PROJECT}/notebooks/*.ipynb {PROJECT}/notebooks/figures lessons/ && exec "


class Pod:
    """A daemon with the image; each `run` is a pod of its own."""

    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon

    def run(self, command: str, *, timeout_s: float) -> subprocess.CompletedProcess[bytes]:
        """Run a shell command in the home of a new pod, with the lessons in ``lessons/``."""
        return self.daemon.cli("run", "--rm", *LIMITS, *_mounts(), *_environment(), "pod", "sh", "-c", _PREPARE + command,
                               timeout_s=timeout_s)  # fmt: skip

    def lessons(self, *names: str, timeout_s: float = 400.0) -> list[dict[str, Any]]:
        """Run lessons (default: all) and return what `tests.binder.inside` says of each."""
        chosen = names or sorted(path.name[:2] for path in (PROJECT / "notebooks").glob("[0-9][0-9]_*.ipynb"))
        # Two pods at a time, with a CPU each.
        commands = [
            f"python -m tests.binder.inside lessons {' '.join(half)}" for half in (chosen[::2], chosen[1::2]) if half
        ]
        with ThreadPoolExecutor(2) as pool:
            ended = list(pool.map(lambda command: self.run(command, timeout_s=timeout_s), commands))
        assert not any(done.returncode for done in ended), b"".join(done.stderr for done in ended).decode()[-3000:]
        lines = b"".join(done.stdout for done in ended).splitlines()
        found = [json.loads(line) for line in lines if line.startswith(b"{")]
        return sorted(found, key=lambda lesson: str(lesson["name"]))


@contextmanager
def pod(folder: Path) -> Iterator[Pod]:
    """Start Docker's daemon with everything it keeps below ``folder``, and give it the image."""
    daemon = start_dockerd(folder)
    try:
        assert daemon.cli("import", "-", "pod:latest", data=_image()).returncode == 0
        yield Pod(daemon)
    finally:
        daemon.stop()


def _mounts() -> list[str]:
    python = str(Path(sys.base_prefix).resolve())
    wanted = ["/usr", "/etc/alternatives", "/etc/ld.so.cache", "/etc/fonts", str(PROJECT)]
    wanted += [] if python.startswith("/usr") else [python]
    return [f"--volume={path}:{path}:ro" for path in wanted if os.path.exists(path)]


def _environment() -> list[str]:
    values = {
        "HOME": HOME, "PATH": f"{sys.prefix}/bin:/usr/local/bin:/usr/bin:/bin:/usr/sbin", "PYTHONPATH": str(PROJECT),
        "PYTHONDONTWRITEBYTECODE": "1", "JUPYTER_PREFER_ENV_PATH": "1",
    }  # fmt: skip
    return [f"--env={name}={value}" for name, value in values.items()] + [f"--workdir={HOME}"]


def _image() -> bytes:
    """Return the root file system as a tar: folders, three files, and the links that /usr needs beside it."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, mode in _FOLDERS.items():
            folder = tarfile.TarInfo(name)
            folder.type, folder.mode = tarfile.DIRTYPE, mode
            folder.uid = folder.gid = 1000 if name == HOME[1:] else 0
            archive.addfile(folder)
        for name in ("bin", "sbin", "lib", "lib32", "lib64"):
            if os.path.islink(f"/{name}"):
                link = tarfile.TarInfo(name)
                link.type, link.linkname = tarfile.SYMTYPE, os.readlink(f"/{name}")
                archive.addfile(link)
        for name, text in _FILES.items():
            file = tarfile.TarInfo(name)
            file.size = len(text)
            archive.addfile(file, io.BytesIO(text.encode()))
    return out.getvalue()

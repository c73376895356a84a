"""Binder builds an image from this repository with repo2docker: here it writes the recipe of that image, without Docker or a network."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from labkit.sandbox.server_options import FIRST_LESSON
from labkit.setup import parts
from tests.support import PROJECT, requires

pytestmark = requires("module:repo2docker")
BINDER = PROJECT / "binder"


@functools.cache
def dockerfile() -> str:
    """Return what repo2docker makes of the repository."""
    done = subprocess.run(
        [sys.executable, "-m", "repo2docker", "--no-build", "--debug", "--user-id", "1000", "--user-name", "jovyan", "."],
        cwd=PROJECT, capture_output=True, text=True, timeout=60, check=False,
        env=os.environ | {"DOCKER_HOST": "unix:///nowhere/docker.sock"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout + done.stderr


def test_it_takes_the_environment_the_packages_and_both_scripts_from_the_folder() -> None:
    recipe = dockerfile()
    assert "Building conda environment for python=3.12" in recipe
    assert 'env update -p ${NB_PYTHON_PREFIX} --file "binder/environment.yml"' in recipe
    assert "RUN ./binder/postBuild" in recipe
    assert 'ENV R2D_ENTRYPOINT="${REPO_DIR}/binder/start"' in recipe


def test_it_installs_every_system_package_of_the_list_without_recommends() -> None:
    found = re.search(r"apt-get install --yes --no-install-recommends ([^&]+) &&", dockerfile())
    assert found is not None
    assert found[1].split() == (BINDER / "apt.txt").read_text().split()


def test_the_list_has_what_set_up_would_install() -> None:
    wanted = {part.packages["apt-get"] for part in parts.PARTS if not part.for_tests}
    listed = set((BINDER / "apt.txt").read_text().split())
    # The base image brings util-linux.
    assert wanted - listed <= {"util-linux"}


def test_what_starts_a_session_becomes_the_server_and_finds_the_engines_programs(tmp_path: Path) -> None:
    process = subprocess.Popen(
        ["bash", str(BINDER / "start"), sys.executable, "-c", "import os; print(os.environ['PATH'], os.getpid())"],
        stdout=subprocess.PIPE, text=True, env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
    )  # fmt: skip
    path, pid = process.communicate(timeout=30)[0].split()
    assert path.endswith("/usr/local/sbin:/usr/sbin:/sbin") and int(pid) == process.pid, "it became the program"


def test_a_session_opens_lesson_00(tmp_path: Path) -> None:
    """The server that repo2docker starts, with what ``binder/start`` gives it, sends whoever comes to the lesson."""
    process = subprocess.Popen(
        ["bash", str(BINDER / "start"), sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ServerApp.port=0",
         f"--ServerApp.root_dir={PROJECT}", "--IdentityProvider.token="],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        env=os.environ | {"JUPYTER_RUNTIME_DIR": str(tmp_path / "run"), "JUPYTER_CONFIG_DIR": str(tmp_path / "config"),
                          "JUPYTERLAB_WORKSPACES_DIR": str(tmp_path / "workspaces")},
    )  # fmt: skip
    try:
        url = _address(process, tmp_path / "run")
        with urllib.request.urlopen(url, timeout=20) as answer:
            assert answer.url.endswith(f"/lab/tree/notebooks/{FIRST_LESSON}")
    finally:
        process.terminate()
        process.wait(timeout=20)
    assert (PROJECT / "notebooks" / FIRST_LESSON).is_file()


def _address(process: subprocess.Popen[bytes], folder: Path) -> str:
    deadline_s = time.monotonic() + 60
    while time.monotonic() < deadline_s and process.poll() is None:
        for path in folder.glob("jpserver-*.json"):
            with contextlib.suppress(OSError, ValueError):
                url = str(json.loads(path.read_text())["url"])
                urllib.request.urlopen(f"{url}api/status", timeout=5).close()
                return url
        time.sleep(0.1)
    raise AssertionError("the server did not start")

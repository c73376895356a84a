"""The real `docker` client cannot tell labkit's engine from Docker's: the same session against both, compared line by line."""

from __future__ import annotations

import statistics
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.engine.cases import CASES, masked
from tests.engine.support import Daemon, busybox_tar, start_dockerd, start_labkit
from tests.support import requires

pytestmark = requires("root", "program:docker", "program:dockerd", "program:containerd", "program:busybox")


class Pair:
    """Both daemons, each with the same image and a folder of its own to work in."""

    def __init__(self, docker: Daemon, labkit: Daemon, folder: Path) -> None:
        self.daemons = (docker, labkit)
        self.folders = tuple(folder / name / "ctx" for name in ("docker", "labkit"))
        for daemon, place in zip(self.daemons, self.folders, strict=True):
            place.mkdir(parents=True)
            assert daemon.cli("import", "-", "busybox:latest", data=busybox_tar()).returncode == 0
        # The first build of each pays for what is loaded then.
        self._pool = ThreadPoolExecutor(2)

    def run(self, script: str) -> tuple[subprocess.CompletedProcess[bytes], subprocess.CompletedProcess[bytes]]:
        """Run a script against both at the same time; return what Docker's and what labkit's answered."""
        futures = [self._pool.submit(d.sh, script, f) for d, f in zip(self.daemons, self.folders, strict=True)]
        return futures[0].result(), futures[1].result()

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown()


@pytest.fixture(autouse=True)
def nothing_is_left() -> None:
    """Let containers live from one test to the next, as in a session at a terminal; the end of the run is checked all the same."""


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """Give both daemons."""
    folder = tmp_path_factory.mktemp("p")
    for name in ("a", "b"):
        (folder / name).mkdir()
    docker = start_dockerd(folder / "a")
    try:
        labkit = start_labkit(folder / "b")
        try:
            both = Pair(docker, labkit, folder)
            both.run(
                "docker run --rm busybox true; printf 'FROM busybox\\nRUN true\\n' | docker build -t w - && docker rmi w"
            )
            yield both
            both.close()
            both.daemons[0].sh("docker rm -f $(docker ps -aq)", folder)
        finally:
            assert labkit.stop() == 0
    finally:
        docker.stop()


@pytest.mark.parametrize(("how", "script"), CASES, ids=[script[:70] for _, script in CASES])
def test_a_command_ends_and_speaks_as_with_docker(pair: Pair, how: str, script: str) -> None:
    docker, labkit = pair.run(script)
    theirs, ours = ((done.stdout.decode(), done.stderr.decode()) for done in (docker, labkit))
    assert labkit.returncode == docker.returncode, f"Docker: {theirs}\nlabkit: {ours}"
    if how == "=":
        assert [masked(text) for text in ours] == [masked(text) for text in theirs]
    elif how == "~":
        assert [len(text.splitlines()) for text in ours] == [len(text.splitlines()) for text in theirs], (
            f"{theirs}\n{ours}"
        )


def test_a_run_takes_at_most_a_third_of_dockers_time(pair: Pair, tmp_path: Path) -> None:
    """``docker run --rm IMAGE true``: same client, same image, taken in turns; 0.35 is the promise."""
    taken_s: tuple[list[float], list[float]] = ([], [])
    for _ in range(9):
        for daemon, samples in zip(pair.daemons, taken_s, strict=True):
            begun_s = time.perf_counter()
            assert daemon.sh("docker run --rm busybox true", tmp_path).returncode == 0
            samples.append(time.perf_counter() - begun_s)
    docker_s, labkit_s = (statistics.median(samples) for samples in taken_s)
    assert labkit_s <= 0.35 * docker_s, f"labkit {labkit_s:.3f} s, Docker {docker_s:.3f} s"

"""A program holds its three streams and nothing of labkit's: with the launcher's socket it could speak for the launcher."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from labkit.container import Container, Namespaced, client, run
from labkit.linux.constants import NS
from tests.support import PROJECT, requires

pytestmark = requires("userns", "overlay-userns")

LOOK = ["ls", "/proc/self/fd"]
#: Its streams, and the folder that ls reads.
OWN = ["0", "1", "2", "3"]


@pytest.fixture(autouse=True)
def inheritable() -> Iterator[int]:
    """A descriptor of this program that somebody forgot to mark close-on-exec."""
    fd = os.open(os.devnull, os.O_RDONLY)
    os.set_inheritable(fd, True)
    yield fd
    os.close(fd)


@pytest.mark.parametrize("terminal", [False, True])
def test_a_container_holds_its_streams_only(terminal: bool, rootfs: Path) -> None:
    assert run(Container(LOOK, rootfs=rootfs, terminal=terminal)).text.split() == OWN


@pytest.mark.parametrize("terminal", [False, True])
def test_a_program_that_enters_a_container_holds_its_streams_only(terminal: bool, rootfs: Path) -> None:
    with Container(["sleep", "30"], rootfs=rootfs) as container:
        container.start()
        with container.exec(LOOK, terminal=terminal) as process:
            assert process.communicate().text.split() == OWN


@pytest.mark.parametrize("namespaces", [NS(0), NS.USER | NS.MNT])
def test_a_namespaced_process_holds_its_streams_only(namespaces: NS) -> None:
    assert run(Namespaced(LOOK, namespaces=namespaces)).text.split() == OWN


def test_the_host_sees_the_same_from_outside(rootfs: Path) -> None:
    with Container(["sleep", "30"], rootfs=rootfs) as container:
        container.start()
        assert sorted(os.listdir(f"/proc/{container.pid}/fd")) == ["0", "1", "2"]
        control = {os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd") if _is_socket(fd)}
        theirs = {os.readlink(f"/proc/{container.pid}/fd/{fd}") for fd in ("0", "1", "2")}
        assert client.launcher().alive
        assert not control & theirs


def _is_socket(fd: str) -> bool:
    try:
        return os.readlink(f"/proc/self/fd/{fd}").startswith("socket:")
    except OSError:
        return False


def test_few_allowed_descriptors_are_enough_for_a_container(rootfs: Path) -> None:
    source = (
        "import resource, sys; sys.path.insert(0, sys.argv[1])\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (200, 200))\n"
        "from labkit.container import Container, run\n"
        "print(run(Container(['sh', '-c', 'ulimit -n'], rootfs=sys.argv[2])).text)\n"
    )
    words = [sys.executable, "-c", source, str(PROJECT), str(rootfs)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert (done.stdout.strip(), done.stderr) == ("200", "")

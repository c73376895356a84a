"""The reference of the last lesson makes a container, and a program with a fault in one piece is seen through."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from labkit.errors import InvalidSpec
from labkit.isolation.cgroups import default_parent
from labkit.lesson import capstone
from tests.support import requires

pytestmark = requires("userns", "overlay-userns", "program:busybox", "pyseccomp")


@pytest.fixture(scope="module")
def image() -> Iterator[Path]:
    with capstone.image() as folder:
        yield folder


@pytest.fixture
def program(image: Path) -> capstone.Program:
    made = capstone.program(image)
    assert made is not None
    return made


def test_output_and_exit_status_come_back(program: capstone.Program) -> None:
    done = program.run("sh", "-c", "echo out; echo err >&2; exit 7")
    assert (done.code, done.text, done.errors) == (7, "out", "err")
    assert program.run("no-such-command").code == 127


def test_inside_is_another_world(program: capstone.Program, image: Path) -> None:
    done = program.run(
        "sh", "-c", "echo $$; hostname; echo mine > /etc/mine; cat /etc/mine; ls -d /proc/[0-9]* | wc -l"
    )
    pid, name, written, processes = done.text.split()
    assert (pid, name, written) == ("1", "mine", "mine")
    assert int(processes) <= 3
    assert socket.gethostname() != "mine"
    assert not (image / "etc/mine").exists()


def test_its_powers_are_those_of_docker(program: capstone.Program) -> None:
    text = program.run("cat", "/proc/self/status").text
    for line in ("CapEff:\t00000000a80425fb", "CapBnd:\t00000000a80425fb", "NoNewPrivs:\t1", "Seccomp:\t2"):
        assert line in text


@requires("cgroups")
def test_its_group_has_a_limit(image: Path) -> None:
    if "pids" not in default_parent().controllers:
        pytest.skip("this user has no pids controller")
    limited = capstone.program(image, pids=12)
    assert limited is not None
    assert "all" not in limited.run("sh", "-c", "for n in $(seq 20); do sleep 1 & done; echo all").text


def test_killed_it_leaves_no_process(program: capstone.Program) -> None:
    assert program.orphans_after_kill() == 0


def test_a_student_s_piece_replaces_the_reference(image: Path) -> None:
    def defences():  # type: ignore[no-untyped-def]
        return []

    weak = capstone.program(image, own=[defences])
    assert weak is not None
    # Without no_new_privs, and as root of its own user namespace, it may still load a filter.
    assert "NoNewPrivs:\t0" in weak.run("cat", "/proc/self/status").text


def test_a_piece_without_a_body_is_not_there_yet(image: Path) -> None:
    def files(image: str, stage: str) -> None:
        """Return the steps."""

    assert capstone.program(image, own=[files]) is None


def test_an_unknown_piece_is_named(image: Path) -> None:
    def speed() -> None: ...

    with pytest.raises(InvalidSpec, match="speed is no piece"):
        capstone.program(image, own=[speed])

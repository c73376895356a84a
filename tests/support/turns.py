"""Turns between test runs that go on side by side: ``@alone(why)`` keeps every other run out of its tests meanwhile.

A run of root and a run of an ordinary user share a machine. Most tests do not mind; those that compare times do, and
those that look at what the whole machine has. `take_turn` holds a shared flock(2) around an ordinary test and an exclusive one around
a test that is alone. The locks lie in the folder ``LABKIT_TEST_TURNS``, which `tests.support.runs` makes; without it nobody waits.

Files in which most tests compare times are listed in `TIMED`; a single test elsewhere has the mark.

Leaves out: what fixtures of modules and sessions have started, which is idle between tests; guests and notebooks, which
yield by their low priority.
See: flock(2), nice(1).
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

__all__ = ["FOLDER", "TIMED", "alone", "make_turns", "pytest_runtest_protocol", "take_turn"]

#: The variable of the environment that names the folder of the locks.
FOLDER = "LABKIT_TEST_TURNS"
#: Files of tests that compare times, or look at what the whole machine has. Each keeps the other run waiting, so what survives
#: a busy machine (ratios of interleaved samples, generous bounds) is not here.
TIMED = (
    "container/test_performance.py", "engine/test_performance.py", "image/test_speed.py", "image/registry/test_speed.py",
    "sandbox/test_performance.py", "test_cli_clean.py", "widgets/test_live.py",
)  # fmt: skip
_GATE, _ROOM = "gate", "room"


def alone(why: str) -> pytest.MarkDecorator:
    """Return a mark for a test, class or module during which no test of another run goes on, and say ``why``."""
    return pytest.mark.alone(why)


def make_turns(folder: Path) -> None:
    """Make the files that are locked; everybody may read them, which is all that flock(2) asks for."""
    for name in (_GATE, _ROOM):
        file = folder / name
        file.touch()
        file.chmod(0o444)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Take a turn for each test with its fixtures, before its time limit begins."""
    timed = item.nodeid.removeprefix("tests/").startswith(TIMED)
    with take_turn(alone=timed or item.get_closest_marker("alone") is not None):
        return (yield)


@contextmanager
def take_turn(*, alone: bool) -> Iterator[None]:
    """Wait until this test may run, beside others or ``alone``, and let nobody in who must not be."""
    folder = os.environ.get(FOLDER)
    if not folder:
        yield
        return
    room_fd = os.open(f"{folder}/{_ROOM}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        # Who waits for the room holds the gate: else runs that share the room, one test after another, would keep it for good.
        gate_fd = os.open(f"{folder}/{_GATE}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(gate_fd, fcntl.LOCK_EX)
            fcntl.flock(room_fd, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        finally:
            os.close(gate_fd)
        yield
    finally:
        # Said aloud: a process that a test has forked may hold a copy of the descriptor.
        fcntl.flock(room_fd, fcntl.LOCK_UN)
        os.close(room_fd)

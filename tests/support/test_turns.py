"""Runs of pytest beside each other: a test that is alone has no test of the other run beside it, all others have."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.support import PROJECT
from tests.support.inner import run_inner
from tests.support.turns import FOLDER, TIMED, make_turns, take_turn

#: Each test writes when it began and when it ended.
TESTS = """
import time
from tests.support import alone

def note(kind):
    begun = time.monotonic()
    time.sleep(0.15)
    with open({notes!r}, "a") as file:
        file.write(f"{{kind}} {{begun}} {{time.monotonic()}}\\n")

def test_1(): note("shared")
@alone("it is measured")
def test_2(): note("alone")
def test_3(): note("shared")
@alone("it is measured")
def test_4(): note("alone")
def test_5(): note("shared")
"""


@pytest.fixture
def turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    make_turns(tmp_path)
    monkeypatch.setenv(FOLDER, str(tmp_path))
    return tmp_path


def test_a_test_that_is_alone_overlaps_with_none_of_the_other_run(turns: Path, tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    threads = []
    for name in ("one", "other"):
        folder = tmp_path / name
        folder.mkdir()
        options = {"status": 0, "environment": {FOLDER: str(turns)}}
        source = TESTS.format(notes=str(notes))
        threads.append(threading.Thread(target=run_inner, args=(folder, source), kwargs=options))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    rows = [line.split() for line in notes.read_text().splitlines()]
    spans = [(kind, float(begun), float(ended)) for kind, begun, ended in rows]
    assert len(spans) == 10
    for number, (kind, begun, ended) in enumerate(spans):
        for other, other_begun, other_ended in spans[number + 1 :]:
            if "alone" in (kind, other):
                assert ended <= other_begun or other_ended <= begun


def test_tests_that_mind_nobody_run_at_the_same_time(turns: Path) -> None:
    with take_turn(alone=False):
        done = subprocess.run(
            ["flock", "--shared", "--nonblock", f"{turns}/room", "true"], capture_output=True, check=False
        )
        assert done.returncode == 0
    with take_turn(alone=True):
        assert subprocess.run(["flock", "--shared", "--nonblock", f"{turns}/room", "true"], check=False).returncode == 1


def test_who_wants_to_be_alone_is_not_kept_waiting_by_tests_that_follow_each_other(turns: Path) -> None:
    """Two runs share the room, each again at once after it has left; their tests overlap, so it is never empty by itself."""
    over = threading.Event()

    def share(delay_s: float) -> None:
        time.sleep(delay_s)
        while not over.is_set():
            with take_turn(alone=False):
                time.sleep(0.05)

    threads = [threading.Thread(target=share, args=(delay_s,)) for delay_s in (0, 0.025)]
    for thread in threads:
        thread.start()
    try:
        time.sleep(0.1)
        began_s = time.monotonic()
        with take_turn(alone=True):
            waited_s = time.monotonic() - began_s
    finally:
        over.set()
        for thread in threads:
            thread.join()
    assert waited_s < 5


def test_a_process_that_a_test_leaves_behind_does_not_keep_its_turn(turns: Path) -> None:
    with take_turn(alone=True):
        forked = subprocess.Popen(
            [sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE, close_fds=False
        )
    assert subprocess.run(["flock", "--nonblock", f"{turns}/room", "true"], check=False).returncode == 0
    forked.communicate()


def test_without_other_runs_nobody_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FOLDER, "")
    with take_turn(alone=True), take_turn(alone=True):
        pass


def test_every_file_of_the_list_is_there() -> None:
    for place in TIMED:
        assert (PROJECT / "tests" / place).is_file(), place

"""The attack board tries what is ticked, one attack a frame, and leaves nothing when it is stopped or closed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from labkit.measure.attacks import ATTACKS, DEFENCES, AttackTable, attack_table
from labkit.measure.chosen import Board
from labkit.measure.outcomes import Outcome
from labkit.widgets import LiveView
from labkit.widgets.attack_table import attack_board, describe
from tests.support import requires

pytestmark = [requires("userns", "overlay-userns", "pyseccomp"), pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def table() -> AttackTable:
    """The outcomes of no defence and of all."""
    return attack_table(None, [DEFENCES[0].name, DEFENCES[-1].name])


@pytest.fixture
def board(table: AttackTable) -> Iterator[LiveView[Any]]:
    """The board, not running."""
    made = attack_board(table)
    yield made
    made.close()


def parts(widget: Any, kind: str) -> list[Any]:
    """Return the widgets of one kind below ``widget``, in order."""
    own = [widget] if type(widget).__name__ == kind else []
    return own + [part for child in getattr(widget, "children", ()) for part in parts(child, kind)]


def tick(board: LiveView[Any], *names: str) -> None:
    """Leave exactly ``names`` ticked."""
    for box in parts(board.widget, "Checkbox"):
        box.value = box.description in names


def run_to_end(board: LiveView[Any], within_s: float = 90.0) -> None:
    """Press Start and wait until the view has stopped by itself."""
    next(button for button in parts(board.widget, "Button") if button.description == "Start").click()
    thread = board._thread
    if thread is not None:
        thread.join(within_s)
    assert not board.running


def test_the_first_frame_shows_no_defence_and_all_before_anything_runs(board: LiveView[Any]) -> None:
    assert board.png.startswith(b"\x89PNG")
    assert board.sentence == "Nothing tried yet against your choice."
    assert [box.description for box in parts(board.widget, "Checkbox")] == [
        defence.title.removeprefix("+ ") for defence in DEFENCES[1:]
    ]


def test_without_the_filter_a_new_namespace_gets_through(board: LiveView[Any]) -> None:
    tick(board, "namespaces", "a root filesystem", "user namespace", "no_new_privs")
    run_to_end(board)
    assert board.sentence.startswith(f"Of {len(ATTACKS)} attacks against your choice")
    assert "reach more of the kernel" in board.sentence
    assert "All attacks were tried" in parts(board.widget, "HTML")[1].value


def test_a_tick_that_needs_another_sets_it_and_says_so(board: LiveView[Any]) -> None:
    tick(board, "seccomp")
    board.start()
    until_s = time.monotonic() + 30
    while "got through" not in board.sentence and time.monotonic() < until_s:
        time.sleep(0.05)
    board.stop()
    ticked = {box.description for box in parts(board.widget, "Checkbox") if box.value}
    assert ticked == {"namespaces", "a root filesystem", "no_new_privs", "seccomp"}
    assert "Added, because something that is ticked needs it: namespaces" in parts(board.widget, "HTML")[0].value


@requires("undelegated")
def test_limits_that_this_user_may_not_set_are_a_sentence(board: LiveView[Any]) -> None:
    tick(board, "limits")
    run_to_end(board)
    assert "may not make cgroups" in parts(board.widget, "HTML")[0].value
    assert board.sentence == "Nothing tried yet against your choice."


def test_closing_it_in_the_middle_ends_the_attackers(table: AttackTable) -> None:
    made = attack_board(table)
    tick(made, "namespaces", "a root filesystem")
    made.start()
    until_s = time.monotonic() + 30
    while made.frames_drawn < 3 and time.monotonic() < until_s:
        time.sleep(0.02)
    made.close()  # the leak check of all tests looks for processes, folders and threads


def test_the_sentence_names_what_got_through_and_what_is_unknown() -> None:
    outcomes = (
        Outcome("mount", "chosen", True, "", ""),
        Outcome("setuid", "chosen", False, "", ""),
        Outcome("memory_hog", "chosen", None, "", "no cgroups"),
    )
    said = describe(Board((), outcomes, (), ()))
    assert said == "Of 3 attacks against your choice 1 got through: mount on the host; 1 could not be tried."
    assert describe(Board((), outcomes[1:2], (), ())) == "Of 1 attacks against your choice none got through."

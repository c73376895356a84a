"""The live race runs who is ticked, one round a frame, ends by itself, and leaves nothing when it is closed in the middle."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from labkit.errors import InvalidSpec
from labkit.measure.hostfacts import host_facts
from labkit.measure.startup import MACHINE_NAMES, Race, Row
from labkit.widgets import LiveView
from labkit.widgets.race_view import RUNNERS, describe, race_view
from tests.support import requires

EARLIER = Race(
    host_facts(),
    (Row("process", (1.0, 2.0, 3.0)), Row("namespace:pid", (2.0,)), Row("docker", (), skipped="No daemon answers.")),
    3,
    1,
)


@pytest.fixture
def view() -> Iterator[LiveView[Any]]:
    """The view over an earlier race, not running, with only two ticked."""
    made = race_view(EARLIER, starts=3)
    tick(made, "bare process", "labkit's container")
    yield made
    made.close()


def parts(widget: Any, kind: str) -> list[Any]:
    """Return the widgets of one kind below ``widget``, in order."""
    own = [widget] if type(widget).__name__ == kind else []
    return own + [part for child in getattr(widget, "children", ()) for part in parts(child, kind)]


def tick(view: LiveView[Any], *names: str) -> None:
    """Leave exactly ``names`` ticked."""
    for box in parts(view.widget, "Checkbox"):
        box.value = box.description in names


def run_to_end(view: LiveView[Any], within_s: float = 60.0) -> None:
    """Start, and wait until the view has stopped by itself."""
    view.start()
    thread = view._thread
    if thread is not None:
        thread.join(within_s)
    assert not view.running


def test_an_earlier_race_is_shown_until_it_starts(view: LiveView[Any]) -> None:
    assert view.png.startswith(b"\x89PNG")
    assert view.sentence == (
        "Median in ms (middle half): bare process 2.0 (1.5 to 2.5), n = 3. docker: No daemon answers."
    )
    assert len(parts(view.widget, "Checkbox")) == len(RUNNERS)
    assert parts(view.widget, "IntSlider")[0].value == 3


@requires("userns", "overlay-userns", "program:busybox")
def test_it_runs_as_many_rounds_as_the_slider_says_and_stops(view: LiveView[Any]) -> None:
    run_to_end(view)
    assert "bare process" in view.sentence
    assert view.sentence.count("n = 3") == 2
    assert "The race is over after 3 rounds" in parts(view.widget, "HTML")[0].value


@requires("userns", "overlay-userns", "program:busybox")
def test_a_second_start_is_a_second_race(view: LiveView[Any]) -> None:
    run_to_end(view)
    tick(view, "bare process")
    parts(view.widget, "IntSlider")[0].value = 2
    run_to_end(view)
    assert view.sentence.count("n = 2") == 1
    assert "container" not in view.sentence


def test_nobody_ticked_is_a_sentence(view: LiveView[Any]) -> None:
    tick(view)
    run_to_end(view)
    assert "Nobody takes part" in parts(view.widget, "HTML")[0].value


@requires("userns", "overlay-userns", "program:busybox")
def test_closing_it_in_the_middle_ends_the_race() -> None:
    made = race_view(starts=100)
    tick(made, "bare process", "labkit's container", "runc")
    made.start()
    until_s = time.monotonic() + 30
    while made.frames_drawn < 4 and time.monotonic() < until_s:
        time.sleep(0.02)
    made.close()  # the leak check of all tests looks for processes, cgroups, folders and threads


def test_the_sentence_says_when_there_is_nothing_yet() -> None:
    assert describe(None) == "Nobody has started yet."
    assert describe(Race(host_facts(), (Row("process", ()),), 0, 1)) == "Warming up."


def test_the_slider_takes_what_it_can() -> None:
    with pytest.raises(InvalidSpec):
        race_view(starts=0)


def test_machines_are_offered_where_the_lesson_says_that_there_are_some() -> None:
    made = race_view(EARLIER, machines=True)
    assert len(parts(made.widget, "Checkbox")) == len(RUNNERS) + len(MACHINE_NAMES)
    assert "micro VM, booted" in [box.description for box in parts(made.widget, "Checkbox")]
    made.close()

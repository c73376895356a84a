"""The race as a picture: every start is a dot, and the words beside it are the numbers."""

from __future__ import annotations

import numpy as np

from labkit import charts
from labkit.charts import Frames
from labkit.charts.race import RaceChart, concept_of, draw, finding, title_of, words_for
from labkit.measure.hostfacts import host_facts
from labkit.measure.startup import NAMES, Race, Row

PROCESS = Row("process", (0.5, 0.6, 0.7))
CONTAINER = Row("container", (3.0, 5.0, 4.0, 90.0))
RUNC = Row("runc", (40.0, 45.0, 50.0))
CRUN = Row("crun", (), skipped="It is not installed.")


def race(*rows: Row) -> Race:
    """Return a race that was run."""
    return Race(host_facts(), rows, 3, 1)


def test_every_contender_has_a_title_and_a_colour() -> None:
    assert {concept_of(name) for name in NAMES} == {"process", "namespace", "container", "peer"}
    assert len({title_of(name) for name in NAMES}) == len(NAMES)
    assert title_of("namespace:pid") == "pid namespace"


def test_the_words_are_median_middle_half_and_number() -> None:
    assert words_for(RUNC) == "45.0 (42.5 to 47.5), n = 3"
    assert words_for(CRUN) == "cannot run here"
    assert words_for(Row("bwrap", ())) == ""


def test_the_title_states_what_was_found() -> None:
    assert finding(race(PROCESS, CONTAINER, RUNC)) == "A container starts in 4.5 ms; runc takes 10 times as long"
    assert finding(race(PROCESS, CONTAINER, CRUN)) == "A container starts in 4.5 ms, 7.5 times as long as a process"
    assert finding(race(PROCESS)) == "Every dot is one start"


def test_each_start_is_a_dot_at_its_time() -> None:
    figure, (axes,) = charts.figure(9.4, 5.0)
    draw(axes, race(PROCESS, CONTAINER, CRUN, RUNC))
    drawn = [tuple(np.asarray(line.get_xdata()).tolist()) for line in axes.lines]
    assert [PROCESS.samples_ms, CONTAINER.samples_ms, RUNC.samples_ms] == drawn[0::2]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["bare process", "labkit's container", "runc"]
    assert axes.get_xscale() == "log"
    figure.clear()


def test_the_live_picture_fills_and_keeps_its_axes() -> None:
    frames = Frames(RaceChart(("process", "container", "crun")), width_in=9.2, height_in=3.0)
    empty = frames.png(None)
    some = frames.png(race(PROCESS))
    more = frames.png(race(PROCESS, CONTAINER, CRUN, RUNC))
    assert len({empty, some, more}) == 3
    assert frames.png(None) == empty
    assert frames.wholes_drawn == 1, "the axes never change, so they are drawn once"

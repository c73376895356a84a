"""Sliders write limits, buttons start and end hogs, and nothing is left when the view rests or is closed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest

from labkit.isolation.cgroups import Limits
from labkit.units import MiB
from labkit.widgets.cgroup_sliders import CgroupSliders
from tests.support import requires

pytestmark = requires("cgroups")


def wait_until(true: Callable[[], bool], *, within_s: float = 10.0) -> None:
    """Wait for ``true()``."""
    deadline_s = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < deadline_s, "it did not happen"
        time.sleep(0.02)


@pytest.fixture
def view() -> Iterator[CgroupSliders]:
    """Return a view that stands still, and close it."""
    made = CgroupSliders(Limits(cpus=0.5, memory_bytes=64 * MiB, swap_bytes=0, pids=20))
    yield made
    made.close()


def limits_of(view: CgroupSliders) -> tuple[float | None, int | None, int | None]:
    """Return what the group itself has."""
    assert view.pen is not None
    limits = view.pen.cgroup.limits
    return limits.cpus, limits.memory_bytes, limits.pids


def test_the_first_frame_is_there_and_says_the_limits(view: CgroupSliders) -> None:
    assert view.png.startswith(b"\x89PNG") and not view.running
    assert "limit 50 %" in view.sentence and "of 64 MiB" in view.sentence and "1 of 20" in view.sentence
    assert repr(view) == "Live view: a cgroup, its limits and its hogs"


def test_a_slider_is_a_limit_of_the_group(view: CgroupSliders) -> None:
    view._sliders["cpu"].value = 20
    view._sliders["memory"].value = 96
    view._sliders["pids"].value = 9
    assert limits_of(view) == (0.2, 96 * MiB, 9)
    assert "The kernel took the new limit." in view._news.value
    assert "limit 20 %" in view.sentence


def test_a_hog_is_started_and_ended_by_its_button(view: CgroupSliders) -> None:
    button = view._buttons["CPU hog"]
    assert button.description == "Start CPU hog"
    view._sliders["cpu"].value = 10  # so little that the hog meets it on a busy machine, too
    button.click()
    assert view.running and button.description == "Stop CPU hog"
    wait_until(lambda: "stopped early in" in view.sentence)
    button.click()
    assert view.pen is not None and view.pen.running == () and button.description == "Start CPU hog"


def test_a_hog_that_is_killed_is_news(view: CgroupSliders) -> None:
    view.press("memory hog")
    wait_until(lambda: "the kernel killed it" in view._news.value)
    assert view._buttons["memory hog"].description == "Start memory hog" and view.running


def test_resting_leaves_no_group_and_a_button_begins_anew(view: CgroupSliders) -> None:
    view.press("process hog")
    assert view.pen is not None
    folder = next(iter(view.pen.cgroup.folders.values()))
    view.rest()
    assert not folder.exists() and view.pen is None and not view.running
    view._sliders["cpu"].value = 30
    assert view.sentence == "There is no group now: start a hog to make one."
    view.press("CPU hog")
    assert view.running and limits_of(view) == (0.3, 64 * MiB, 20)


def test_closing_ends_everything(view: CgroupSliders) -> None:
    view.press("CPU hog")
    assert view.pen is not None
    folder = next(iter(view.pen.cgroup.folders.values()))
    view.close()
    assert not folder.exists() and view.widget.comm is None
    view.start()
    assert not view.running


def test_it_costs_at_most_15_percent_of_a_core(view: CgroupSliders) -> None:
    view.start()
    time.sleep(0.5)
    begun_s, begun_cpu_s, frames = time.monotonic(), time.process_time(), view.frames_drawn
    time.sleep(3)
    share = (time.process_time() - begun_cpu_s) / (time.monotonic() - begun_s)
    assert share <= 0.15, f"{share:.1%} of a core"
    assert view.frames_drawn - frames >= 8

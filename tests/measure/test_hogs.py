"""A hog takes what it says and no more; a pen starts and ends hogs, and is empty afterwards."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest

from labkit.container import Container, Limits
from labkit.errors import InvalidSpec, InvalidState
from labkit.measure import hogs
from labkit.measure.hogs import HOGS, Hog, HogPen
from labkit.units import MiB
from tests.support import requires

LIMITS = Limits(cpus=0.5, memory_bytes=96 * MiB, pids=24)
limited = requires("cgroups")


def wait_until(true: Callable[[], bool], *, within_s: float = 8.0) -> None:
    """Wait for ``true()``."""
    deadline_s = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < deadline_s, "it did not happen"
        time.sleep(0.02)


def end_of(hog: Hog, limits: Limits) -> tuple[str, int]:
    """Run ``hog`` in a container; return how it ended and the most processes seen."""
    most = 0
    with Container(hog.command, image_like_host=True, limits=limits, time_limit_s=10) as container:
        container.start()
        assert container.cgroup is not None
        while container.status == "running":
            most = max(most, container.cgroup.stats().pids or 0)
            time.sleep(0.02)
        return container.wait(1).reason, most


@limited
def test_the_fork_bomb_meets_its_limit_and_ends_by_itself_without_one() -> None:
    reason, most = end_of(hogs.fork_bomb(), Limits(pids=16, cpus=0.5))
    assert "pids limit" in reason and most <= 16
    reason, most = end_of(hogs.fork_bomb(), Limits(pids=400))
    assert reason == "exit status 0" and 16 < most <= 190


@limited
def test_the_memory_hog_is_killed_at_its_limit_and_stops_below_one() -> None:
    hog = hogs.memory_hog(64 * MiB, bytes_per_s=512 * MiB, hold_s=0.1)
    assert hog.most == "64 MiB"
    assert "oom_killed" in end_of(hog, Limits(memory_bytes=32 * MiB, swap_bytes=0))[0]
    assert end_of(hog, Limits(memory_bytes=128 * MiB))[0] == "exit status 0"


@pytest.fixture
def pen() -> Iterator[HogPen]:
    """Return a pen that has started."""
    with HogPen(LIMITS) as made:
        made.start()
        yield made


@limited
def test_a_pen_starts_and_ends_hogs_by_name(pen: HogPen) -> None:
    assert pen.cgroup.stats().pids == 1 and not pen.running
    pen.begin("process hog")
    pen.begin("process hog")
    wait_until(lambda: (pen.cgroup.stats().pids_limit_hits or 0) > 0)
    assert pen.running == ("process hog",) and pen.cgroup.stats().pids == LIMITS.pids
    pen.end("process hog")
    pen.end("process hog")
    wait_until(lambda: pen.cgroup.stats().pids == 1)


@limited
def test_a_hog_that_is_killed_is_reported_once_and_the_pen_stays(pen: HogPen) -> None:
    pen.begin("memory hog")
    ended: dict[str, str] = {}
    wait_until(lambda: bool(ended.update(pen.collect()) or ended))
    assert ended == {"memory hog": "killed by SIGKILL"} and pen.collect() == {}
    assert (pen.cgroup.stats().oom_kills or 0) == 1
    pen.begin("CPU hog")
    assert pen.running == ("CPU hog",)


@limited
def test_closing_a_pen_ends_everything_in_it() -> None:
    pen = HogPen(LIMITS)
    pen.start()
    for name in HOGS:
        pen.begin(name)
    folder = next(iter(pen.cgroup.folders.values()))
    pen.close()
    pen.close()
    assert not folder.exists()


def test_a_pen_knows_its_hogs_and_its_moment() -> None:
    with HogPen(Limits()) as pen:
        with pytest.raises(InvalidSpec, match="no hog 'disk hog': there are CPU hog"):
            pen.begin("disk hog")
        with pytest.raises(InvalidState, match="call start"):
            _ = pen.cgroup

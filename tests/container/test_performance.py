"""Promises about speed and memory, measured as the course measures them; each has a few tries, as the machine may be shared."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from labkit.measure.density import measure_density, measure_series
from labkit.measure.startup import race
from labkit.units import MiB
from tests.support import requires

pytestmark = [requires("userns", "overlay-userns", "program:busybox", "pyseccomp"), pytest.mark.timeout(300)]

TRIES = 5


def best_of(measure: Callable[[], float], *, at_most: float, what: str) -> float:
    """Measure until the figure is good enough, at most `TRIES` times; print every one (``pytest -s`` shows them)."""
    found: list[float] = []
    for _ in range(TRIES):
        found.append(measure())
        print(f"{what}: {found[-1]:.2f} (at most {at_most:g})")
        if found[-1] <= at_most:
            break
    return min(found)


# The aim is 1.0. Reached on a busy machine (0.8 to 0.95), not always on an idle one (1.0 to 1.07), where bwrap's two processes wait
# for nobody and labkit's program and launcher wake each other.
@requires("root", "program:bwrap", "cgroups")
def test_a_full_container_starts_about_as_fast_as_bwrap_which_does_less() -> None:
    def ratio() -> float:
        result = race(40, only=["container", "bwrap"])
        assert not result.row("bwrap").skipped
        assert result.row("container").note.endswith("limits")
        return result.ratio("container", "bwrap")

    assert best_of(ratio, at_most=1.0, what="container / bwrap") <= 1.25


@requires("program:runc", "cgroups")
def test_a_full_container_starts_six_times_as_fast_as_runc() -> None:
    def ratio() -> float:
        result = race(15, only=["container", "runc"])
        if result.row("runc").skipped:
            pytest.skip(f"runc: {result.row('runc').skipped}")
        return result.ratio("container", "runc")

    assert best_of(ratio, at_most=1 / 6, what="container / runc") <= 1 / 6


def test_a_thousand_containers_one_after_another_leave_nothing_and_do_not_slow_down() -> None:
    def slowing() -> float:
        series = measure_series(1000)
        before, after = series.before, series.after
        for name in ("descriptors", "processes", "cgroups", "mounts", "launcher_descriptors"):
            assert getattr(after, name) == getattr(before, name), name
        assert after.launcher_bytes - before.launcher_bytes < 4 * MiB
        return series.slowing

    assert best_of(slowing, at_most=1.2, what="last hundred / first hundred") <= 1.2


def test_two_hundred_containers_at_once_cost_little_memory_each() -> None:
    def each_mib() -> float:
        density = measure_density(200)
        assert density.count == len(density.process_bytes) == 200
        return density.each_bytes / MiB

    assert best_of(each_mib, at_most=1.5, what="MiB a container") <= 1.5

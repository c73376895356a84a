from __future__ import annotations

import json
import os
import subprocess

import pytest

from labkit.container import client
from labkit.errors import InvalidSpec
from labkit.measure.density import MOST_ALIVE, Counters, Density, Series, count_now, measure_density, measure_series
from labkit.measure.hostfacts import host_facts
from labkit.units import MiB
from tests.support import requires

pytestmark = requires("userns", "program:busybox")


def test_all_containers_are_alive_at_once_when_they_are_measured() -> None:
    launcher = client.launcher()
    alive: list[int] = []

    def look(*_: int) -> None:
        shown = subprocess.run(
            ["pgrep", "-c", "-P", str(launcher.process.pid)], capture_output=True, text=True, check=False
        )
        alive.append(int(shown.stdout))

    before = int(
        subprocess.run(
            ["pgrep", "-c", "-P", str(launcher.process.pid)], capture_output=True, text=True, check=False
        ).stdout
    )
    density = measure_density(8, progress=look)
    assert [count - before for count in alive] == list(range(1, 9))
    assert (density.count, len(density.start_ms), len(density.process_bytes)) == (8, 8, 8)
    assert all(0 < size < 8 * MiB for size in density.process_bytes)


def test_the_figures_survive_json_and_are_plausible() -> None:
    density = measure_density(5)
    assert Density.from_json(json.loads(json.dumps(density.to_json()))) == density
    assert -4 * MiB < density.each_bytes < 16 * MiB  # five are few: the machine's own noise is large beside them


@requires("cgroups")
def test_with_cgroups_each_container_is_charged() -> None:
    density = measure_density(3)
    assert len(density.cgroup_bytes) == 3
    assert density.program_cgroup_bytes is not None


@pytest.mark.parametrize("count", [0, -1, MOST_ALIVE + 1])
def test_a_count_out_of_bounds_is_refused(count: int) -> None:
    with pytest.raises(InvalidSpec):
        measure_density(count)


def test_a_series_leaves_nothing() -> None:
    series = measure_series(30)
    assert len(series.samples_ms) == 30
    before, after = series.before, series.after
    assert (after.descriptors, after.processes, after.cgroups, after.mounts, after.launcher_descriptors) == (
        before.descriptors, before.processes, before.cgroups, before.mounts, before.launcher_descriptors,
    )  # fmt: skip
    assert Series.from_json(json.loads(json.dumps(series.to_json()))) == series


def test_slowing_compares_the_last_tenth_with_the_first() -> None:
    zero = Counters(0, 0, 0, 0, None, 0)
    series = Series(host_facts(), (1.0, 1.0, *[5.0] * 16, 3.0, 3.0), zero, zero)
    assert (series.first_ms, series.last_ms, series.slowing) == (1.0, 3.0, 3.0)


def test_too_few_for_a_series_is_refused() -> None:
    with pytest.raises(InvalidSpec, match="no series"):
        measure_series(9)


def test_counters_are_those_of_proc() -> None:
    counted = count_now()
    assert abs(counted.descriptors - len(os.listdir(f"/proc/{os.getpid()}/fd"))) <= 1
    shown = subprocess.run(["findmnt", "--noheadings", "--list"], capture_output=True, text=True, check=True).stdout
    assert counted.mounts == len(shown.splitlines())
    resident = subprocess.run(
        ["ps", "-o", "rss=", "-p", str(client.launcher().process.pid)], capture_output=True, text=True, check=True
    )
    assert counted.launcher_bytes == pytest.approx(int(resident.stdout) * 1024, rel=0.05)

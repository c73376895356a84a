"""Density and overhead as pictures: the numbers of the result, with units, and no difference where none is shown."""

from __future__ import annotations

import dataclasses

import numpy as np

from labkit import charts
from labkit.charts.density import LOADS, draw_memory, draw_overhead, draw_starts, memory_parts, verdict
from labkit.measure.density import Density
from labkit.measure.hostfacts import host_facts
from labkit.measure.overhead import Overhead, OverheadRow

CROWD = Density(
    host=host_facts(), count=20, start_ms=tuple(4.0 + n % 2 for n in range(20)), cgroup_bytes=(200 << 10,) * 20,
    process_bytes=(80 << 10,) * 20, program_cgroup_bytes=500 << 10, program_process_bytes=40 << 10,
    kernel_bytes=20 * (300 << 10), launcher_bytes=20 * (4 << 10),
)  # fmt: skip
SAME = OverheadRow("cpu", "computing", (10.0, 11.0, 12.0), (10.5, 11.5, 12.5))
SLOWER = OverheadRow("syscalls", "system calls", (10.0, 10.0, 10.0), (12.0, 12.0, 12.0))
FASTER = OverheadRow("memory", "fresh memory", (10.0, 10.0, 10.0), (5.0, 5.0, 5.0))


def test_the_parts_of_the_memory_are_per_container_and_never_negative() -> None:
    assert list(memory_parts(CROWD).values()) == [200, 300, 4]
    without_groups = dataclasses.replace(CROWD, cgroup_bytes=(), kernel_bytes=-5, launcher_bytes=-5)
    assert list(memory_parts(without_groups).values()) == [80, 0, 0]


def test_starts_and_memory_are_drawn_with_units_and_findings() -> None:
    figure, (left, right) = charts.figure(9.4, 3.0, columns=2)
    draw_starts(left, CROWD)
    draw_memory(right, CROWD)
    assert left.get_title(loc="left") == "The last tenth: 1.0 × the first"
    assert left.get_ylim()[0] == 0
    assert tuple(np.asarray(left.lines[0].get_ydata()).tolist()) == CROWD.start_ms
    assert right.get_title(loc="left") == "One of 20 takes 504 KiB"
    assert (left.get_ylabel(), right.get_xlabel()) == ("start-up (ms)", "memory (KiB)")
    figure.clear()


def test_a_ratio_is_named_only_where_the_middle_halves_lie_apart() -> None:
    assert verdict(SAME) == "no different"
    assert verdict(SLOWER) == "1.20 × as long"
    assert verdict(FASTER) == "0.50 × as long"


def test_each_load_has_two_bars() -> None:
    figure, (axes,) = charts.figure(8.6, 2.8)
    processes = OverheadRow("processes", "starting processes", (1.0,), (1.0,))
    draw_overhead(axes, Overhead(host_facts(), (SAME, SLOWER, FASTER, processes)))
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert len(labels) == 2 * len(LOADS)
    assert labels[:2] == ["computing, outside", "computing, in a container"]
    assert axes.get_title(loc="left") == "Inside: computing no different, system calls 1.20 × as long"
    figure.clear()

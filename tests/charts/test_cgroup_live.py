"""The curves end at now, the limits are theirs at the time, and a new group begins a new curve."""

from __future__ import annotations

import math

import numpy as np

from labkit.charts import Frames, figure
from labkit.charts.cgroup_live import CgroupChart, Moment, draw_cpu
from labkit.isolation.cgroups import Limits
from labkit.measure.sampler import Sample
from labkit.units import MiB

LIMITS = Limits(cpus=0.5, memory_bytes=128 * MiB, pids=40)


def chart() -> CgroupChart:
    """Return a chart that has been laid out."""
    made = CgroupChart(most_cpu_percent=100, most_memory_bytes=256 * MiB, most_pids=64)
    Frames(made)
    return made


def moment(time_s: float, *, cpu: float | None = 50.0, limits: Limits = LIMITS) -> Moment:
    """Return a moment of a group that uses 64 MiB and 7 processes."""
    return Moment(Sample(time_s=time_s, cpu_percent=cpu, memory_bytes=64 * MiB, pids=7), limits)


def test_the_newest_sample_is_at_now_and_figures_stand_beside_the_names() -> None:
    made = chart()
    for time_s in (1.0, 1.2, 1.6):
        made.update(moment(time_s))
    cpu, memory, pids = made._panels
    assert [round(x, 1) for x in cpu.used.get_xdata()] == [-0.6, -0.4, 0.0]
    assert list(memory.used.get_ydata()) == [64, 64, 64] and list(memory.limit.get_ydata()) == [128, 128, 128]
    assert [panel.words.get_text() for panel in (cpu, memory, pids)] == ["50 % of 50 %", "64 MiB of 128 MiB", "7 of 40"]


def test_a_moved_limit_leaves_the_old_one_where_it_was() -> None:
    made = chart()
    made.update(moment(1.0))
    made.update(moment(2.0, limits=Limits(cpus=0.25, memory_bytes=64 * MiB, pids=4)))
    assert [list(panel.limit.get_ydata()) for panel in made._panels] == [[50, 25], [128, 64], [40, 4]]


def test_what_is_not_counted_leaves_a_gap() -> None:
    made = chart()
    made.update(moment(1.0, cpu=None, limits=Limits()))
    cpu = made._panels[0]
    assert math.isnan(cpu.used.get_ydata()[0]) and math.isnan(cpu.limit.get_ydata()[0])
    assert cpu.words.get_text() == "–"


def test_another_group_begins_a_new_curve() -> None:
    made = chart()
    made.update(moment(9.0))
    made.update(moment(0.2))
    assert list(made._panels[0].used.get_xdata()) == [0.0]


def test_a_long_run_keeps_a_bounded_number_of_points() -> None:
    made = chart()
    for number in range(1000):
        made.update(moment(float(number)))
    assert len(made._panels[0].used.get_xdata()) <= 400


def test_the_still_figure_has_the_limit_and_starts_at_zero() -> None:
    _, (axes,) = figure()
    samples = [moment(5.0, cpu=None).sample, moment(6.0, cpu=24.0).sample, moment(7.0, cpu=26.0).sample]
    draw_cpu(axes, samples, limit_percent=25, title="A quarter of a CPU")
    used, limit = axes.lines
    assert np.asarray(used.get_xdata()).tolist() == [1.0, 2.0]
    assert np.asarray(limit.get_ydata()).tolist() == [25, 25] and axes.get_ylim()[0] == 0

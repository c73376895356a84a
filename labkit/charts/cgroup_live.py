"""A cgroup at work: CPU, memory and processes over the last seconds, each with its limit as a dashed line.

Three panels share one time axis, which ends at "now". What the group uses is the solid line; it may climb to the dashed line and not
above. Beside each panel's name stand the figures of this moment, so the picture reads without following the curve.

Leaves out: I/O, pressure (the sentence beside the view has it).
See: `labkit.measure.sampler`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from labkit.charts import theme
from labkit.isolation.cgroups import Limits
from labkit.measure.sampler import Sample
from labkit.units import MiB

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["CgroupChart", "Moment", "draw_cpu"]

SHOWN_S = 20.0
_MOST_POINTS = 400


@dataclass(frozen=True, slots=True)
class Moment:
    """What the chart moves to: a sample, and the limits at that time."""

    sample: Sample
    limits: Limits


@dataclass(slots=True)
class _Panel:
    axes: Any
    used: Any
    limit: Any
    words: Any
    values: deque[float]
    limits: deque[float]


class CgroupChart:
    """The live picture. ``most_cpu_percent``, ``most_memory_bytes`` and ``most_pids`` are where its axes end."""

    def __init__(self, *, most_cpu_percent: float, most_memory_bytes: int, most_pids: int) -> None:
        self.most = (most_cpu_percent, most_memory_bytes / MiB, float(most_pids))
        self._times: deque[float] = deque(maxlen=_MOST_POINTS)
        self._panels: list[_Panel] = []

    def setup(self, figure: Figure) -> Sequence[Artist | Iterable[Artist]]:
        """Make three panels in a row; the two lines and the words of each move."""
        look = theme.look("container")
        titles = (("CPU", "CPU time (% of one)"), ("memory", "memory (MiB)"), ("processes", "processes (count)"))
        for place, ((name, unit), most) in enumerate(zip(titles, self.most, strict=True)):
            axes = figure.add_subplot(1, 3, place + 1)
            theme.label_axes(axes, title=name, x="time (s before now)", y=unit)
            axes.set(xlim=(-SHOWN_S, 0.5), ylim=(0, most * 1.12), xticks=(-20, -10, 0), xticklabels=("20", "10", "now"))
            (limit,) = axes.plot([], [], color=theme.INK, linestyle=(0, (4, 3)), linewidth=1.4, zorder=4)
            (used,) = axes.plot([], [], color=look.colour, linewidth=2.6, zorder=3)
            words = axes.text(1.0, 1.02, "", transform=axes.transAxes, ha="right", va="bottom", fontsize=9)
            empty = (deque[float](maxlen=_MOST_POINTS) for _ in range(2))
            self._panels.append(_Panel(axes, used, limit, words, *empty))
        return [[panel.limit, panel.used, panel.words] for panel in self._panels]

    def update(self, moment: Moment) -> bool:
        """Add the sample at the right edge."""
        sample, limits = moment.sample, moment.limits
        if self._times and sample.time_s < self._times[-1]:
            self._forget()  # another group, whose time begins anew
        self._times.append(sample.time_s)
        used = (sample.cpu_percent, _mib(sample.memory_bytes), sample.pids)
        most = (None if limits.cpus is None else limits.cpus * 100, _mib(limits.memory_bytes), limits.pids)
        for panel, value, limit, unit in zip(self._panels, used, most, (" %", " MiB", ""), strict=True):
            panel.values.append(float("nan") if value is None else float(value))
            panel.limits.append(float("nan") if limit is None else float(limit))
            ages = [time_s - sample.time_s for time_s in self._times]
            panel.used.set_data(ages, panel.values)
            panel.limit.set_data(ages, panel.limits)
            now = "–" if value is None else f"{value:.0f}{unit}"
            panel.words.set_text(f"{now} of {limit:.0f}{unit}" if limit is not None else now)
        return False

    def _forget(self) -> None:
        for values in (self._times, *(kept for panel in self._panels for kept in (panel.values, panel.limits))):
            values.clear()


def draw_cpu(axes: Axes, samples: Sequence[Sample], *, limit_percent: float, title: str) -> None:
    """Draw the CPU time of ``samples`` over time, with the limit as a dashed line."""
    first_s = samples[0].time_s
    known = [(sample.time_s - first_s, sample.cpu_percent) for sample in samples if sample.cpu_percent is not None]
    theme.line(axes, [when for when, _ in known], [used for _, used in known], concept="container", label="used")
    with theme.context():
        axes.axhline(limit_percent, color=theme.INK, linestyle=(0, (4, 3)), linewidth=1.4, label="limit")
        axes.set_ylim(0, max(100.0, *(used for _, used in known)) * 1.1 if known else 110)
        axes.legend(loc="upper right")
        theme.label_axes(axes, title=title, x="time (s)", y="CPU time (% of one)")


def _mib(size_bytes: int | None) -> float | None:
    return None if size_bytes is None else size_bytes / MiB

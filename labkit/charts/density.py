"""How many fit, and what it costs: starts one after the other while all stay alive, memory of one, and work done inside.

Leaves out: limits of the machine (descriptors, process ids); memory of programs that work; the load that starts processes, whose
time on a busy machine tells more about the scheduler than about isolation.
See: `labkit.measure.density`, `labkit.measure.overhead`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from labkit.charts import theme
from labkit.measure.density import Density
from labkit.measure.overhead import Overhead, OverheadRow
from labkit.measure.stats import median, summarise

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["LOADS", "draw_memory", "draw_overhead", "draw_starts", "memory_parts", "verdict"]

#: The loads that are drawn.
LOADS = ("cpu", "syscalls", "memory")
_KIB = 1024


def draw_starts(ax: Axes, density: Density) -> None:
    """Draw how long each start took, against how many containers were alive already, with the median of each tenth."""
    look = theme.look("container")
    step = max(1, density.count // 10)
    tenths = [(at + step / 2, median(density.start_ms[at : at + step])) for at in range(0, density.count, step)]
    with theme.context():
        ax.plot(
            range(density.count), density.start_ms, marker=look.marker, linestyle="none", markersize=3, alpha=0.4, color=look.colour,
            label="one start",
        )  # fmt: skip
        ax.plot(*zip(*tenths, strict=True), color=theme.INK, linewidth=1.8, label="median of each tenth")
        ax.set_xlim(0, density.count)
        # A few late starts must not press all the others flat; those above stand at the upper edge of the picture.
        ax.set_ylim(0, 3 * max(value for _, value in tenths))
        ax.legend(loc="upper left")
        title = f"The last tenth: {tenths[-1][1] / tenths[0][1]:.1f} × the first"
        theme.label_axes(ax, title=title, x="containers alive already (count)", y="start-up (ms)")


def memory_parts(density: Density) -> dict[str, float]:
    """Return what one container takes, in KiB: its program and its pages, its share of the kernel's and the launcher's memory.

    A share that came out below nothing (somebody else gave memory back meanwhile) counts as none.
    """
    pages = density.cgroup_bytes or density.process_bytes
    return {
        "program and its pages": median(pages) / _KIB,
        "share of the kernel's memory": max(0, density.kernel_bytes) / density.count / _KIB,
        "share of the launcher's": max(0, density.launcher_bytes) / density.count / _KIB,
    }


def draw_memory(ax: Axes, density: Density) -> None:
    """Draw the parts of one container's memory as bars from zero."""
    parts = memory_parts(density)
    rows = [
        theme.Bar(name, value, "container" if name.startswith("program") else "host") for name, value in parts.items()
    ]
    theme.bars(ax, rows, title=f"One of {density.count} takes {sum(parts.values()):.0f} KiB", x="memory (KiB)")


def draw_overhead(ax: Axes, overhead: Overhead) -> None:
    """Draw each of `LOADS` twice, as a bare process and in a container, with the middle half of the runs."""
    rows = []
    for row in map(overhead.row, LOADS):
        for place, samples, concept in (
            ("outside", row.process_ms, "process"),
            ("in a container", row.container_ms, "container"),
        ):
            s = summarise(samples)
            rows.append(theme.Bar(f"{row.title}, {place}", s.median, concept, (s.lower_quartile, s.upper_quartile)))
    cpu, calls = (verdict(overhead.row(name)) for name in ("cpu", "syscalls"))
    theme.bars(ax, rows, title=f"Inside: computing {cpu}, system calls {calls}", x="time of one run (ms)")


def verdict(row: OverheadRow) -> str:
    """Return how a load fares inside: a ratio if the middle halves of the runs lie apart, else that none is shown."""
    outside, inside = summarise(row.process_ms), summarise(row.container_ms)
    apart = inside.lower_quartile > outside.upper_quartile or inside.upper_quartile < outside.lower_quartile
    return f"{row.ratio:.2f} × as long" if apart else "no different"

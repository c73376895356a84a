"""A machine's boot, from the start of QEMU to the moment it answers, and what a machine costs.

Leaves out: what happens inside each phase; the guest's console says more.
See: `labkit.vm.timeline`, `labkit.measure.machine_costs`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from labkit.charts import theme
from labkit.measure.machine_costs import MachineCosts
from labkit.measure.machine_density import MachineDensity, MachineSize
from labkit.measure.stats import summarise

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from labkit.vm.timeline import Phase

__all__ = ["boot_words", "draw_boot", "draw_fit", "draw_loads", "draw_memory", "draw_sizes", "draw_together"]


def boot_words(phases: Sequence[Phase]) -> str:
    """Return the phases of a boot as words, in seconds."""
    return ", ".join(f"{phase.name} {phase.elapsed_s:.2f} s" for phase in phases)


def draw_boot(ax: Axes, phases: Sequence[Phase]) -> None:
    """Draw each phase of a boot as a bar that begins where the one before ends."""
    look = theme.look("vm")
    with theme.context():
        for place, phase in enumerate(phases):
            ax.barh(place, phase.elapsed_s, left=phase.start_s, height=0.6, **look.bar_keywords)
            ax.text(phase.start_s + phase.elapsed_s, place, f" {phase.elapsed_s:.2f} s", va="center", fontsize=9)
        ax.set_yticks(range(len(phases)), [phase.name for phase in phases])
        ax.set_ylim(len(phases) - 0.4, -0.6)
        whole_s = phases[-1].start_s + phases[-1].elapsed_s
        ax.set_xlim(0, whole_s * 1.15)
        longest = max(phases, key=lambda phase: phase.elapsed_s)
        title = f"Ready after {whole_s:.2f} s; most of it: {longest.name}"
        theme.label_axes(ax, title=title, x="since QEMU was started (s)", y=None)


def draw_memory(ax: Axes, costs: MachineCosts) -> None:
    """Draw what an idle guest was given, and what it takes of the host's memory."""
    rows = [
        theme.Bar("given to the guest", costs.given_bytes / 2**20, "vm"),
        theme.Bar("taken by its QEMU", costs.used_bytes / 2**20, "host"),
    ]
    theme.bars(ax, rows, title=f"An idle guest takes {costs.used_bytes / 2**20:.0f} MiB", x="memory (MiB)")


def draw_loads(ax: Axes, costs: MachineCosts) -> None:
    """Draw each load on the host, in a container where there was one, and in the guest, with the middle half of the runs."""
    rows = []
    for load in costs.loads:
        for place, samples, concept in (
            ("on the host", load.process_ms, "process"),
            ("in a container", load.container_ms, "container"),
            ("in the guest", load.machine_ms, "vm"),
        ):
            if not samples:
                continue
            s = summarise(samples)
            rows.append(theme.Bar(f"{load.title}, {place}", s.median, concept, (s.lower_quartile, s.upper_quartile)))
    ratios = " and ".join(f"{load.title} {load.ratio:.1f} ×" for load in costs.loads)
    theme.bars(ax, rows, title=f"In the guest ({costs.accelerator.split(' (')[0]}): {ratios}", x="time of one run (ms)")


def draw_fit(ax: Axes, machines: MachineDensity, container_bytes: float) -> None:
    """Draw how many idle guests, and how many waiting containers of ``container_bytes``, 80 % of the same memory hold.

    The bars of numbers that nobody ran say so: arithmetic from what one of them takes.
    """
    share_bytes = machines.fit * machines.rows[-1].each_bytes
    how = "computed" if machines.is_extrapolated else "run"
    rows = [
        theme.Bar(f"micro VMs ({how} from {machines.rows[-1].count})", machines.fit, "vm"),
        theme.Bar("containers (computed from one)", share_bytes / container_bytes, "container"),
    ]
    times = rows[1].value / rows[0].value
    theme.bars(ax, rows, title=f"In the room of one machine: {times:,.0f} containers", x="how many fit (count)")


def draw_together(ax: Axes, machines: MachineDensity) -> None:
    """Draw what one of so many guests takes, against the number alive, and what it was given."""
    counts, each = zip(*((row.count, row.each_bytes / 2**20) for row in machines.rows), strict=True)
    look = theme.look("vm")
    theme.line(ax, counts, each, concept="vm", label="taken by one")
    with theme.context():
        given_mib = machines.given_bytes / 2**20
        ax.axhline(given_mib, color=theme.INK, linestyle=(0, (4, 3)), linewidth=1.4, label="given to it")
        ax.set_ylim(0, 1.3 * max(given_mib, *each))
        ax.set_xlim(0, max(counts) * 1.1)
        ax.legend(loc="lower right")
        ax.plot(counts, each, color=look.colour, marker=look.marker, linestyle="none")
        title = f"Each of {counts[-1]} takes {each[-1]:.0f} MiB: little is shared"
        theme.label_axes(ax, title=title, x="guests alive (count)", y="memory of one (MiB)")


def draw_sizes(ax: Axes, sizes: Sequence[MachineSize]) -> None:
    """Draw what lies on the disk before anything starts."""
    rows = [
        theme.Bar(size.title, size.size_bytes / 2**20, "process" if size.name == "process" else "vm") for size in sizes
    ]
    times = sizes[-1].size_bytes / sizes[0].size_bytes
    theme.bars(ax, rows, title=f"The largest is {times:,.0f} times the program", x="size on the disk (MiB)")

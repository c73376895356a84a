"""A machine's boot, from the start of QEMU to the moment it answers, and what a machine costs.

Leaves out: what happens inside each phase; the guest's console says more.
See: `labkit.vm.timeline`, `labkit.measure.machine_costs`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from labkit.charts import theme
from labkit.measure.machine_costs import MachineCosts
from labkit.measure.stats import summarise

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from labkit.vm.timeline import Phase

__all__ = ["boot_words", "draw_boot", "draw_loads", "draw_memory"]


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
    """Draw each load twice, as a process of the host and in the guest, with the middle half of the runs."""
    rows = []
    for load in costs.loads:
        for place, samples, concept in (
            ("on the host", load.process_ms, "process"),
            ("in the guest", load.machine_ms, "vm"),
        ):
            s = summarise(samples)
            rows.append(theme.Bar(f"{load.title}, {place}", s.median, concept, (s.lower_quartile, s.upper_quartile)))
    ratios = " and ".join(f"{load.title} {load.ratio:.1f} ×" for load in costs.loads)
    theme.bars(ax, rows, title=f"In the guest ({costs.accelerator.split(' (')[0]}): {ratios}", x="time of one run (ms)")

"""Boots as bars below each other: each bar is one machine, its parts are the phases from the start of QEMU to the first answer.

The phases differ in shade and hatch, and a legend names them in their order.

See: `labkit.measure.boots`.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from labkit.charts import theme
from labkit.measure.boots import Boots

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.figure import Figure

__all__ = ["BootsChart", "words_for"]

#: The phases, from the start of QEMU on: the share of the concept's colour, and a hatch.
_PHASES = {"QEMU": (0.35, "//"), "firmware": (0.55, ".."), "kernel": (1.0, ""), "init": (0.75, "xx")}
_ROWS = 6
_LEAST_S = 2.0


def words_for(boots: Boots) -> str:
    """Return the picture in words."""
    if not boots.runs:
        return "No machine has booted yet: press Start."
    last = boots.runs[-1]
    phases = ", ".join(f"{stage.name} {stage.elapsed_s:.2f} s" for stage in last.stages)
    fastest = min(run.ready_s for run in boots.runs)
    return (
        f"The last one ({last.name}) was ready after {last.ready_s:.2f} s: {phases}. "
        f"{len(boots.runs)} boots, the fastest in {fastest:.2f} s. {boots.source}".strip()
    )


class BootsChart:
    """The live picture: the last six boots, the newest at the bottom."""

    def setup(self, figure: Figure) -> Sequence[Artist | Iterable[Artist]]:
        """Make the axes and a bar for each phase of each row; bars, names and numbers move."""
        axes: Any = figure.add_subplot()
        look = theme.look("vm")
        axes.set(xlim=(0, _LEAST_S), ylim=(_ROWS - 0.4, -0.6), yticks=[])
        axes.grid(visible=False, axis="y")
        theme.label_axes(axes, title="Where the time of a boot goes", x="since QEMU was started (s)", y=None)
        self._axes, self._bars, self._words = axes, [], []
        for row in range(_ROWS):
            parts = []
            for name, (alpha, hatch) in _PHASES.items():
                label = name if row == 0 else None
                bar = axes.barh(row, 0, height=0.62, color=look.colour, alpha=alpha, hatch=hatch, edgecolor=theme.PAPER, linewidth=0, label=label)  # fmt: skip
                parts.append(bar[0])
            self._bars.append(parts)
            self._words.append(axes.text(0, row, "", va="center", fontsize=9))
        axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), handlelength=1.6)
        self._source = figure.text(0.01, 0.01, "", fontsize=7.5, fontweight="bold", color=theme.RECORDED, va="bottom")
        return [*self._bars, self._words, self._source]

    def update(self, boots: Boots) -> bool:
        """Show the last boots; True if the axis had to grow."""
        shown = boots.runs[-_ROWS:]
        self._source.set_text("\n".join(textwrap.wrap(boots.source, 110)))
        for row, (parts, words) in enumerate(zip(self._bars, self._words, strict=True)):
            run = shown[row] if row < len(shown) else None
            stages = {stage.name: stage for stage in run.stages} if run is not None else {}
            for name, bar in zip(_PHASES, parts, strict=True):
                stage = stages.get(name)
                bar.set_x(stage.start_s if stage else 0)
                bar.set_width(stage.elapsed_s if stage else 0)
            words.set_x(run.ready_s if run is not None else 0)
            words.set_text("" if run is None else f" {run.ready_s:.2f} s ({run.name})")
        wanted = 1.45 * max([_LEAST_S / 1.45, *(run.ready_s for run in shown)])
        if abs(wanted - self._axes.get_xlim()[1]) > 0.05 * wanted:
            self._axes.set_xlim(0, wanted)
            return True
        return False

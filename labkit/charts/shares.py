"""Two programs on one processor: what each gets over the last seconds, against what its weight promises.

The solid lines are what they got, the dashed ones of the same colour what the weights promise of what both together got (another
program on that processor takes its part first). Markers tell the two apart without colour.

See: `labkit.measure.shares`.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from labkit.charts import theme
from labkit.measure.shares import Shares

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["NAMES", "SharesChart", "draw", "words_for"]

NAMES = ("program A", "program B")
_CONCEPTS = ("process", "container")
_SHOWN_S = 20.0
_MOST_POINTS = 200
_DASHED = (0, (4, 3))


def draw(ax: Axes, shares: Shares) -> None:
    """Draw the time that both have got as two bars from zero."""
    rows = [
        theme.Bar(f"{name}, weight {weight}", used_s, "process")
        for name, weight, used_s in zip(NAMES, shares.weights, shares.used_s, strict=True)
    ]
    theme.bars(ax, rows, title=f"Weights decide: {shares.ratio:.1f} to 1", x="processor time (s)")


def words_for(shares: Shares) -> str:
    """Return the picture in words."""
    if not any(shares.percent):
        return "The programs do not run: press Start."
    parts = [
        f"{name} (weight {weight}) gets {percent:.0f} % of one processor, its weight promises {expected:.0f} %"
        for name, weight, percent, expected in zip(
            NAMES, shares.weights, shares.percent, shares.expected_percent, strict=True
        )
    ]
    return f"{'; '.join(parts)}. Set with {shares.by}."


class SharesChart:
    """The live picture."""

    def __init__(self) -> None:
        self._times: deque[float] = deque(maxlen=_MOST_POINTS)
        self._values: tuple[deque[float], ...] = tuple(deque(maxlen=_MOST_POINTS) for _ in range(4))

    def setup(self, figure: Figure) -> Sequence[Artist | Iterable[Artist]]:
        """Make the axes; four lines and two words move."""
        axes: Any = figure.add_subplot()
        axes.set(xlim=(-_SHOWN_S, 5.5), ylim=(0, 105), xticks=(-20, -10, 0), xticklabels=("20", "10", "now"))
        title = "Processor time of two programs; dashed: what the weights promise"
        theme.label_axes(axes, title=title, x="time (s before now)", y="CPU time (% of one)")
        self._lines, self._words = [], []
        for concept in _CONCEPTS:
            look = theme.look(concept)
            (got,) = axes.plot([], [], color=look.colour, linewidth=2.4, marker=look.marker, markevery=10, markersize=6)
            (promised,) = axes.plot([], [], color=look.colour, linewidth=1.3, linestyle=_DASHED)
            self._lines += [got, promised]
            self._words.append(axes.text(0.4, 0, "", color=look.colour, fontsize=9, va="center"))
        return [self._lines, self._words]

    def update(self, shares: Shares) -> bool:
        """Add what both get now at the right edge; programs that do not run add nothing."""
        if not any(shares.percent):
            return False
        now_s = time.monotonic()
        self._times.append(now_s)
        numbers = zip(shares.percent, shares.expected_percent, strict=True)
        for kept, value in zip(self._values, (value for pair in numbers for value in pair), strict=True):
            kept.append(value)
        ages = [at_s - now_s for at_s in self._times]
        for line, kept in zip(self._lines, self._values, strict=True):
            line.set_data(ages, kept)
        for name, words, percent in zip(NAMES, self._words, shares.percent, strict=True):
            words.set_text(f"{name[-1]}: {percent:.0f} %")
            words.set_y(min(100, max(3, percent)))
        return False

"""A process's size against its resident set: two bars on one scale, from zero, that move as memory is asked for and touched.

See: `labkit.measure.touching`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from labkit.charts import theme
from labkit.measure.touching import MOST_ASKED_BYTES, Touched
from labkit.units import MiB

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.figure import Figure

__all__ = ["TouchChart", "words_for"]

_ROWS = ("size: what it may address", "resident set: what lies in memory")


def words_for(touched: Touched) -> str:
    """Return the picture in words."""
    asked, written = touched.asked_bytes // MiB, touched.touched_bytes // MiB
    size, resident = touched.size_bytes / MiB, touched.resident_bytes / MiB
    return (
        f"Asked for {asked} MiB and touched {written} MiB: the size is {size:.0f} MiB, the resident set {resident:.0f} MiB, "
        f"after {touched.page_faults} page faults."
    )


class TouchChart:
    """The live picture."""

    def setup(self, figure: Figure) -> Sequence[Artist | Iterable[Artist]]:
        """Make two bars; they and the words behind them move."""
        axes: Any = figure.add_subplot()
        axes.set(xlim=(0, MOST_ASKED_BYTES / MiB * 1.3), ylim=(1.6, -0.6))
        axes.set_yticks(range(len(_ROWS)), _ROWS)
        axes.grid(visible=False, axis="y")
        theme.label_axes(axes, title="Asking makes the size grow, touching the resident set", x="memory (MiB)", y=None)
        looks = (theme.look("namespace"), theme.look("process"))
        self._bars = [axes.barh(place, 0, height=0.6, **look.bar_keywords)[0] for place, look in enumerate(looks)]
        self._words = [axes.text(0, place, "", va="center", fontsize=9) for place in range(len(_ROWS))]
        return [self._bars, self._words]

    def update(self, touched: Touched) -> bool:
        """Move the bars to what the kernel says."""
        numbers = (touched.size_bytes / MiB, touched.resident_bytes / MiB)
        for bar, words, value in zip(self._bars, self._words, numbers, strict=True):
            bar.set_width(value)
            words.set_x(value + 10)
            words.set_text(f"{value:.0f} MiB")
        return False

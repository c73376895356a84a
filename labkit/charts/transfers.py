"""Transfers as bars: what travelled, and behind it what was spared; one bar an image, one below the other.

What moved has the process's colour and hatch, what was there already has the host's, what was mounted from another repository the
container's; the words beside each bar say the same in numbers.

Leaves out: time; the questions and answers around the blobs, which are a few hundred bytes each.
See: `labkit.measure.transfers`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from labkit.charts import theme
from labkit.measure.transfers import Journey, Ledger
from labkit.units import MiB, format_bytes

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["PARTS", "TransferChart", "draw", "finding", "words_for"]

#: Parts of a bar from left to right: which bytes, the words for them, and the concept whose look they have.
PARTS = (("moved", "process"), ("shared", "host"), ("mounted", "container"))
_WIDEST = "000.00 MiB moved, 000.00 MiB spared"


def words_for(journey: Journey) -> str:
    """Return the bar in numbers."""
    return f"{format_bytes(journey.moved_bytes)} moved, {format_bytes(journey.spared_bytes)} spared"


def finding(ledger: Ledger) -> str:
    """Return what the picture shows, as a title."""
    if not ledger.journeys:
        return "Nothing has travelled yet"
    total = ledger.moved_bytes + ledger.spared_bytes
    return f"{format_bytes(ledger.moved_bytes)} travelled for {format_bytes(total)} of images"


def draw(ax: Axes, ledger: Ledger) -> None:
    """Draw every journey, the first on top."""
    with theme.context():
        rows = [f"{journey.way} {journey.name}" for journey in ledger.journeys]
        most_bytes = max((journey.total_bytes for journey in ledger.journeys), default=MiB)
        _Bars(ax, rows, most_bytes=most_bytes).update(ledger.journeys)
        theme.label_axes(ax, title=finding(ledger), x="bytes of the image's blobs (MiB)", y=None)


class TransferChart:
    """The live picture for `labkit.widgets.LiveView`: room for ``rows`` journeys, the newest at the bottom."""

    def __init__(self, *, rows: int, most_bytes: int) -> None:
        self._rows, self._most_bytes = rows, most_bytes

    def setup(self, figure: Figure) -> Sequence[Artist | Iterable[Artist]]:
        """Make empty bars."""
        axes: Any = figure.add_subplot()
        self._bars = _Bars(axes, [""] * self._rows, most_bytes=self._most_bytes)
        theme.label_axes(
            axes, title="What a pull moves, and what it finds here", x="bytes of the image's blobs (MiB)", y=None
        )
        return self._bars.artists

    def update(self, sample: Ledger) -> bool:
        """Show the last journeys."""
        self._bars.update(sample.journeys[-self._rows :])
        return False


class _Bars:
    """Bars made of parts, with a name on the left and words on the right, on axes that keep their range."""

    def __init__(self, ax: Any, names: Sequence[str], *, most_bytes: int) -> None:
        from matplotlib.patches import Patch

        ax.set_xlim(0, 1.02 * most_bytes / MiB)
        ax.set_ylim(max(1, len(names)) - 0.4, -0.6)
        ax.set_yticks([])
        ax.grid(visible=False, axis="y")
        places = ax.get_yaxis_transform()
        # Hold the room of the words, which are not there yet when the layout is made.
        ax.text(1.01, 0, _WIDEST, transform=places, color=theme.PAPER, fontsize=9)
        ax.text(-0.01, 0, "pull account/a-long-name:1", transform=places, color=theme.PAPER, fontsize=9, ha="right")
        self._parts, self._names, self._words = [], [], []
        for place, name in enumerate(names):
            bars = [ax.barh(place, 0, height=0.62, **theme.look(concept).bar_keywords)[0] for _, concept in PARTS]
            self._parts.append(bars)
            self._names.append(ax.text(-0.01, place, name, transform=places, fontsize=9, ha="right", va="center"))
            self._words.append(ax.text(1.01, place, "", transform=places, fontsize=9, va="center"))
        looks = [theme.look(concept) for _, concept in PARTS]
        patches = [
            Patch(label=what, facecolor=look.colour, hatch=look.hatch, edgecolor=theme.PAPER, linewidth=0)
            for (what, _), look in zip(PARTS, looks, strict=True)
        ]
        ax.legend(handles=patches, loc="upper center", bbox_to_anchor=(0.5, -0.16 - 0.35 / max(1, len(names))), ncols=3)
        self.artists = [[bar for bars in self._parts for bar in bars], self._names, self._words]

    def update(self, journeys: Sequence[Journey]) -> None:
        """Set every bar; those without a journey are empty."""
        for place, (bars, name, words) in enumerate(zip(self._parts, self._names, self._words, strict=True)):
            journey = journeys[place] if place < len(journeys) else None
            left = 0.0
            for bar, (what, _) in zip(bars, PARTS, strict=True):
                width = getattr(journey, f"{what}_bytes") / MiB if journey is not None else 0.0
                bar.set_x(left)
                bar.set_width(width)
                left += width
            name.set_text(f"{journey.way} {journey.name}" if journey is not None else "")
            words.set_text(words_for(journey) if journey is not None else "")

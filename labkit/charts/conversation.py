"""A conversation as a sequence diagram: three lifelines, an arrow for each thing said, the newest at the bottom.

Arrows point, and words stand on them; the colour only repeats who speaks.

Leaves out: more messages than rows (the last ones are shown); the time between them, which the words beside the picture give.
See: `labkit.engine.conversation`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from labkit.charts import theme
from labkit.engine.conversation import Message

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["ROWS", "ConversationChart", "describe", "draw"]

#: How many messages the picture has room for.
ROWS = 14
_PLACES = {"client": 0.0, "daemon": 1.0, "runtime": 2.0}
_HEADS = ("client", "daemon", "runtime (processes)")
_CONCEPTS = {"client": "process", "daemon": "host", "runtime": "container"}
_LONGEST = 46


def draw(ax: Axes, messages: Sequence[Message]) -> None:
    """Draw the last messages."""
    with theme.context():
        rows = _Rows(ax)
        rows.update(messages)


def describe(messages: Sequence[Message]) -> str:
    """Return the conversation in words: how many messages, and the last of them."""
    if not messages:
        return "Nobody has said anything yet."
    last = messages[-1]
    took_ms = (last.at_s - messages[0].at_s) * 1e3
    return f"{len(messages)} messages in {took_ms:.0f} ms. The last one: {last.source} to {last.target}, {last.words}."


class ConversationChart:
    """The picture for `labkit.widgets.LiveView`; a sample is a sequence of messages."""

    def setup(self, figure: Figure) -> Sequence[Artist | Iterable[Artist]]:
        """Make the lifelines, and rows without messages."""
        self._rows = _Rows(figure.add_subplot())
        return self._rows.artists

    def update(self, sample: Sequence[Message]) -> bool:
        """Show the last messages."""
        self._rows.update(sample)
        return False


class _Rows:
    def __init__(self, axes: Any) -> None:
        axes.set_axis_off()
        axes.set_xlim(-0.12, 2.12)
        axes.set_ylim(ROWS + 0.3, -1.1)
        for place, head in enumerate(_HEADS):
            axes.plot([place, place], [-0.4, ROWS + 0.2], color=theme.FAINT, linewidth=2, zorder=0)
            axes.text(place, -0.6, head, ha=("left", "center", "right")[place], weight="bold")
        self._lines = [axes.plot([], [], linewidth=1.5)[0] for _ in range(ROWS)]
        self._tips = [axes.plot([], [], linestyle="", markersize=7)[0] for _ in range(ROWS)]
        self._words = [axes.text(0, 0, "", ha="center", va="bottom", fontsize=8) for _ in range(ROWS)]
        self.artists: list[list[Any]] = [self._lines, self._tips, self._words]

    def update(self, messages: Sequence[Message]) -> None:
        shown = list(messages)[-ROWS:]
        for row in range(ROWS):
            self._set(row, shown[row] if row < len(shown) else None)

    def _set(self, row: int, message: Message | None) -> None:
        line, tip, text = self._lines[row], self._tips[row], self._words[row]
        if message is None:
            line.set_data([], [])
            tip.set_data([], [])
            text.set_text("")
            return
        start, end = _PLACES[message.source], _PLACES[message.target]
        right = end > start
        colour = theme.look(_CONCEPTS[message.source]).colour
        line.set_data([start, end], [row + 0.7, row + 0.7])
        line.set_color(colour)
        tip.set_data([end - 0.015 if right else end + 0.015], [row + 0.7])
        tip.set_marker(">" if right else "<")
        tip.set_color(colour)
        words = message.words if len(message.words) <= _LONGEST else message.words[: _LONGEST - 1] + "…"
        text.set_text(words)
        text.set_position(((start + end) / 2, row + 0.62))

"""Desired against actual state: a row a replica, on the left what the file wants, on the right what there is.

A box says in words what it stands for, so colour is never the only sign; a dashed one is what is missing or has to go.

Leaves out: more replicas than rows; the sentence beside the picture counts them all.
See: `labkit.compose.states`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from labkit.charts import theme
from labkit.compose.states import Replica, States

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.figure import Figure

__all__ = ["ROWS", "DesiredChart", "words_for"]

#: How many replicas the picture has room for.
ROWS = 6
_WIDTH = 0.94


def words_for(replica: Replica) -> tuple[str, str]:
    """Return what is wanted and what there is, in words."""
    wanted = "wanted" if replica.wanted else "not wanted"
    if not replica.state:
        return wanted, "nothing"
    return wanted, replica.state if replica.current or not replica.wanted else f"{replica.state}, of an older kind"


class DesiredChart:
    """The picture for `labkit.widgets.LiveView`; a sample is a `States`."""

    def setup(self, figure: Figure) -> Sequence[Artist | Iterable[Artist]]:
        """Make an empty grid: a name and two boxes a row."""
        from matplotlib.patches import Rectangle

        axes: Any = figure.add_subplot()
        axes.set_axis_off()
        axes.set_xlim(-0.9, 2)
        axes.set_ylim(ROWS, -0.7)
        for column, head in enumerate(("the file says", "there is")):
            axes.text(column + _WIDTH / 2, -0.25, head, ha="center", weight="bold")
        self._names = [axes.text(-0.06, row + 0.5, "", ha="right", va="center") for row in range(ROWS)]
        self._boxes, self._words = [], []
        for row in range(ROWS):
            for column in range(2):
                self._boxes.append(axes.add_patch(Rectangle((column, row + 0.1), _WIDTH, 0.8, linewidth=1.4)))
                self._words.append(axes.text(column + _WIDTH / 2, row + 0.5, "", ha="center", va="center", fontsize=9))
        return [self._boxes, self._words, self._names]

    def update(self, sample: States) -> bool:
        """Write what is wanted and what there is."""
        for row in range(ROWS):
            replica = sample.replicas[row] if row < len(sample.replicas) else None
            self._names[row].set_text("" if replica is None else replica.name)
            for column in range(2):
                self._fill(self._boxes[2 * row + column], self._words[2 * row + column], replica, column)
        return False

    def _fill(self, box: Any, text: Any, replica: Replica | None, column: int) -> None:
        box.set_visible(replica is not None)
        text.set_text("" if replica is None else words_for(replica)[column])
        if replica is None:
            return
        solid = replica.wanted if column == 0 else replica.settled
        colour = theme.look("host" if column == 0 else "container").colour if solid else theme.INK
        box.set_edgecolor(colour)
        box.set_facecolor(theme.PAPER)
        box.set_linestyle("-" if solid else "--")

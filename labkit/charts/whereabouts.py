"""Where files live, as a grid: a row for each kind of place, with what can be read there in each of several containers.

See: `labkit.engine.whereabouts`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from labkit.charts import theme
from labkit.engine.whereabouts import KINDS, Whereabouts

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.figure import Figure

__all__ = ["WhereaboutsChart", "describe"]

_CONCEPTS = {"layer": "container", "volume": "vm", "bind": "host", "tmpfs": "process"}
_LONGEST = 22


def describe(sample: Sequence[Whereabouts]) -> str:
    """Return the picture in words."""
    said = []
    for seen in sample:
        there = [f"{place.kind} {place.content!r}" for place in seen.places if place.content]
        said.append(f"{seen.name} ({seen.state}): {', '.join(there) if there else 'nothing to read'}")
    return "; ".join(said) + "."


class WhereaboutsChart:
    """The picture for `labkit.widgets.LiveView`; a sample is a `Whereabouts` for each of ``names``."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)

    def setup(self, figure: Figure) -> Sequence[Artist | Iterable[Artist]]:
        """Make an empty grid."""
        from matplotlib.patches import Rectangle

        axes: Any = figure.add_subplot()
        axes.set_axis_off()
        axes.set_xlim(-1.35, len(self.names))
        axes.set_ylim(len(KINDS), -0.8)
        self._heads = [axes.text(n + 0.48, -0.2, "", ha="center", weight="bold") for n in range(len(self.names))]
        self._labels = [
            axes.text(-0.05, row + 0.5, "", ha="right", va="center", fontsize=9) for row in range(len(KINDS))
        ]
        self._boxes, self._words = [], []
        for row in range(len(KINDS)):
            for column in range(len(self.names)):
                self._boxes.append(axes.add_patch(Rectangle((column + 0.02, row + 0.1), 0.94, 0.8, linewidth=1.4)))
                self._words.append(axes.text(column + 0.49, row + 0.5, "", ha="center", va="center", fontsize=9))
        return [self._boxes, self._words, self._heads, self._labels]

    def update(self, sample: Sequence[Whereabouts]) -> bool:
        """Write what can be read where."""
        for head, seen in zip(self._heads, sample, strict=False):
            head.set_text(f"{seen.name}: {seen.state}")
        for row, kind in enumerate(KINDS):
            for column, seen in enumerate(sample[: len(self.names)]):
                place = next((one for one in seen.places if one.kind == kind), None)
                if place is not None:
                    self._labels[row].set_text(f"{place.path}\n{place.lives_in}")
                self._fill(row * len(self.names) + column, kind, "" if place is None else place.content)
        return False

    def _fill(self, index: int, kind: str, content: str) -> None:
        box, text = self._boxes[index], self._words[index]
        colour = theme.look(_CONCEPTS[kind]).colour
        box.set_edgecolor(colour)
        box.set_facecolor(theme.PAPER)
        box.set_linestyle("-" if content else "--")
        shown = content if len(content) <= _LONGEST else content[: _LONGEST - 1] + "…"
        text.set_text(shown or "nothing")

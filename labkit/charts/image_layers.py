"""Images as stacks of layers: a column an image, the base at the bottom, one wide box for a layer that several images share.

Boxes have one height, because a layer of some kilobytes must be seen beside one of a hundred megabytes; the size is written in each.
What only one image has is orange; what is shared is grey, and as wide as the images that share it.

See: `labkit.measure.images`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from labkit import units
from labkit.charts import theme
from labkit.measure.images import ImageLayer, Images

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["Box", "ImagesChart", "boxes_of", "draw", "finding"]

_LETTERS_A_COLUMN = 17
_PALE = 0.28


@dataclass(frozen=True, slots=True)
class Box:
    """One layer in the picture: its row from the bottom, its first column, and over how many columns it goes."""

    row: int
    column: int
    width: int
    layer: ImageLayer
    shared: bool


def boxes_of(images: Images) -> list[Box]:
    """Return the boxes; neighbours that have the same layers up to a row share one box there."""
    return list(_boxes(images))


def _boxes(images: Images) -> Iterator[Box]:
    stacks = images.stacks
    for row in range(max(len(stack.layers) for stack in stacks)):
        column = 0
        while column < len(stacks):
            first = stacks[column]
            if len(first.layers) <= row:
                column += 1
                continue
            width = 1
            while column + width < len(stacks) and first.begins_like(stacks[column + width], row + 1):
                width += 1
            layer = first.layers[row]
            yield Box(row, column, width, layer, shared=images.users(layer.digest) > 1)
            column += width


def finding(images: Images) -> str:
    """Return what the picture shows, as a title."""
    stored, added = units.format_bytes(images.stored_bytes), units.format_bytes(images.sum_bytes)
    if images.stored_bytes == images.sum_bytes:
        return f"{len(images.stacks)} images share nothing and take {stored}"
    return f"{len(images.stacks)} images of {added} in all take {stored}: shared layers are stored once"


def draw(ax: Axes, images: Images) -> None:
    """Draw the stacks of ``images``."""
    from matplotlib.patches import Rectangle

    with theme.context():
        boxes = boxes_of(images)
        rows = max(box.row for box in boxes) + 1
        ax.clear()
        ax.set_axis_off()
        ax.set_title(finding(images))
        ax.set_xlim(0, len(images.stacks))
        ax.set_ylim(-0.75, rows + 0.05)
        for column, stack in enumerate(images.stacks):
            words = f"{stack.name}\n{units.format_bytes(stack.size_bytes)}"
            ax.text(column + 0.5, -0.4, words, ha="center", va="center", fontsize=9, weight="bold")
        for box in boxes:
            colour = theme.look("host" if box.shared else "container").colour
            ax.add_patch(
                Rectangle((box.column + 0.03, box.row + 0.06), box.width - 0.06, 0.88, edgecolor=colour,
                          facecolor=_pale(colour), linewidth=1.2, linestyle="-" if box.shared else "--")
            )  # fmt: skip
            ax.text(
                box.column + box.width / 2, box.row + 0.5, _words(box), ha="center", va="center", fontsize=8,
            )  # fmt: skip


class ImagesChart:
    """The picture for `labkit.widgets.LiveView`; a sample is `Images`."""

    def setup(self, figure: Figure) -> Sequence[Artist | Iterable[Artist]]:
        """Make the axes; everything in them is drawn anew when it changes."""
        self._axes: Any = figure.add_subplot()
        self._axes.set_axis_off()
        self._shown: Images | None = None
        return []

    def update(self, sample: Images) -> bool:
        """Draw the stacks if they have changed; say that the whole picture has to be redrawn."""
        if sample == self._shown:
            return False
        draw(self._axes, sample)
        self._shown = sample
        return True


def _words(box: Box) -> str:
    room = _LETTERS_A_COLUMN * box.width
    made_by = " ".join(box.layer.made_by.split()).replace("RUN /bin/sh -c ", "RUN ")
    shown = made_by if len(made_by) <= room else f"{made_by[: room - 1]}…"
    return f"{shown}\n{box.layer.short}  {units.format_bytes(box.layer.size_bytes)}"


def _pale(colour: str) -> str:
    """Return ``colour`` mixed with paper, so that dark text stands out on it."""
    parts = (int(colour[n : n + 2], 16) for n in (1, 3, 5))
    return "#" + "".join(f"{round(255 - _PALE * (255 - part)):02x}" for part in parts)

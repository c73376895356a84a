"""Layers drawn one above the other, a column a file: what each folder holds, and on top what the container sees.

A cell says in words what lies there, so colour is never the only sign: the writable layer has the container's colour, layers that
are only read have the host's, and what a container sees has the colour of the layer that it comes from. An empty cell says nothing
about its file, so the look-up goes on in the row below.

Leaves out: more files than columns (`FILES`); the sentence beside the picture names the rest.
See: `labkit.measure.layers`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from labkit.charts import theme
from labkit.measure.layers import Entry, Layer, Stack

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.figure import Figure

__all__ = ["FILES", "LayerChart", "files_of", "rows_of"]

#: How many files the picture has room for.
FILES = 8
_LONGEST = 13
_PALE = 0.28
#: Room between one container's rows and the next, in rows.
_GAP = 0.3


@dataclass(frozen=True, slots=True)
class Row:
    """One row: its label, and for each file what to write and in which concept's colour ("" for an empty cell)."""

    label: str
    cells: tuple[tuple[str, str], ...]


def files_of(stacks: Sequence[Stack]) -> list[str]:
    """Return the files that have a column: those asked for, then what appeared; folders that only hold others are left out."""
    paths = list(dict.fromkeys(path for stack in stacks for path in stack.paths))
    kept = [path for path in paths if _tells_something(path, paths, stacks)]
    return kept[:FILES]


def rows_of(stacks: Sequence[Stack], files: Sequence[str]) -> list[Row]:
    """Return the rows from top to bottom: each container's view and writable layer, then the layers that all share."""
    rows = []
    for stack in stacks:
        rows.append(Row(f"{stack.name} sees", tuple(_seen(stack, path) for path in files)))
        rows.append(_layer_row(stack.upper, files, label=f"{stack.name}: upper", concept="container"))
    shared = stacks[0].layers[1:] if stacks else ()
    return rows + [_layer_row(layer, files, label=f"{layer.name} (lower)", concept="host") for layer in shared]


class LayerChart:
    """The picture for `labkit.widgets.LiveView`; a sample is a sequence of stacks over the same lower layers."""

    def __init__(self, *, containers: int, lowers: int, title: str) -> None:
        self.title = title
        # A gap above each container's pair of rows but the first, and above the layers that all share.
        self._places = [n + _GAP * min(n // 2, containers) for n in range(2 * containers + lowers)]
        self._bold = [n % 2 == 0 and n < 2 * containers for n in range(2 * containers + lowers)]

    @property
    def height_in(self) -> float:
        """How high the figure should be."""
        return 0.85 + 0.42 * (self._places[-1] + 1)

    def setup(self, figure: Figure) -> Sequence[Artist | Iterable[Artist]]:
        """Make an empty grid of cells, with a place for each heading and label."""
        from matplotlib.patches import Rectangle

        axes: Any = figure.add_subplot()
        axes.set_axis_off()
        axes.set_title(self.title)
        axes.set_xlim(-1.25, FILES)
        axes.set_ylim(self._places[-1] + 1, -0.6)
        self._heads = [axes.text(n + 0.5, -0.12, "", ha="center", fontsize=9) for n in range(FILES)]
        self._labels, self._boxes, self._words = [], [], []
        for y, bold in zip(self._places, self._bold, strict=True):
            weight = "bold" if bold else "normal"
            self._labels.append(axes.text(-0.06, y + 0.5, "", ha="right", va="center", weight=weight))
            for column in range(FILES):
                self._boxes.append(axes.add_patch(Rectangle((column + 0.03, y + 0.08), 0.94, 0.84, linewidth=1.2)))
                self._words.append(axes.text(column + 0.5, y + 0.5, "", ha="center", va="center", fontsize=8.5))
        return [self._boxes, self._words, self._heads, self._labels]

    def update(self, sample: Sequence[Stack]) -> bool:
        """Write what lies where."""
        files = files_of(sample)
        for head, path in zip(self._heads, [*files, *[""] * FILES], strict=False):
            head.set_text(_short(path))
        rows = rows_of(sample, files)
        for label, row in zip(self._labels, rows, strict=True):
            label.set_text(row.label)
        unused = [("", "unused")] * (FILES - len(files))
        cells = [cell for row in rows for cell in [*row.cells, *unused]]
        for box, words, (text, concept) in zip(self._boxes, self._words, cells, strict=True):
            words.set_text(text)
            box.set_visible(concept != "unused")
            colour = theme.look(concept).colour if concept in theme.LOOKS else theme.FAINT
            box.set_edgecolor(colour)
            box.set_facecolor(_pale(colour) if concept else theme.PAPER)
            box.set_linestyle("--" if text == "whiteout" else "-")
        return False


def _tells_something(path: str, paths: Sequence[str], stacks: Sequence[Stack]) -> bool:
    """A folder that merely holds a file of another column tells nothing, unless it hides what lies below it."""
    marked = any(_kind_in(stack.upper, path) in ("whiteout", "opaque folder") for stack in stacks)
    return marked or not any(other.startswith(f"{path}/") for other in paths)


def _kind_in(layer: Layer, path: str) -> str:
    entry = layer.entry(path)
    return "" if entry is None else entry.kind


def _seen(stack: Stack, path: str) -> tuple[str, str]:
    entry = stack.sees(path)
    if entry is None:
        return "nothing", ""
    source = stack.source(path)
    return _words(entry), "container" if source == stack.upper.name else "host"


def _layer_row(layer: Layer, files: Sequence[str], *, label: str, concept: str) -> Row:
    entries = [layer.entry(path) for path in files]
    return Row(label, tuple((_words(entry), concept) if entry is not None else ("", "") for entry in entries))


def _words(entry: Entry) -> str:
    return (
        _short(entry.text)
        if entry.kind == "file" and entry.text
        else "empty file"
        if entry.kind == "file"
        else entry.kind
    )


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def _pale(colour: str) -> str:
    """Return ``colour`` mixed with paper, so that dark text stands out on it."""
    parts = (int(colour[n : n + 2], 16) for n in (1, 3, 5))
    return "#" + "".join(f"{round(255 - _PALE * (255 - part)):02x}" for part in parts)

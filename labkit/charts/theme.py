"""How the course's figures look: one colour, hatch, marker and line a concept, the same in every lesson.

The colours keep a distance from each other under the three common kinds of colour blindness (checked by a test that
simulates them) and a contrast of 3 to 1 with the paper; hatches, markers and line styles say the same thing again, so a figure
reads in black and white. Figures bring their own paper, because a notebook's background may be light or dark.

matplotlib keeps its defaults in one global table. `context` changes it for the length of a block only, behind a lock,
because a live view's thread may draw while a cell does.

Leaves out: a dark variant of the paper; themes to choose from.
See: WCAG 2.2, 1.4.1 (use of colour) and 1.4.11 (non-text contrast).
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from labkit.errors import InvalidSpec

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

__all__ = [
    "DRAWN_DPI",
    "INK",
    "LOOKS",
    "PAPER",
    "RECORDED",
    "SHOWN_DPI",
    "Bar",
    "Look",
    "bars",
    "context",
    "figure",
    "label_axes",
    "line",
    "look",
]

PAPER = "#ffffff"
INK = "#222222"
FAINT = "#d9d9d9"
#: The colour of the words that say that a figure is a recording.
RECORDED = "#8A4B00"
#: Drawn at 144 pixels an inch and shown at 96, so that text is sharp on screens of both kinds.
DRAWN_DPI = 144
SHOWN_DPI = 96


@dataclass(frozen=True, slots=True)
class Look:
    """How one concept is drawn."""

    concept: str
    label: str
    colour: str
    hatch: str
    marker: str
    line_style: str | tuple[int, tuple[int, ...]]

    @property
    def line_keywords(self) -> dict[str, Any]:
        """What ``ax.plot`` needs to draw a line of this concept."""
        return {"color": self.colour, "marker": self.marker, "linestyle": self.line_style, "label": self.label}

    @property
    def bar_keywords(self) -> dict[str, Any]:
        """What ``ax.bar`` and ``ax.barh`` need; the white edge draws the hatch."""
        return {"color": self.colour, "hatch": self.hatch, "edgecolor": PAPER, "linewidth": 0.0}


LOOKS: Mapping[str, Look] = MappingProxyType(
    {
        look.concept: look
        for look in (
            Look("host", "host", "#444444", "", "s", "-"),
            Look("process", "process", "#0066CC", "//", "o", "-"),
            Look("namespace", "namespace", "#2E9BD6", "..", "^", "--"),
            Look("container", "container", "#D55E00", "\\\\", "D", "-."),
            Look("vm", "virtual machine", "#B03A8C", "xx", "X", ":"),
            Look("peer", "other tool", "#8C8C8C", "--", "v", (0, (5, 1, 1, 1, 1, 1))),
        )
    }
)

_RC: Any = {
    "axes.axisbelow": True,
    "axes.edgecolor": INK,
    "axes.facecolor": PAPER,
    "axes.grid": True,
    "axes.labelcolor": INK,
    "axes.labelsize": 10,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "figure.facecolor": PAPER,
    "figure.dpi": DRAWN_DPI,
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "grid.color": FAINT,
    "hatch.linewidth": 0.8,
    "legend.fontsize": 9,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "lines.markersize": 5,
    "savefig.dpi": "figure",
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
}
_UNIT = re.compile(r"\S.* \([^()]+\)\Z")
_rc_lock = threading.RLock()


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar: a name, a value, the concept that colours it, and (low, high) around the value where it varies."""

    name: str
    value: float
    concept: str
    spread: tuple[float, float] | None = None


def look(concept: str) -> Look:
    """Return how ``concept`` is drawn. Raises: InvalidSpec for a concept the course does not colour."""
    try:
        return LOOKS[concept]
    except KeyError:
        raise InvalidSpec(f"{concept!r} has no colour in this course: use one of {', '.join(LOOKS)}.") from None


@contextmanager
def context() -> Iterator[None]:
    """Let matplotlib's defaults be the course's inside the block; one thread at a time, restored at the end."""
    import matplotlib

    with _rc_lock, matplotlib.rc_context(_RC):
        yield


def figure(width_in: float = 6.4, height_in: float = 3.2, *, columns: int = 1) -> tuple[Figure, list[Axes]]:
    """Return an empty figure in the course's look and its axes from left to right; `labkit.charts.show` shows it.

    The figure belongs to no pyplot window: it is gone when the last name for it is.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with context():
        made = Figure(figsize=(width_in, height_in), layout="constrained")
        FigureCanvasAgg(made)
        return made, [made.add_subplot(1, columns, column + 1) for column in range(columns)]


def label_axes(ax: Axes, *, title: str, x: str | None, y: str | None) -> None:
    """Give ``ax`` a title that states the finding and axes with units, as in ``"start-up time (ms)"``.

    ``None`` is for an axis whose ticks are names. Raises: InvalidSpec if the title or a unit is missing.
    """
    if not title.strip():
        raise InvalidSpec(
            "a figure needs a title that states what it shows, as in 'A container starts like a process'."
        )
    for label in (x, y):
        if label is not None and not _UNIT.fullmatch(label):
            raise InvalidSpec(f"the axis label {label!r} lacks its unit: write for example 'memory (MiB)'.")
    ax.set_title(title)
    ax.set_xlabel(x or "")
    ax.set_ylabel(y or "")


def bars(ax: Axes, rows: Sequence[Bar], *, title: str, x: str) -> None:
    """Draw ``rows`` as horizontal bars that start at zero, first row on top, each with its value written beside it.

    Raises: InvalidSpec for no rows, a negative value, an unknown concept, or a label without unit.
    """
    if not rows or min(row.value for row in rows) < 0:
        raise InvalidSpec("bars need at least one row and no negative values: a bar's length is its value from zero.")
    with context():
        for place, row in enumerate(rows):
            ax.barh(place, row.value, **look(row.concept).bar_keywords)
            if row.spread is not None:
                ax.plot(row.spread, (place, place), color=INK, linewidth=1.2, marker="|", markersize=7)
            end = max(row.value, *(row.spread or (0.0,)))
            ax.annotate(f"{row.value:.3g}", (end, place), xytext=(5, 0), textcoords="offset points", va="center")
        ax.set_yticks(range(len(rows)), [row.name for row in rows])
        ax.grid(visible=False, axis="y")
        ax.invert_yaxis()
        ax.margins(x=0.12)
        ax.set_xlim(left=0)
        label_axes(ax, title=title, x=x, y=None)


def line(ax: Axes, x: Sequence[float], y: Sequence[float], *, concept: str, label: str | None = None) -> Line2D:
    """Draw one line in the look of ``concept`` with a few markers on it, and return it (a live view moves it later)."""
    keywords = look(concept).line_keywords | ({"label": label} if label is not None else {})
    with context():
        (drawn,) = ax.plot(x, y, markevery=max(1, len(x) // 8), **keywords)
    return drawn

"""The start-up race: every single start is a dot, so the whole distribution is on show and not only its middle.

The scale is logarithmic, because the slowest contender takes some hundred times as long as the fastest. A tall mark is the median, and the
words beside the row say it, with the middle half and the number of samples.

Leaves out: averages; starts that failed.
See: `labkit.measure.startup`, `labkit.measure.stats`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from labkit.charts import theme
from labkit.measure.startup import Race, Row

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["RaceChart", "concept_of", "draw", "finding", "title_of", "words_for"]

_LABEL = "from the request to the end of the program (ms, logarithmic scale)"
_FEWEST_MS, _MOST_MS = 0.3, 20_000.0
_SLOWEST = {"vm-distribution", "virtme-ng"}  # with these the scale is longer: under emulation they may take minutes
_TITLES = {
    "process": "bare process",
    "namespaces": "all namespaces",
    "container": "labkit's container",
    "microvm": "micro VM, booted",
    "vm-restore": "micro VM, from a snapshot",
    "vm-hostroot": "VM on the host's files",
    "vm-distribution": "VM with a distribution",
}
_CONCEPTS = {
    "process": "process",
    "namespace": "namespace",
    "namespaces": "namespace",
    "container": "container",
    "microvm": "vm",
    "vm-restore": "vm",
    "vm-hostroot": "vm",
    "vm-distribution": "vm",
}
_WIDEST = "0000.0 (0000.0 to 0000.0), n = 000"


def concept_of(name: str) -> str:
    """Return the concept whose colour the contender ``name`` has."""
    kind = name.partition(":")[0]
    return _CONCEPTS.get(kind, "peer")


def title_of(name: str) -> str:
    """Return the contender's name as a reader sees it."""
    kind, _, one = name.partition(":")
    return f"{one} namespace" if one else _TITLES.get(kind, kind)


def words_for(row: Row) -> str:
    """Return the row in numbers: median, middle half, number of samples; nothing before the first sample."""
    if not row.samples_ms:
        return "cannot run here" if row.skipped else ""
    s = row.summary
    return f"{s.median:.1f} ({s.lower_quartile:.1f} to {s.upper_quartile:.1f}), n = {s.n}"


def finding(race: Race) -> str:
    """Return what the race shows, as a title."""
    ran = {row.name for row in race.ran}
    if not {"process", "container"} <= ran:
        return "Every dot is one start"
    container_ms = race.row("container").summary.median
    if "runc" in ran:
        return f"A container starts in {container_ms:.1f} ms; runc takes {race.ratio('runc', 'container'):.0f} times as long"
    return f"A container starts in {container_ms:.1f} ms, {race.ratio('container', 'process'):.1f} times as long as a process"


def draw(ax: Axes, race: Race) -> None:
    """Draw all rows that ran, the first on top. Raises: InvalidSpec if nobody ran."""
    with theme.context():
        rows = _Rows(ax, [row.name for row in race.ran])
        rows.update({row.name: row for row in race.ran})
        theme.label_axes(ax, title=finding(race), x=_LABEL, y=None)


class RaceChart:
    """The live race for `labkit.widgets.LiveView`: a row for each of ``names``, filled as their samples come."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)

    def setup(self, figure: Figure) -> Sequence[Artist | Iterable[Artist]]:
        """Make the rows, without samples."""
        axes: Any = figure.add_subplot()
        self._rows = _Rows(axes, self.names)
        theme.label_axes(axes, title="Every dot is one start; the tall mark is the median", x=_LABEL, y=None)
        return self._rows.artists

    def update(self, sample: Race | None) -> bool:
        """Show the samples there are so far."""
        self._rows.update({} if sample is None else {row.name: row for row in sample.rows})
        return False


class _Rows:
    """The dots, the median and the words of each contender, on axes that keep their range."""

    def __init__(self, ax: Any, names: Sequence[str]) -> None:
        self._names = names
        ax.set_xscale("log")
        ax.set_xlim(_FEWEST_MS, _MOST_MS * (10 if _SLOWEST.intersection(names) else 1))
        ax.set_ylim(len(names) - 0.4, -0.6)
        ax.set_yticks(range(len(names)), [title_of(name) for name in names])
        ax.grid(visible=False, axis="y")
        ax.set_xticks([1, 10, 100, 1000, 10_000], ["1", "10", "100", "1000", "10 000"])
        # Holds the place of the words, which are not there yet when the layout is made.
        ax.text(1.01, 0, _WIDEST, transform=ax.get_yaxis_transform(), color=theme.PAPER, fontsize=9)
        ax.text(
            1.01, -0.75, "median (middle half), starts", transform=ax.get_yaxis_transform(), fontsize=9, va="bottom"
        )
        self._dots, self._medians, self._words = [], [], []
        for place, name in enumerate(names):
            look = theme.look(concept_of(name))
            keywords = look.line_keywords | {"linestyle": "none", "markersize": 4, "alpha": 0.55, "label": None}
            self._dots += ax.plot([], [], **keywords)
            self._medians += ax.plot([], [], color=theme.INK, linewidth=2.2)
            self._words.append(ax.text(1.01, place, "", transform=ax.get_yaxis_transform(), fontsize=9, va="center"))
        self.artists = [self._dots, self._medians, self._words]

    def update(self, rows: dict[str, Row]) -> None:
        """Move everything to ``rows``; a contender without a row shows nothing."""
        parts = zip(self._names, self._dots, self._medians, self._words, strict=True)
        for place, (name, dots, median, words) in enumerate(parts):
            row = rows.get(name, Row(name, ()))
            # Spread in height by the golden ratio: dots of equal times do not hide each other, and each stays where it is.
            heights = [place + 0.5 * (n * 0.618 % 1 - 0.5) for n in range(len(row.samples_ms))]
            dots.set_data([max(_FEWEST_MS, ms) for ms in row.samples_ms], heights)
            middle = [row.summary.median] * 2 if row.samples_ms else []
            median.set_data(middle, [place - 0.4, place + 0.4] if middle else [])
            words.set_text(words_for(row))

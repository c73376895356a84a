"""Attacks down, defences across: which attack gets through, and what the kernel said to the others.

A cell says its outcome in words (``through``, ``stopped``, or the error's name), so colour is never the only sign.

Leaves out: why an attack was stopped; the lesson tells it, level by level.
See: `labkit.measure.attacks`, `labkit.measure.chosen`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from labkit.charts import theme
from labkit.measure.attacks import ATTACKS
from labkit.measure.chosen import Board
from labkit.measure.outcomes import AttackTable, Outcome

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["COLUMNS", "AttackChart", "draw", "word_for"]

#: The columns of the live board.
COLUMNS = ("no defence", "all defences", "your choice")
#: Outcome -> (paper, edge): far apart for every kind of colour vision, and in brightness too.
_COLOURS = {"succeeded": ("#f3c9a8", "#D55E00"), "failed": ("#dbe9f7", "#0066CC"), "unknown": ("#eeeeee", "#8C8C8C")}
#: Longer words are broken, or they would not fit into their cells.
_LONGEST = 8
_BLANK = (theme.PAPER, theme.FAINT)


def word_for(outcome: Outcome | None) -> str:
    """Return what a cell says: ``through``, the name of the kernel's error, ``stopped`` without one, ``?`` if unknown, or nothing."""
    if outcome is None:
        return ""
    if outcome.succeeded is None:
        return "?"
    return "through" if outcome.succeeded else outcome.errno or "stopped"


def draw(ax: Axes, table: AttackTable) -> None:
    """Draw the whole table; a row's last cell that says ``through`` stands left of the defence that stops it."""
    from matplotlib.patches import Rectangle

    with theme.context():
        ax.set_axis_off()
        ax.set_title(_finding(table))
        ax.set_xlim(-2.6, len(table.defences))
        ax.set_ylim(len(table.attacks), -2.6)
        for column, defence in enumerate(table.defences):
            ax.text(column + 0.1, -0.15, defence.title, rotation=24, fontsize=8.5, ha="left")
        for row, attack in enumerate(table.attacks):
            ax.text(-0.1, row + 0.5, attack.title, ha="right", va="center", fontsize=9)
            for column, defence in enumerate(table.defences):
                outcome = table.outcome(attack.name, defence.name)
                paper, edge = _COLOURS[outcome.verdict]
                box = Rectangle((column + 0.04, row + 0.08), 0.92, 0.84, facecolor=paper, edgecolor=edge, linewidth=1.0)
                ax.add_patch(box)
                word, size = _fitted(word_for(outcome))
                ax.text(
                    column + 0.5, row + 0.5, word, ha="center", va="center", fontsize=size, weight=_weight(outcome),
                    linespacing=0.95,
                )  # fmt: skip


class AttackChart:
    """The live board for `labkit.widgets.LiveView`: three columns, of which the last is filled while the attacks run."""

    def setup(self, figure: Figure) -> Sequence[Artist | Iterable[Artist]]:
        """Make a row for each attack and a cell for each column."""
        from matplotlib.patches import Rectangle

        axes: Any = figure.add_subplot()
        axes.set_axis_off()
        axes.set_title("Take a defence away, and see which attack comes back")
        axes.set_xlim(-1.5, len(COLUMNS))
        axes.set_ylim(len(ATTACKS), -0.9)
        for column, title in enumerate(COLUMNS):
            axes.text(column + 0.5, -0.2, title, ha="center", weight="bold")
        for row, attack in enumerate(ATTACKS):
            axes.text(-0.06, row + 0.5, attack.title, ha="right", va="center", fontsize=9)
        places = [(column, row) for column in range(len(COLUMNS)) for row in range(len(ATTACKS))]
        self._boxes = [axes.add_patch(Rectangle((x + 0.03, y + 0.08), 0.94, 0.84, linewidth=1.2)) for x, y in places]
        self._words = [axes.text(x + 0.5, y + 0.5, "", ha="center", va="center", fontsize=8.5) for x, y in places]
        return [self._boxes, self._words]

    def update(self, sample: Board) -> bool:
        """Write the outcomes there are so far."""
        columns = [{outcome.attack: outcome for outcome in part} for part in (sample.none, sample.all, sample.outcomes)]
        outcomes = [column.get(attack.name) for column in columns for attack in ATTACKS]
        for box, words, outcome in zip(self._boxes, self._words, outcomes, strict=True):
            paper, edge = _COLOURS[outcome.verdict] if outcome is not None else _BLANK
            box.set_facecolor(paper)
            box.set_edgecolor(edge)
            words.set_text(word_for(outcome))
            words.set_weight(_weight(outcome))
        return False


def _fitted(word: str) -> tuple[str, float]:
    """Return ``word`` as it fits into a cell, and its size in points."""
    if len(word) <= _LONGEST:
        return word, 7
    half = (len(word) - 1) // 2
    return f"{word[:half]}\n{word[half:]}", 5.8


def _weight(outcome: Outcome | None) -> str:
    return "bold" if outcome is not None and outcome.succeeded else "normal"


def _finding(table: AttackTable) -> str:
    left = sum(table.outcome(attack.name, table.defences[-1].name).succeeded is True for attack in table.attacks)
    first = sum(table.outcome(attack.name, table.defences[0].name).succeeded is True for attack in table.attacks)
    return f"Of {len(table.attacks)} attacks {first} get through at first, and {left or 'none'} in the end"

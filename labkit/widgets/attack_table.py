"""The attack table as a live board: tick defences, press Start, and see which attacks get through.

Each frame tries one attack more, so the board fills row by row and Stop stops it between two attacks. What is ticked is a real
container with exactly these defences; a tick that needs another one sets it.

Leaves out: attacks of the reader's own (lesson 06 shows how to try one in a cell).
See: `labkit.measure.chosen`, `labkit.charts.attacks`.
"""

from __future__ import annotations

import inspect
import weakref
from collections.abc import Generator
from typing import cast

from labkit.charts.attacks import AttackChart
from labkit.errors import LabkitError
from labkit.measure.attacks import ATTACKS, DEFENCES
from labkit.measure.chosen import Board, attack_with, complete
from labkit.measure.outcomes import AttackTable, Outcome
from labkit.widgets import layout
from labkit.widgets.live import LiveView

__all__ = ["attack_board", "describe"]

_TITLE_OF = {attack.name: attack.title for attack in ATTACKS}
_ALL = tuple(defence.name for defence in DEFENCES)


def attack_board(table: AttackTable) -> LiveView[Board]:
    """Return the board; ``table`` holds the outcomes of no defence and of all, which stand beside those of the choice."""
    attacker = _Attacker(table)
    view = LiveView(
        attacker.take,
        AttackChart(),
        title="attacks against the defences that are ticked",
        alt="A table: a row for each attack; columns for no defence, all defences, and your choice",
        describe=describe,
        controls=attacker.controls,
        size_in=(8.2, 4.6),
        on_close=attacker.close,
    )
    attacker.view = weakref.ref(view)
    return view


def describe(board: Board) -> str:
    """Return the last column in words."""
    tried = len(board.outcomes)
    if not tried:
        return "Nothing tried yet against your choice."
    through = [_TITLE_OF[name] for name in board.through]
    unknown = sum(outcome.succeeded is None for outcome in board.outcomes)
    said = f"Of {tried} attacks against your choice {len(through) or 'none'} got through"
    rest = f"; {unknown} could not be tried" if unknown else ""
    return f"{said}: {', '.join(through)}{rest}." if through else f"{said}{rest}."


class _Attacker:
    """The ticks, and the attacks under way; knows its view weakly."""

    def __init__(self, table: AttackTable) -> None:
        self.view: weakref.ref[LiveView[Board]] | None = None
        self._none, self._all = _column(table, _ALL[0]), _column(table, _ALL[-1])
        self._outcomes: list[Outcome] = []
        self._attempts: Generator[Outcome, None, None] | None = None
        self._under_way: tuple[str, ...] = ()
        self._closed = False
        self._said = layout.status("Untick what you want to do without, then press Start.")
        self.boxes = {
            defence.name: layout.checkbox(defence.title.removeprefix("+ "), does=defence.adds, checked=True)
            for defence in DEFENCES[1:]
        }
        self.controls = [layout.row(*self.boxes.values()), self._said]

    def take(self) -> Board:
        """Try the next attack if the view runs, and return what is known so far."""
        view = self.view() if self.view is not None else None
        if view is not None and view.running:
            try:
                self._try_next(view)
            except LabkitError as error:
                self.end_attacks()
                layout.say(self._said, str(error))
                view.stop(reason="Stopped: this choice cannot be had here.")
        return Board(self._under_way, tuple(self._outcomes), self._none, self._all)

    def _try_next(self, view: LiveView[Board]) -> None:
        chosen = self._complete_ticks()
        if self._attempts is None or chosen != self._under_way:
            self.end_attacks()
            self._under_way, self._outcomes = chosen, []
            self._attempts = cast("Generator[Outcome, None, None]", attack_with(chosen))
        outcome = next(self._attempts, None)
        if outcome is not None:
            self._outcomes.append(outcome)
        if self._closed or outcome is None or len(self._outcomes) == len(ATTACKS):
            self.end_attacks()
            view.stop(reason="All attacks were tried. Change the ticks and press Start.")

    def _complete_ticks(self) -> tuple[str, ...]:
        """Return the choice, with the ticks set that others need."""
        ticked = [name for name, box in self.boxes.items() if box.value]
        chosen = complete(ticked)
        added = [name for name in chosen if name in self.boxes and name not in ticked]
        for name in added:
            self.boxes[name].value = True
        if added:
            names = " and ".join(self.boxes[name].description for name in added)
            layout.say(self._said, f"Added, because something that is ticked needs it: {names}.")
        return chosen

    def end_attacks(self) -> None:
        """End the attackers and their container."""
        attempts, self._attempts = self._attempts, None
        if attempts is not None:
            attempts.close()

    def close(self) -> None:
        """End for good; an attack that is under way in the view's thread is the last one, and that thread ends it."""
        self._closed = True
        if self._attempts is None or inspect.getgeneratorstate(self._attempts) != inspect.GEN_RUNNING:
            self.end_attacks()


def _column(table: AttackTable, defence: str) -> tuple[Outcome, ...]:
    return tuple(outcome for outcome in table.outcomes if outcome.defence == defence)

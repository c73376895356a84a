"""The start-up race, live: choose who runs and how often, press Start, and watch the distributions build up.

Each frame is one round: everybody who takes part starts once, turn by turn, so whatever else the machine does hits all alike. Stop ends
the race after the round under way; Start goes on with it, or begins a new one when it was over or the choice has changed.

Leaves out: the single namespaces (lesson 07 measures them in a cell).
See: `labkit.measure.startup`, `labkit.charts.race`.
"""

from __future__ import annotations

import inspect
import weakref
from collections.abc import Generator, Sequence

from labkit.charts.race import RaceChart, title_of, words_for
from labkit.errors import LabkitError
from labkit.measure.startup import MACHINE_NAMES, Race, rounds
from labkit.widgets import layout
from labkit.widgets.live import LiveView

__all__ = ["RUNNERS", "describe", "race_view"]

#: Who can take part in the live race, from top to bottom.
RUNNERS = ("process", "namespaces", "container", "unshare", "bwrap", "crun", "runc", "podman", "docker")
#: Ticked at first: engines take long to get ready.
_AT_FIRST = ("process", "namespaces", "container", "bwrap", "runc", "microvm", "vm-restore")
_ROW_IN, _AXIS_IN = 0.31, 1.1
_MOST_STARTS = 100


def race_view(shown: Race | None = None, *, starts: int = 20, machines: bool = False) -> LiveView[Race | None]:
    """Return the race, not running; until it starts it shows an earlier one, ``shown``. The slider stands at ``starts``.

    With ``machines`` virtual machines may take part, too: a round then takes seconds.
    Raises: InvalidSpec for ``starts`` outside of 1 to 100.
    """
    names = (*RUNNERS, *(MACHINE_NAMES if machines else ()))
    starter = _Starter(names, shown, starts)
    view = LiveView(
        starter.take,
        RaceChart(names),
        title="start-up race",
        alt="Dots on a logarithmic time scale: a row for each way to start a program, a dot for each start",
        describe=describe,
        controls=starter.controls,
        size_in=(9.2, _AXIS_IN + _ROW_IN * len(names)),
        on_close=starter.close,
    )
    starter.view = weakref.ref(view)
    return view


def describe(race: Race | None) -> str:
    """Return the picture in words: the median of each contender, fastest first, and who could not run."""
    rows = [] if race is None else [row for row in race.rows if row.name in (*RUNNERS, *MACHINE_NAMES)]
    if not rows:
        return "Nobody has started yet."
    ran = sorted((row for row in rows if row.samples_ms), key=lambda row: row.summary.median)
    medians = "; ".join(f"{title_of(row.name)} {words_for(row)}" for row in ran)
    skipped = [f"{title_of(row.name)}: {row.skipped}" for row in rows if row.skipped]
    said = f"Median in ms (middle half): {medians}." if ran else "Warming up."
    return " ".join([said, *skipped])


class _Starter:
    """The controls, and the race under way; knows its view weakly."""

    def __init__(self, names: Sequence[str], shown: Race | None, starts: int) -> None:
        self.view: weakref.ref[LiveView[Race | None]] | None = None
        self._race = shown
        self._rounds: Generator[Race, None, None] | None = None
        self._under_way: tuple[str, ...] = ()
        self._closed = False
        self.slider = layout.slider("starts of each", unit="count", low=1, high=_MOST_STARTS, value=starts)
        self.boxes = {
            name: layout.checkbox(title_of(name), does=f"Let {title_of(name)} take part", checked=name in _AT_FIRST)
            for name in names
        }
        self.controls = [layout.row(*self.boxes.values()), self.slider]

    def take(self) -> Race | None:
        """Run the next round if the view runs, and return the race so far."""
        view = self.view() if self.view is not None else None
        if view is not None and view.running:
            try:
                self._run_round(view)
            except LabkitError as error:
                self.end_race()
                view.stop(reason=str(error))
        return self._race

    def _run_round(self, view: LiveView[Race | None]) -> None:
        names = tuple(name for name, box in self.boxes.items() if box.value)
        if self._rounds is None or names != self._under_way:
            self.end_race()
            self._race, self._under_way = None, names
            self._rounds = rounds(names, warm_up=1)
        self._race = next(self._rounds)
        if self._closed or self._race.rounds >= self.slider.value:
            self.end_race()
            view.stop(reason=f"The race is over after {self._race.rounds} rounds. Press Start for another.")

    def end_race(self) -> None:
        """Release what the contenders need; the samples stay on show."""
        going, self._rounds = self._rounds, None
        if going is not None:
            going.close()

    def close(self) -> None:
        """End for good; a round that is under way in the view's thread is the last one, and that thread ends it."""
        self._closed = True
        if self._rounds is None or inspect.getgeneratorstate(self._rounds) != inspect.GEN_RUNNING:
            self.end_race()

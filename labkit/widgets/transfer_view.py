"""Pulls, live: choose images of a registry, press Start, and see for each what travels and what is here already.

The view has a store of its own, empty at first. Each frame is one real pull of the next image that is ticked. What earlier pulls
brought stays, so that a layer travels once, unless the box says that the store forgets everything first.

See: `labkit.measure.transfers`, `labkit.charts.transfers`.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from contextlib import ExitStack

from labkit.charts.transfers import TransferChart, words_for
from labkit.errors import InvalidSpec, LabkitError
from labkit.image.reference import Reference
from labkit.image.registry.credentials import Credentials
from labkit.image.store import ImageStore
from labkit.measure.scratch import scratch_folder
from labkit.measure.transfers import Ledger, measure_pull
from labkit.units import MiB, format_bytes
from labkit.widgets import layout
from labkit.widgets.live import LiveView

__all__ = ["describe", "transfer_view"]

_ROWS = 8


def transfer_view(
    names: Sequence[str], *, most_bytes: int = 8 * MiB, credentials: Credentials | None = None
) -> LiveView[Ledger]:
    """Return a view over pulls of ``names``, not running. Raises: InvalidSpec without names, or for what is none."""
    if not names:
        raise InvalidSpec("There is nothing to pull: give the view the names of some images.")
    puller = _Puller([Reference.parse(name).canonical for name in names], credentials)
    view = LiveView(
        puller.take,
        TransferChart(rows=_ROWS, most_bytes=most_bytes),
        title="bytes moved against bytes shared",
        alt="Bars from zero: one a pull, its parts are the bytes that moved, those that were here, and those mounted",
        describe=describe,
        controls=puller.controls,
        size_in=(9.2, 3.4),
        on_close=puller.close,
    )
    puller.view = weakref.ref(view)
    return view


def describe(ledger: Ledger) -> str:
    """Return the picture in words: the last pulls, and the sums."""
    if not ledger.journeys:
        return "Nothing has been pulled yet."
    pulls = "; ".join(f"{journey.name} {words_for(journey)}" for journey in ledger.journeys[-_ROWS:])
    return f"{pulls}. In all {format_bytes(ledger.moved_bytes)} moved, {format_bytes(ledger.spared_bytes)} spared."


class _Puller:
    """The controls, the store, and the pulls of the round under way; knows its view weakly."""

    def __init__(self, names: Sequence[str], credentials: Credentials | None) -> None:
        self.view: weakref.ref[LiveView[Ledger]] | None = None
        self._credentials = credentials
        self._ledger = Ledger()
        self._waiting: list[str] = []
        self._is_under_way = False
        self._cleanup = ExitStack()
        self._store = self._new_store()
        self._boxes = {
            name: layout.checkbox(Reference.parse(name).repository, does=f"Pull {name}", checked=True) for name in names
        }
        self._forget = layout.checkbox("begin with an empty store", does="Forget all layers when Start is pressed")
        self.controls = [layout.row(*self._boxes.values(), self._forget)]

    def take(self) -> Ledger:
        """Pull the next image if the view runs, and return what has been pulled so far."""
        view = self.view() if self.view is not None else None
        if view is None or not view.running:
            self._is_under_way = False
            return self._ledger
        if not self._is_under_way:
            self._begin()
        if self._waiting:
            try:
                journey = measure_pull(self._waiting.pop(0), self._store, credentials=self._credentials)
                self._ledger = self._ledger.with_journey(journey)
            except LabkitError as error:
                view.stop(reason=str(error))
        if not self._waiting:
            self._is_under_way = False
            view.stop(reason="All that was ticked has been pulled. Press Start to pull it again.")
        return self._ledger

    def close(self) -> None:
        """Remove the store."""
        self._cleanup.close()

    def _begin(self) -> None:
        self._is_under_way = True
        self._waiting = [name for name, box in self._boxes.items() if box.value]
        if self._forget.value:
            self._cleanup.close()
            self._store, self._ledger = self._new_store(), Ledger()

    def _new_store(self) -> ImageStore:
        return ImageStore(self._cleanup.enter_context(scratch_folder(mode=0o700)))

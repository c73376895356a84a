"""Weights in your hands: two sliders, and what two programs on one processor get of it.

The programs run while the view runs: Start starts them, Stop, the time limit and the end of the cell end them. A slider is one write to
``cpu.weight`` (``cpu.shares`` on v1) of the program's cgroup, or where there is none a new nice value.

See: `labkit.measure.shares`, `labkit.charts.shares`.
"""

from __future__ import annotations

import threading
import weakref
from functools import partial

from labkit.charts.shares import NAMES, SharesChart, words_for
from labkit.errors import LabkitError
from labkit.measure.shares import SharedCpu, Shares
from labkit.widgets import layout
from labkit.widgets.live import LiveView

__all__ = ["CpuShares"]

_MOST_SHOWN, _STEP = 1000, 10
_ALT = "Two curves of processor time, and dashed what the weights of the two programs promise"
#: Two programs compute meanwhile, so this view rests earlier than others.
_RUN_FOR_S = 120.0


class CpuShares(LiveView[Shares]):
    """The live view; show it as the last line of a cell. ``shown`` was measured before, and is the first frame."""

    def __init__(self, shown: Shares | None = None) -> None:
        weights = shown.weights if shown is not None else (300, 100)
        self._latest = shown or Shares("cgroup weights", weights, (0.0, 0.0), (0.0, 0.0))
        self._pairs: list[SharedCpu] = []  # what on_close closes; it must not hold the view itself
        self._changing = threading.Lock()
        self._sliders = [
            layout.slider(f"weight of {name}", unit="weight", low=_STEP, high=_MOST_SHOWN, value=weight, step=_STEP)
            for name, weight in zip(NAMES, weights, strict=True)
        ]
        me = weakref.ref(self)
        for slider in self._sliders:
            slider.observe(lambda _: _weigh(me), names="value")
        super().__init__(
            self._look, SharesChart(), title="two programs on one processor", alt=_ALT, describe=words_for,
            controls=self._sliders, size_in=(7.6, 2.8), run_for_s=_RUN_FOR_S, on_close=partial(_shut, self._pairs),
        )  # fmt: skip

    def start(self) -> None:
        """Start the programs, and draw."""
        with self._changing:
            if self.closed or self._pairs:
                return
            pair = SharedCpu(self._wanted())
            pair.start()
            self._pairs.append(pair)
        super().start()

    def stop(self, *, reason: str = "Stopped.") -> None:
        """Stop drawing, and end the programs."""
        super().stop(reason=reason)
        with self._changing:
            _shut(self._pairs)

    def weigh(self) -> None:
        """Give the programs the weights of the sliders."""
        with self._changing:
            for pair in self._pairs:
                pair.set_weights(self._wanted())

    def _wanted(self) -> tuple[int, int]:
        first, second = (int(slider.value) for slider in self._sliders)
        return first, second

    def _look(self) -> Shares:
        with self._changing:
            if self._pairs:
                self._latest = self._pairs[0].take()
        return self._latest


def _weigh(me: weakref.ref[CpuShares]) -> None:
    view = me()
    if view is not None and not view.closed:
        try:
            view.weigh()
        except LabkitError as error:
            view.stop(reason=str(error))


def _shut(pairs: list[SharedCpu]) -> None:
    while pairs:
        pairs.pop().close()

"""Memory in your hands: a slider asks the kernel for memory, another one touches it, and two bars show size and resident set.

The program that does it sleeps between two moves and ends with the view.

See: `labkit.measure.touching`, `labkit.charts.touching`.
"""

from __future__ import annotations

import weakref

from labkit.charts.touching import TouchChart, words_for
from labkit.measure.touching import MOST_ASKED_BYTES, MOST_TOUCHED_BYTES, Touched, Toucher
from labkit.units import MiB
from labkit.widgets import layout
from labkit.widgets.live import LiveView

__all__ = ["touch_view"]

_STEP_MIB = 16


def touch_view(*, asked_mib: int = 256, touched_mib: int = 64) -> LiveView[Touched]:
    """Return the view; each move of a slider is carried out at once. Raises: InvalidSpec for a start beyond the bounds."""
    hand = _Hand(asked_mib, touched_mib)
    try:
        view = LiveView(
            hand.take,
            TouchChart(),
            title="size and resident set",
            alt="Two bars from zero: the size of a process, and how much of it lies in memory",
            describe=words_for,
            controls=hand.sliders,
            size_in=(7.6, 1.9),
            on_close=hand.toucher.close,
        )
    except BaseException:
        hand.toucher.close()
        raise
    weakref.finalize(view, hand.toucher.close).atexit = False
    return view


class _Hand:
    """The sliders and the program."""

    def __init__(self, asked_mib: int, touched_mib: int) -> None:
        most = MOST_ASKED_BYTES // MiB, MOST_TOUCHED_BYTES // MiB
        self.sliders = [
            layout.slider("ask for", unit="MiB", low=0, high=most[0], value=asked_mib, step=_STEP_MIB),
            layout.slider("touch", unit="MiB", low=0, high=most[1], value=touched_mib, step=_STEP_MIB),
        ]
        self._carried_out: tuple[int, int] | None = None
        self.toucher = Toucher()

    def take(self) -> Touched:
        """Carry out what the sliders say, if that is new, and return the numbers."""
        asked, touched = (int(slider.value) * MiB for slider in self.sliders)
        if (asked, touched) != self._carried_out:
            self.toucher.ask(asked, touched)
            self._carried_out = asked, touched
        return self.toucher.take()

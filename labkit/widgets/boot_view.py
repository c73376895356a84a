"""The boot timeline, live: choose memory and processors, press Start, and see machine after machine boot, phase by phase.

Each frame is one boot; the machine ends as soon as it was ready. Stop ends it after the boot under way.

See: `labkit.measure.boots`, `labkit.charts.boots`.
"""

from __future__ import annotations

import weakref

from labkit.charts.boots import BootsChart, words_for
from labkit.errors import InvalidSpec, LabkitError
from labkit.measure.boots import BootRun, Boots, boot_once
from labkit.measure.recording import Shown
from labkit.measure.scenes import Boot
from labkit.widgets import layout
from labkit.widgets.live import LiveView

__all__ = ["boot_view"]

_MOST_BOOTS, _LEAST_MIB, _MOST_MIB = 20, 64, 512
_FIRST_MIB = 128


def boot_view(shown: Shown[Boot] | None = None, *, boots: int = 3) -> LiveView[Boots]:
    """Return the view, not running; until it starts it shows an earlier boot, of this machine or from a recording.

    Raises: InvalidSpec for ``boots`` outside of 1 to 20.
    """
    if not 1 <= boots <= _MOST_BOOTS:
        raise InvalidSpec(f"{boots} boots are not made in a row: choose from 1 to {_MOST_BOOTS}.")
    booter = _Booter(_first(shown), boots)
    view = LiveView(
        booter.take,
        BootsChart(),
        title="boot timeline",
        alt="Bars below each other, one a boot, with a part for each phase: QEMU, firmware, kernel, init",
        describe=words_for,
        controls=booter.controls,
        size_in=(9.0, 3.0),
    )
    booter.view = weakref.ref(view)
    return view


def _first(shown: Shown[Boot] | None) -> Boots:
    if shown is None:
        return Boots()
    source = "" if shown.recording is None else str(shown.recording)
    return Boots((BootRun(_FIRST_MIB, 1, shown.result.stages),), source)


class _Booter:
    """The controls, and the boots so far; knows its view weakly."""

    def __init__(self, boots: Boots, count: int) -> None:
        self.view: weakref.ref[LiveView[Boots]] | None = None
        self._boots, self._left = boots, 0
        self.memory = layout.slider("memory", unit="MiB", low=_LEAST_MIB, high=_MOST_MIB, value=_FIRST_MIB, step=32)
        self.cpus = layout.slider("processors", unit="count", low=1, high=4, value=1)
        self.count = layout.slider("boots", unit="count", low=1, high=_MOST_BOOTS, value=count)
        self.controls = [self.memory, self.cpus, self.count]

    def take(self) -> Boots:
        """Boot once if the view runs, and return the boots so far."""
        view = self.view() if self.view is not None else None
        if view is None or not view.running:
            self._left = 0
            return self._boots
        self._left = self._left or int(self.count.value)
        try:
            self._boots = self._boots.with_run(boot_once(int(self.memory.value), int(self.cpus.value)))
        except LabkitError as error:
            view.stop(reason=str(error))
            return self._boots
        self._left -= 1
        if not self._left:
            view.stop(reason="All of them have booted. Press Start for more.")
        return self._boots

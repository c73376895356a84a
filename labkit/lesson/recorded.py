"""A measurement, or, on a machine that cannot take it, a recording with a note that says so.

::

    boot = lesson.recorded_or("boot", lambda: scenes.boot_of(guest), here=machines)
    boot.result                                    # the numbers
    charts.show(figure, alt=..., recording=boot.recording)

The note stands in the cell, and `labkit.charts.show` writes the same into the figure. On a machine that can measure, nothing is
shown and nothing is loaded.

Leaves out: checks; with a refused `Need` they say ``not shown here``, for a recording proves nothing about this machine.
See: `labkit.measure.recordable`, `labkit.lesson.needs`.
"""

from __future__ import annotations

import html
from collections.abc import Callable
from typing import TypeVar

from labkit.doctor.features import QEMU
from labkit.lesson.display import Text, note, show_text
from labkit.lesson.needs import Need
from labkit.measure import recordable
from labkit.measure.record import Result
from labkit.measure.recording import Shown

__all__ = ["MACHINE", "recorded_or"]

R = TypeVar("R", bound=Result)

#: What a lesson asks `needs` for before it boots a machine.
MACHINE = (QEMU, "guest kernel", "busybox")


def recorded_or(name: str, measure: Callable[[], R], *, here: Need | None = None) -> Shown[R]:
    """Return what ``measure`` measures, or the recording ``name`` where this machine cannot, with a note in the cell.

    ``here`` is an answer of `needs` to go by. Raises: what ``measure`` raises where it can; InvalidSpec without recording.
    """
    if here is not None and not here:
        found = recordable.find_recording(name)
        shown: Shown[R] = Shown(found.result, found, repr(here))
    else:
        shown = recordable.recorded_or(name, measure)
    if shown.recording is not None:
        show_text(Text(str(shown), note("not yet", html.escape(str(shown)))))
    return shown

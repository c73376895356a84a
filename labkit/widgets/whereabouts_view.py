"""Buttons that write, restart and replace containers, over a picture of what is left of their files.

See: `labkit.engine.whereabouts`, `labkit.charts.whereabouts`.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from labkit.charts.whereabouts import WhereaboutsChart, describe
from labkit.engine.whereabouts import Whereabouts
from labkit.widgets import layout
from labkit.widgets.live import LiveView

__all__ = ["whereabouts_view"]


def whereabouts_view(
    take: Callable[[], Sequence[Whereabouts]], names: Sequence[str], actions: Mapping[str, Callable[[], object]]
) -> LiveView[Sequence[Whereabouts]]:
    """Return the view of the containers ``names``; each of ``actions`` (name: what to do) gets a button, and a new picture after it."""
    presser = _Presser()
    buttons = [
        layout.button(name, does=f"Do: {name}", on_click=partial(presser.do, action))
        for name, action in actions.items()
    ]
    view = LiveView(
        take,
        WhereaboutsChart(names),
        title="where files live",
        alt="A grid: a row for each kind of place, a column for each container, and in it what can be read there",
        describe=describe,
        controls=[layout.row(*buttons)],
        size_in=(9.2, 3.2),
        frames_per_s=2.0,
    )
    presser.view = weakref.ref(view)
    return view


class _Presser:
    def __init__(self) -> None:
        self.view: weakref.ref[LiveView[Sequence[Whereabouts]]] | None = None

    def do(self, action: Callable[[], object]) -> None:
        """Carry out ``action`` and draw what has become of it."""
        action()
        view = self.view() if self.view is not None else None
        if view is not None and not view.running:
            view.refresh()

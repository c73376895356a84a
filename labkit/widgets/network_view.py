"""The network as a picture, with buttons that send packets, connect and cut.

See: `labkit.engine.wiring`, `labkit.charts.wiring`.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Mapping
from functools import partial

import docker

from labkit.charts.wiring import WiringChart, describe
from labkit.engine.wiring import Wiring, read_wiring
from labkit.widgets import layout
from labkit.widgets.live import LiveView

__all__ = ["network_view"]


def network_view(client: docker.DockerClient, actions: Mapping[str, Callable[[], str]]) -> LiveView[Wiring]:
    """Return the view; each of ``actions`` (name: what to do, which returns what came of it) gets a button."""
    presser = _Presser()
    buttons = [
        layout.button(name, does=f"Do: {name}", on_click=partial(presser.do, name, action))
        for name, action in actions.items()
    ]
    view = LiveView(
        lambda: read_wiring(client),
        WiringChart(),
        title="containers on their networks",
        alt="Bars for networks, boxes for containers with their packets counted, and a line where they are connected",
        describe=describe,
        controls=[layout.row(*buttons), presser.line],
        size_in=(9.2, 4.4),
        frames_per_s=2.0,
    )
    presser.view = weakref.ref(view)
    return view


class _Presser:
    def __init__(self) -> None:
        self.view: weakref.ref[LiveView[Wiring]] | None = None
        self.line = layout.status()
        self._busy = threading.Lock()

    def do(self, name: str, action: Callable[[], str]) -> None:
        """Carry out ``action`` in a thread, say what came of it, and draw; nothing while another one is under way."""
        if self._busy.acquire(blocking=False):
            threading.Thread(target=self._carry_out, args=(name, action), name="labkit-network", daemon=True).start()

    def _carry_out(self, name: str, action: Callable[[], str]) -> None:
        try:
            layout.say(self.line, f"{name}: {action()}")
        finally:
            self._busy.release()
            view = self.view() if self.view is not None else None
            if view is not None and not view.running:
                view.refresh()

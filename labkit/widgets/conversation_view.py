"""The conversation between client, daemon and containers, as it happens; buttons send a command of the real client.

See: `labkit.engine.conversation`, `labkit.charts.conversation`.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from labkit.charts.conversation import ConversationChart, describe
from labkit.engine.conversation import Listener, Message
from labkit.widgets import layout
from labkit.widgets.live import LiveView

__all__ = ["conversation_view"]


def conversation_view(listener: Listener, commands: Mapping[str, Callable[[], object]]) -> LiveView[Sequence[Message]]:
    """Return the view; each of ``commands`` (name: what to do) gets a button. One command runs at a time, in a thread of its own.

    The picture follows while the view runs; otherwise it is drawn once when the command is over.
    """
    speaker = _Speaker(listener)
    buttons = [
        layout.button(name, does=f"Send: {name}", on_click=partial(speaker.say, command))
        for name, command in commands.items()
    ]
    view = LiveView(
        listener.messages,
        ConversationChart(),
        title="client, daemon and containers",
        alt="Three lines for client, daemon and runtime, with an arrow between them for each thing said",
        describe=describe,
        controls=[layout.row(*buttons)],
        size_in=(9.2, 5.4),
    )
    speaker.view = weakref.ref(view)
    return view


class _Speaker:
    def __init__(self, listener: Listener) -> None:
        self.view: weakref.ref[LiveView[Sequence[Message]]] | None = None
        self._listener = listener
        self._busy = threading.Lock()

    def say(self, command: Callable[[], object]) -> None:
        """Forget the last conversation and carry out ``command``; does nothing while another one is under way."""
        if self._busy.acquire(blocking=False):
            self._listener.restart()
            threading.Thread(target=self._carry_out, args=(command,), name="labkit-command", daemon=True).start()

    def _carry_out(self, command: Callable[[], object]) -> None:
        try:
            command()
        finally:
            self._busy.release()
            view = self.view() if self.view is not None else None
            if view is not None and not view.running:
                view.refresh()

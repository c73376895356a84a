"""A guest's console on the page: what the guest writes, a line to type into, and buttons to start and stop the machine.

The text is one widget whose value is replaced, at most four times a second, and holds the last lines only: a guest that floods its
console makes no output grow. A thread reads; it ends, and the machine with it, by the Stop button, after some minutes, when the guest
ends by itself (type ``echo c > /proc/sysrq-trigger`` to see it panic), when the view or its cell is closed, and with the process.

Where no machine can be started, Start says why, and the text is that of a recording, marked as one.

Leaves out: a terminal's cursor; keys other than Enter and Ctrl-C.
See: `labkit.measure.guest_console`; WAI-ARIA 1.2 (log role).
"""

from __future__ import annotations

import html
import logging
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

from labkit.errors import LabkitError
from labkit.measure.guest_console import GuestConsole
from labkit.widgets import layout
from labkit.widgets.cells import close_with_cell, forget

__all__ = ["ConsoleView"]

log = logging.getLogger(__name__)

_EVERY_S = 0.25
_RUN_FOR_S = 600.0
_JOIN_S = 5.0
_LINES = 40
_BOX = "max-height:22em;overflow:auto;background:#222;color:#eee;padding:6px;margin:4px 0;line-height:1.35;white-space:pre-wrap"


class ConsoleView:
    """The view, with no machine running; show it as the last line of a cell.

    ``shown`` is what stands there until one is started, and ``source`` says where that is from, if it is a recording.
    ``make`` makes the machine.
    """

    def __init__(self, shown: str = "", *, source: str = "", make: Callable[[], GuestConsole] = GuestConsole) -> None:
        self.closed, self.sentence = False, ""
        self._make = make
        self._thread: threading.Thread | None = None
        self._state, self._stop = threading.RLock(), threading.Event()
        self._machines: list[GuestConsole] = []
        self._text, self._source = _last(shown), source
        self.widget = self._build()
        self._still = self._log.value
        weakref.finalize(self, _shut, self._machines).atexit = True
        weakref.finalize(self, layout.close_tree, self.widget).atexit = False
        close_with_cell(self)

    def __repr__(self) -> str:
        return "Live view: a guest's console"

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        """Return the widget, and the text on show for a notebook without a process; IPython calls this."""
        words = "<p>The console of a guest: what its kernel and its programs write. (Run this cell to start one and to type.)</p>"
        return layout.mimebundle(self.widget, plain=repr(self), html_text=words + self._still)

    @property
    def text(self) -> str:
        """What stands on the console."""
        return self._text

    @property
    def running(self) -> bool:
        """True while a machine runs or starts."""
        thread = self._thread
        return thread is not None and thread.is_alive()

    def start(self) -> None:
        """Boot a machine with a shell at its console, in a thread; does nothing if one runs or the view is closed."""
        with self._state:
            if self.closed or self.running:
                return
            self._stop = threading.Event()
            arguments = (weakref.ref(self), self._make, self._machines, self._stop)
            self._thread = threading.Thread(target=_live, args=arguments, name="labkit-console-view", daemon=True)
            self._show(running=True, said="Booting.")
            self._thread.start()

    def stop(self, *, reason: str = "Stopped: the machine has ended.") -> None:
        """End the machine; what it wrote stays on show. Safe to call twice."""
        with self._state:
            thread, self._thread = self._thread, None
            self._stop.set()
        if thread is None:
            return
        if thread is not threading.current_thread():
            thread.join(_JOIN_S)
        if not self.closed:
            self._show(running=False, said=reason)

    def enter(self, line: str) -> None:
        """Type ``line`` at the console, as the input line does when Enter is pressed."""
        self._to_machine(lambda console: console.enter(line))

    def interrupt(self) -> None:
        """Press Ctrl-C at the console."""
        self._to_machine(GuestConsole.interrupt)

    def close(self) -> None:
        """End the machine for good and take the widgets from the page; safe to call twice."""
        with self._state:
            if self.closed:
                return
            self.closed = True
        self.stop()
        forget(self)
        layout.close_tree(self.widget)

    def show_text(self, text: str) -> None:
        """Show the end of ``text``; called by the thread."""
        text = _last(text)
        if not self.closed and text != self._text:
            self._text, self._source = text, ""
            self._log.value = _log_html(text)

    def say(self, sentence: str) -> None:
        """Say in words what the machine does."""
        if not self.closed and sentence != self.sentence:
            self.sentence = sentence
            layout.say(self._line, sentence)

    def _build(self) -> Any:
        import ipywidgets

        me = weakref.ref(self)
        self._start_button = layout.button(
            "Start", does="Boot a guest with a shell at its console", on_click=lambda: _call(me, "start")
        )
        self._stop_button = layout.button("Stop", does="End the guest", on_click=lambda: _call(me, "stop"))
        self._break_button = layout.button(
            "Ctrl-C", does="Interrupt the program that runs", on_click=lambda: _call(me, "interrupt")
        )
        self._line, self._log = layout.status(), ipywidgets.HTML(value=_log_html(self._text, self._source))
        self._input = ipywidgets.Text(
            description="type here", placeholder="a command, then Enter", continuous_update=False, disabled=True,
            style={"description_width": "auto"}, layout={"width": "36em", "max_width": "100%"},
        )  # fmt: skip
        self._input.observe(lambda _: _call(me, "_entered"), names="value")
        self._show(running=False, said="No machine runs: press Start.")
        buttons = layout.row(self._start_button, self._stop_button, self._break_button, self._line)
        return layout.column(buttons, self._log, self._input)

    def _entered(self) -> None:
        line = self._input.value
        if line:
            self._input.value = ""
            self.enter(line)

    def _to_machine(self, act: Callable[[GuestConsole], None]) -> None:
        try:
            for console in self._machines:
                act(console)
        except LabkitError as error:
            self.say(str(error))

    def _show(self, *, running: bool, said: str) -> None:
        self._start_button.disabled, self._stop_button.disabled = running, not running
        self._break_button.disabled = self._input.disabled = not running
        self.say(said)


def _live(
    me: weakref.ref[ConsoleView], make: Callable[[], GuestConsole], machines: list[GuestConsole], stop: threading.Event
) -> None:
    """Boot, then show what is written until something ends it; between two looks the view is held weakly."""
    reason = "Stopped: the machine has ended."
    try:
        with make() as console:
            machines.append(console)
            _tell(me, "say", "Running. Type a command and press Enter.")
            until_s = time.monotonic() + _RUN_FOR_S
            while me() is not None and console.running and time.monotonic() < until_s and not stop.wait(_EVERY_S):
                _tell(me, "show_text", console.text)
            _tell(me, "show_text", console.text)
            reason = console.why_ended or reason
    except (LabkitError, OSError) as error:
        log.debug("the console view ended: %s", error)
        reason = f"Not possible: {error}"
    finally:
        machines.clear()
    view = me()
    if view is not None and not stop.is_set():
        view.stop(reason=reason)


def _tell(me: weakref.ref[ConsoleView], method: str, text: str) -> None:
    view = me()
    if view is not None:
        getattr(view, method)(text)


def _call(me: weakref.ref[ConsoleView], method: str) -> None:
    view = me()
    if view is not None and not view.closed:
        getattr(view, method)()


def _shut(machines: list[GuestConsole]) -> None:
    while machines:
        machines.pop().close()


def _last(text: str) -> str:
    return "\n".join(text.rstrip(" ").split("\n")[-_LINES:])


def _log_html(text: str, source: str = "") -> str:
    mark = f'<p style="font-weight:bold">{html.escape(source)}</p>' if source else ""
    shown = html.escape(text) or "(nothing yet)"
    return f'{mark}<pre role="log" aria-label="console of the guest" tabindex="0" style="{_BOX}">{shown}</pre>'

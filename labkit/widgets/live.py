"""A live view: a thread that takes a sample, draws it and says it, five times a second, until something stops it.

The picture is one widget whose bytes are replaced, so nothing flickers and no output grows; the sentence beside it says the same
thing and changes every few seconds at most. The first frame is drawn when the view is made, so it is there before anybody
presses Start and stays in the stored notebook.

What ends the thread: the Stop button; the time limit; an error of what is measured; the view or its comm being closed; its cell
being run again or deleted (see `labkit.widgets.cells`); the view being collected; the end of the process. A frame that takes long
is followed by a pause as long as it needs to stay under `MOST_CPU`, so a slow chart becomes a slower view and never a busy
machine; other cells run meanwhile.

Leaves out: several pictures in one thread; looking back in time (a chart may keep what it wants to show).
See: https://ipywidgets.readthedocs.io; threading (Python library).
"""

from __future__ import annotations

import atexit
import html
import logging
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

from labkit.charts.frames import Chart, Frames
from labkit.charts.show import Picture, checked_alt, picture_html
from labkit.errors import InvalidSpec, LabkitError
from labkit.widgets import layout
from labkit.widgets.cells import close_with_cell, forget

__all__ = ["FRAMES_PER_S", "LiveView", "stop_all"]

log = logging.getLogger(__name__)

FRAMES_PER_S = 5.0
MOST_FRAMES_PER_S = 30.0
#: Share of one CPU that a view may use; a frame that is dearer is followed by a longer pause.
MOST_CPU = 0.15
#: How often the sentence changes: a screen reader needs longer than a fifth of a second to say it.
WORDS_EVERY_S = 2.0
#: A view that nobody stops ends by itself: the reader may have gone.
RUN_FOR_S = 300.0
_JOIN_S = 2.0

Sample = TypeVar("Sample")


class LiveView(Generic[Sample]):
    """A picture that moves, with its controls, its buttons and its sentence; show it as the last line of a cell.

    ``take`` returns a sample and is cheap; ``chart`` draws it; ``describe`` says it in a sentence. ``title`` names the view in its
    ``repr``, which is the same on every machine; ``alt`` says what kind of picture it is. ``controls`` stand above the picture:
    a control that is moved while the view stands still gives one new frame. ``on_close`` is called once, at the end.
    Raises: InvalidSpec for an empty title, an alt that says nothing, or a rate that is not above 0 and at most 30.
    """

    def __init__(
        self,
        take: Callable[[], Sample],
        chart: Chart[Sample],
        *,
        title: str,
        alt: str,
        describe: Callable[[Sample], str],
        controls: Sequence[Any] = (),
        size_in: tuple[float, float] = (6.4, 2.6),
        frames_per_s: float = FRAMES_PER_S,
        run_for_s: float = RUN_FOR_S,
        on_close: Callable[[], None] | None = None,
    ) -> None:
        if not title.strip() or not 0 < frames_per_s <= MOST_FRAMES_PER_S:
            raise InvalidSpec(
                f"a live view needs a title, and more than 0 and at most {MOST_FRAMES_PER_S:g} frames a second."
            )
        self.title, self.alt = title, checked_alt(alt)
        self.frames_drawn, self.sentence, self.closed = 0, "", False
        self._take, self._describe, self._on_close = take, describe, on_close
        self._period_s, self._run_for_s, self._said_s = 1 / frames_per_s, run_for_s, float("-inf")
        self._frames = Frames(chart, width_in=size_in[0], height_in=size_in[1])
        self._drawing, self._state, self._stop = threading.Lock(), threading.RLock(), threading.Event()
        self._thread: threading.Thread | None = None
        self.widget = self._build(controls)
        self.refresh()
        self._still = Picture(self.png, alt=f"{self.alt.rstrip('.')}. {self.sentence}", width_px=self._frames.width_px)
        weakref.finalize(self, layout.close_tree, self.widget).atexit = False
        _open_views.add(self)
        close_with_cell(self)

    def __repr__(self) -> str:
        return f"Live view: {self.title}"

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        """Return the widget, and the first frame with its sentence for a notebook without a process; IPython calls this."""
        picture = picture_html(self._still.png, alt=self._still.alt, width_px=self._still.width_px)
        words = f"<p>{html.escape(self._still.alt)} (Run this cell to see it move.)</p>"
        return layout.mimebundle(self.widget, plain=repr(self), html_text=picture + words)

    @property
    def running(self) -> bool:
        """True while a thread draws."""
        thread = self._thread
        return thread is not None and thread.is_alive() and not self._stop.is_set()

    @property
    def png(self) -> bytes:
        """The frame on show."""
        return bytes(self._image.value)

    def start(self) -> None:
        """Begin to draw in a thread; does nothing if one draws already or the view is closed."""
        with self._state:
            if self.closed or self.running:
                return
            self._stop = threading.Event()
            until_s = time.monotonic() + self._run_for_s
            # Between two frames the thread holds only a weak reference: it must not be what keeps the view alive.
            arguments = (weakref.ref(self), self._stop, self._period_s, until_s)
            self._thread = threading.Thread(target=_draw_until, args=arguments, name="labkit-live-view", daemon=True)
            self._show_buttons(running=True, said="Running.")
            self._thread.start()

    def stop(self, *, reason: str = "Stopped.") -> None:
        """End the drawing; returns when no frame is being drawn any more. Safe to call twice."""
        with self._state:
            thread, self._thread = self._thread, None
            self._stop.set()
        if thread is None:
            return
        if thread is not threading.current_thread():
            thread.join(_JOIN_S)
        if not self.closed:
            self._show_buttons(running=False, said=reason)

    def close(self) -> None:
        """Stop for good, end what ``on_close`` ends, and take the widgets from the page; safe to call twice."""
        with self._state:
            if self.closed:
                return
            self.closed = True
        self.stop()
        forget(self)
        layout.close_tree(self.widget)
        if self._on_close is not None:
            self._on_close()

    def refresh(self) -> None:
        """Draw one frame now, from a new sample."""
        with self._drawing:
            if self.closed:
                return
            sample = self._take()
            png = self._frames.png(sample)
            if png != self._image.value:
                self._image.value = png
            self.frames_drawn += 1
            now_s = time.monotonic()
            if now_s - self._said_s >= WORDS_EVERY_S or not self.running:
                self.sentence, self._said_s = self._describe(sample), now_s
                layout.say(self._words, self.sentence)

    def _build(self, controls: Sequence[Any]) -> Any:
        """Return the widgets as one; their callbacks hold the view weakly, because ipywidgets keeps every open widget."""
        me = weakref.ref(self)
        self._image = layout.picture(self.alt, width_px=self._frames.width_px)
        self._words, self._line = layout.status(), layout.status("Not running: press Start.")
        self._start_button = layout.button("Start", does=f"Start: {self.title}", on_click=lambda: _call(me, "start"))
        self._stop_button = layout.button("Stop", does=f"Stop: {self.title}", on_click=lambda: _call(me, "stop"))
        self._stop_button.disabled = True
        for control in controls:
            if control.has_trait("value"):
                control.observe(lambda _: _call(me, "_control_moved"), names="value")
        buttons = layout.row(self._start_button, self._stop_button, self._line)
        made = layout.column(*controls, buttons, self._image, self._words)
        if hasattr(made.comm, "on_close"):  # without a jupyter_kernel the comm is a dummy
            made.comm.on_close(lambda _: _call(me, "close"))
        return made

    def _control_moved(self) -> None:
        if not self.running:
            self.refresh()

    def _show_buttons(self, *, running: bool, said: str) -> None:
        self._start_button.disabled, self._stop_button.disabled = running, not running
        layout.say(self._line, said)


_open_views: weakref.WeakSet[LiveView[Any]] = weakref.WeakSet()


@atexit.register
def stop_all() -> None:
    """Stop every view of this process; called at its end, when a thread must not draw any more."""
    for view in list(_open_views):
        view.stop()


def _call(me: weakref.ref[LiveView[Any]], method: str) -> None:
    view = me()
    if view is not None:
        getattr(view, method)()


def _draw_until(me: weakref.ref[LiveView[Any]], stop: threading.Event, period_s: float, until_s: float) -> None:
    """Draw until ``stop`` is set, the time is over, the view is gone, or what is measured has ended."""
    pause_s = 0.0
    while not stop.wait(pause_s):
        view = me()
        if view is None:
            return
        begun_s, begun_cpu_s = time.monotonic(), time.thread_time()
        if begun_s >= until_s:
            view.stop(reason="Stopped, to spare the machine. Press Start to go on.")
            return
        try:
            view.refresh()
        except (LabkitError, OSError) as error:
            log.debug("live view %s ended: %s", view.title, error)
            view.stop(reason=f"Stopped: {error}")
            return
        del view
        spent_s, spent_cpu_s = time.monotonic() - begun_s, time.thread_time() - begun_cpu_s
        pause_s = max(period_s, spent_cpu_s / MOST_CPU) - spent_s

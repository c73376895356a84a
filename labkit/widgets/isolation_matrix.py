"""The isolation matrix: tick namespaces, and a new process in exactly these looks out and reports what it still sees.

Each tick starts one process, which probes and ends; between two ticks nothing runs. The picture shows windows in a wall, the table
below it says the same in words, with what both sides show and how it was found out.

Leaves out: choices that Linux itself refuses; the reason then stands in the line below the boxes.
See: `labkit.measure.isolation` (the probes), `labkit.charts.isolation` (the picture).
"""

from __future__ import annotations

import html
import threading
import weakref
from collections.abc import Callable
from typing import Any

from labkit.charts.frames import Frames
from labkit.charts.isolation import Wall
from labkit.charts.show import Picture, picture_html
from labkit.errors import LabkitError
from labkit.isolation.namespaces import describe
from labkit.linux.constants import NS, NS_FILES
from labkit.measure.isolation import PROBES, Isolation, probe_isolation
from labkit.widgets import layout
from labkit.widgets.cells import close_with_cell, forget

__all__ = ["IsolationView"]

_ALT = "Windows in a wall between a process and its host, one for each probe"
_SIZE_IN = (6.4, 3.8)
_LONGEST = 40


class IsolationView:
    """Eight boxes, a picture, a sentence and a table; show it as the last line of a cell. ``ticked`` is how it begins.

    ``probe`` takes the choice of namespaces and returns what was found. Raises: LabkitError if the first probe fails.
    """

    def __init__(self, ticked: NS | None = None, *, probe: Callable[[NS], Isolation] = probe_isolation) -> None:
        self.ticked = ticked or NS(0)
        self.result: Isolation | None = None
        self.sentence, self.probes_made, self.closed = "", 0, False
        self._probe, self._lock = probe, threading.Lock()
        self._frames = Frames(Wall(), width_in=_SIZE_IN[0], height_in=_SIZE_IN[1])
        self._boxes: dict[NS, Any] = {}
        self.widget = self._build()
        self.look()
        self._still = Picture(self.png, alt=f"{_ALT}. {self.sentence}", width_px=self._frames.width_px)
        self._still_table = str(self._table.value)
        weakref.finalize(self, layout.close_tree, self.widget).atexit = False
        close_with_cell(self)

    def __repr__(self) -> str:
        return "Live view: what a process in namespaces can see"

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        """Return the widget, and the first picture with its table for a notebook without a process; IPython calls this."""
        picture = picture_html(self._still.png, alt=self._still.alt, width_px=self._still.width_px)
        words = f"<p>{html.escape(self._still.alt)} (Run this cell to tick namespaces.)</p>"
        return layout.mimebundle(self.widget, plain=repr(self), html_text=picture + words + self._still_table)

    @property
    def png(self) -> bytes:
        """The picture on show."""
        return bytes(self._image.value)

    def tick(self, namespaces: NS) -> Isolation | None:
        """Tick exactly ``namespaces``, as with the mouse; return what was found (None: refused)."""
        for kind, box in self._boxes.items():
            box.unobserve_all("value")
            box.value = bool(kind & namespaces)
            self._watch(box)
        self._moved()
        return self.result

    def look(self) -> None:
        """Start a process in the namespaces that are ticked, and show what it found. Raises: LabkitError."""
        with self._lock:
            if self.closed:
                return
            wanted = self.ticked
            result = self._probe(wanted)
            self.probes_made += 1
            self.result, self.sentence = result, _sentence(result)
            self._image.value = self._frames.png(result)
            self._table.value = _table(result)
            layout.say(self._words, self.sentence)

    def close(self) -> None:
        """Take the widgets from the page; safe to call twice."""
        if self.closed:
            return
        self.closed = True
        forget(self)
        layout.close_tree(self.widget)

    def _build(self) -> Any:
        for kind in NS_FILES:
            text = describe(kind)
            # The box's own name is short; what it separates is in the tooltip and in the lesson.
            self._boxes[kind] = box = layout.checkbox(
                text.name, does=f"A namespace of its own for: {text.separates}", checked=bool(kind & self.ticked)
            )
            self._watch(box)
        me = weakref.ref(self)
        every = layout.button("All", does="Tick all eight", on_click=lambda: _tick(me, NS(sum(NS_FILES))))
        none = layout.button("None", does="Untick all eight", on_click=lambda: _tick(me, NS(0)))
        self._image = layout.picture(_ALT, width_px=self._frames.width_px)
        self._words, self._table = layout.status(), _html_widget()
        group = layout.heading("Namespaces of its own for the process", "")
        boxes = layout.row(*self._boxes.values(), every, none)
        return layout.column(group, boxes, self._words, self._image, self._table)

    def _watch(self, box: Any) -> None:
        me = weakref.ref(self)
        box.observe(lambda _: _call_moved(me), names="value")

    def _moved(self) -> None:
        self.ticked = NS(sum(kind for kind, box in self._boxes.items() if box.value))
        try:
            self.look()
        except (LabkitError, OSError) as error:
            self.result = None
            layout.say(self._words, f"Not possible: {error}")


def _tick(me: weakref.ref[IsolationView], namespaces: NS) -> None:
    view = me()
    if view is not None:
        view.tick(namespaces)


def _call_moved(me: weakref.ref[IsolationView]) -> None:
    view = me()
    if view is not None:
        view._moved()


def _html_widget() -> Any:
    import ipywidgets

    return ipywidgets.HTML()


def _sentence(result: Isolation) -> str:
    known = [finding for finding in result.findings if finding.sees_host is not None]
    own = [finding.title for finding in known if not finding.sees_host]
    names = ", ".join(describe(kind).name for kind, file in NS_FILES.items() if file in result.namespaces)
    inside = f"In namespaces of its own ({names})" if names else "Without a namespace of its own"
    hidden = f"{len(own)} of {len(known)} things are hidden from it" + (f": {', '.join(own)}" if own else "")
    if own and len(own) == len(known):
        hidden = f"all {len(own)} things that were looked for are hidden from it"
    note = f" Beside that, {result.note}." if result.note else ""
    return f"{inside}, {hidden}.{note}"


def _table(result: Isolation) -> str:
    methods = {probe.name: probe.method for probe in PROBES}
    rows = [
        (f.title, f.verdict, _shortened(f.host), _shortened(f.inside), methods.get(f.probe, ""))
        for f in result.findings
    ]
    heads = ("what", "a process inside", "the host shows", "inside shows", "found out by")
    return layout.table_html(heads, rows, caption="The same in words")


def _shortened(text: str) -> str:
    """Return the end of a long path: where a cgroup lies on this machine is not the point."""
    return text if len(text) <= _LONGEST or not text.startswith("/") else f"…/{text.rpartition('/')[2]}"

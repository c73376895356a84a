"""What a build tells while it runs, and two ways to write it down.

The builder calls ``progress(event)``. `classic_text` writes events as Docker's first builder did, which other programs read
(``Step 1/3 : FROM …``, `` ---> Using cache``, ``Successfully built 0123456789ab``); `Table` writes one line a step: what was done, whether it
came from the cache and why not, how long it took, and how large the layer is.

See: docker-build(1); Docker Engine API, "Build an image".
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TextIO

from labkit import units
from labkit.image.descriptor import short_id

__all__ = ["Event", "Progress", "Table", "classic_text"]

_TEXT_WIDTH = 56


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened.

    ``step``: a step begins. ``running``: a container ``name`` runs its command. ``output``: it wrote ``text``. ``done``: the step has made the
    image ``image_id``; ``cached`` says that nothing had to be done, ``why`` why something had to. ``built``: the end; ``text`` is a tag or empty.
    ``warning``: ``text`` says what.
    """

    kind: Literal["step", "running", "output", "done", "built", "warning"]
    number: int = 0
    total: int = 0
    line: int = 0
    stage: str = ""
    text: str = ""
    name: str = ""
    image_id: str = ""
    cached: bool = False
    why: str = ""
    layer_bytes: int | None = None
    elapsed_s: float = 0.0
    is_error_output: bool = False


Progress = Callable[[Event], None]


def classic_text(event: Event) -> str:
    """Return what Docker's classic builder writes for ``event``; it may be several lines, or nothing."""
    short = short_id(event.image_id) if event.image_id else ""
    if event.kind == "step":
        return f"Step {event.number}/{event.total} : {event.text}\n"
    if event.kind == "running":
        return f" ---> Running in {event.name[-12:]}\n"
    if event.kind == "output":
        return event.text
    if event.kind == "done":
        if event.cached:
            return f" ---> Using cache\n ---> {short}\n"
        removed = f" ---> Removed intermediate container {event.name[-12:]}\n" if event.name else ""
        return f"{removed} ---> {short}\n"
    if event.kind == "built":
        return f"Successfully tagged {event.text}\n" if event.text else f"Successfully built {short}\n"
    return f"[Warning] {event.text}\n"


class Table:
    """Writes a build to ``out`` as a table, a line a step; what commands print stands indented between the lines."""

    def __init__(self, out: TextIO, *, quiet: bool = False) -> None:
        self._out = out
        self._quiet = quiet
        self._step = Event("step")
        self._at_line_start = True

    def __call__(self, event: Event) -> None:
        """Write one event."""
        if self._quiet:
            return
        if event.kind == "step":
            self._step = event
        elif event.kind == "output":
            self._write_output(event.text)
        elif event.kind == "done":
            self._end_output()
            self._out.write(f"{self.line(event)}\n")
        elif event.kind == "warning":
            self._end_output()
            self._out.write(f"      warning: {event.text}\n")
        self._out.flush()

    def line(self, event: Event) -> str:
        """Return the line of a step that is done."""
        text = " ".join(self._step.text.split())
        shown = text if len(text) <= _TEXT_WIDTH else f"{text[: _TEXT_WIDTH - 1]}…"
        size = "" if event.layer_bytes is None else units.format_bytes(event.layer_bytes)
        state = "cached" if event.cached else f"{event.elapsed_s:.2f} s"
        why = f"  miss: {event.why}" if event.why else ""
        return f"{event.number:>3}/{event.total}  {shown:<{_TEXT_WIDTH}}  {state:>8}  {size:>10}{why}".rstrip()

    def _write_output(self, text: str) -> None:
        for piece in text.splitlines(keepends=True):
            self._out.write(f"      | {piece}" if self._at_line_start else piece)
            self._at_line_start = piece.endswith("\n")

    def _end_output(self) -> None:
        if not self._at_line_start:
            self._out.write("\n")
        self._at_line_start = True

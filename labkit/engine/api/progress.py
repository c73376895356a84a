"""Progress streams: work that reports while it goes on, turned into lines of JSON for the client.

The work runs in a thread of its own and puts messages into a queue; the connection takes them out. When the client goes away, the
work is told to stop by the next message it sends. An error after the headers have gone is a message with ``error`` and ``errorDetail``.

See: Docker Engine API, "Create an image", "Build an image".
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any

from labkit.engine.wire.reply import Stream, json_lines
from labkit.errors import LabkitError

__all__ = ["Cancelled", "Say", "error_message", "progress_stream"]

Say = Callable[[dict[str, Any]], None]
_MOST_WAITING = 1000
_LOOK_S = 1.0


class Cancelled(LabkitError):
    """The client that asked for the work has gone."""


def error_message(error: Exception, *, code: int = 0) -> dict[str, Any]:
    """Return the message that says that the work failed."""
    detail: dict[str, Any] = {"message": str(error)}
    if code:
        detail = {"code": code, **detail}
    return {"errorDetail": detail, "error": str(error)}


def progress_stream(work: Callable[[Say], None], *, on_gone: Callable[[], None] = lambda: None) -> Stream:
    """Return a reply that carries ``work`` out and sends what it says; ``on_gone`` is called if the client goes away."""
    return Stream(_lines(work, on_gone))


def _lines(work: Callable[[Say], None], on_gone: Callable[[], None]) -> Iterator[bytes]:
    messages: queue.Queue[dict[str, Any] | None] = queue.Queue(_MOST_WAITING)
    gone = threading.Event()

    def say(message: dict[str, Any]) -> None:
        while not gone.is_set():
            try:
                messages.put(message, timeout=_LOOK_S)
                return
            except queue.Full:
                continue
        raise Cancelled("The client has gone.")

    def run() -> None:
        try:
            work(say)
        except Cancelled:
            pass
        except (LabkitError, OSError) as error:
            if not gone.is_set():
                messages.put(
                    error_message(
                        error, code=getattr(error, "code", 0) if isinstance(getattr(error, "code", 0), int) else 0
                    )
                )
        finally:
            if not gone.is_set():
                messages.put(None)

    worker = threading.Thread(target=run, name="progress", daemon=True)
    worker.start()
    try:
        while True:
            try:
                message = messages.get(timeout=_LOOK_S)
            except queue.Empty:
                yield b""
                continue
            if message is None:
                return
            yield from json_lines([message])
    finally:
        gone.set()
        if worker.is_alive():
            on_gone()

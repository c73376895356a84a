"""An event loop: one thread that waits for many descriptors at once, and does what other threads ask of it.

All streams of all containers are moved by this one thread, so their state needs no locks. Other threads (one a request of the
engine) have their work done here with `call`.

See: epoll(7), eventfd(2).
"""

from __future__ import annotations

import heapq
import itertools
import logging
import os
import queue
import select
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from labkit.errors import LabkitError

__all__ = ["READ", "WRITE", "Loop"]

log = logging.getLogger(__name__)
T = TypeVar("T")

#: What a handler may run into. The loop goes on: one damaged stream must not take every container along.
_ERRORS = (LabkitError, OSError, LookupError, TypeError, ValueError, AttributeError, RuntimeError)
READ, WRITE = select.EPOLLIN, select.EPOLLOUT


class Loop:
    """Handlers by descriptor, timers, and a queue of calls from other threads."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._handlers: dict[int, Callable[[int], None]] = {}
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._calls: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._stopped = False
        self._thread: int | None = None
        self.add(self._wake_fd, READ, lambda _: self._take_calls())

    def add(self, fd: int, events: int, handler: Callable[[int], None]) -> None:
        """Have ``handler`` called with the events whenever ``fd`` is ready."""
        self._handlers[fd] = handler
        self._epoll.register(fd, events)

    def change(self, fd: int, events: int) -> None:
        """Wait for other ``events`` of ``fd`` from now on; none pauses it."""
        self._epoll.modify(fd, events)

    def remove(self, fd: int) -> None:
        """Forget ``fd``; must come before it is closed."""
        if self._handlers.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def later(self, delay_s: float, what: Callable[[], None]) -> None:
        """Call ``what`` once, ``delay_s`` from now."""
        heapq.heappush(self._timers, (time.monotonic() + delay_s, next(self._numbers), what))

    def post(self, what: Callable[[], Any]) -> None:
        """Have ``what`` called in the loop's thread, soon."""
        self._calls.put(what)
        os.eventfd_write(self._wake_fd, 1)

    def call(self, what: Callable[[], T]) -> T:
        """Have ``what`` called in the loop's thread, and return what it returns or raise what it raises."""
        if self._thread == threading.get_ident():
            return what()
        answer: Future[T] = Future()

        def carry_out() -> None:
            try:
                answer.set_result(what())
            except _ERRORS as error:
                answer.set_exception(error)

        self.post(carry_out)
        return answer.result()

    def run(self) -> None:
        """Serve until `stop`."""
        self._thread = threading.get_ident()
        while not self._stopped:
            timeout_s = max(0.0, self._timers[0][0] - time.monotonic()) if self._timers else None
            for fd, events in self._epoll.poll(timeout_s):
                self._handle(fd, events)
            while self._timers and self._timers[0][0] <= time.monotonic():
                self._try(heapq.heappop(self._timers)[2])

    def _handle(self, fd: int, events: int) -> None:
        handler = self._handlers.get(fd)
        if handler is not None:  # a handler before it may have removed this one
            self._try(lambda: handler(events))

    def _try(self, what: Callable[[], None]) -> None:
        try:
            what()
        except _ERRORS:
            log.exception("a handler failed")

    def stop(self) -> None:
        """End `run` after the events at hand."""
        self._stopped = True

    def _take_calls(self) -> None:
        os.eventfd_read(self._wake_fd)
        while True:
            try:
                what = self._calls.get_nowait()
            except queue.Empty:
                return
            self._try(what)

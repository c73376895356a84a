"""A session: one attached client of a container, seen from the keeper.

The engine gives the keeper one end of a socket pair. What the container writes goes out there, framed as the client wants it; what
comes in goes to the container's standard input. Output that the client has not taken yet waits here, and when too much
waits the container's output is not read any further, as a pipe would do it: nothing is lost for a slow client. But a client that
takes nothing at all for `STALL_S` is dropped, or it could stop a container for ever.

See: unix(7), pipe(7).
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from labkit.engine.keeper.loop import READ, WRITE, Loop
from labkit.engine.wire.frames import frame

if TYPE_CHECKING:
    from labkit.engine.keeper.kept import Kept

__all__ = ["STALL_S", "Session"]

#: How much may wait for a client before the container has to wait, too; and for how long it waits without any progress.
HIGH_BYTES, STALL_S = 256 << 10, 10.0
_READ_BYTES = 32 << 10


class Session:
    """One attached client. ``streams`` are those it wants to hear (1, 2); ``stdin`` says that it may speak."""

    def __init__(
        self, loop: Loop, sock: socket.socket, *, streams: frozenset[int], stdin: bool, on_close: Callable[[Session], None]
    ) -> None:  # fmt: skip
        self._loop, self._sock = loop, sock
        self.streams, self.stdin = streams, stdin
        self.raw = False
        self.kept: Kept | None = None
        self._on_close = on_close
        self._waiting = bytearray()
        self._ending = False
        self._events = READ
        self._last_progress_s = time.monotonic()
        self.is_open = True
        sock.setblocking(False)  # noqa: FBT003 - the function takes it only so
        loop.add(sock.fileno(), READ, self._ready)

    @property
    def is_full(self) -> bool:
        """True while the container must wait for this client."""
        return len(self._waiting) > HIGH_BYTES

    def offer(self, stream: int, data: bytes) -> None:
        """Give the client a piece of output, if it listens to that stream."""
        if not self.is_open or stream not in self.streams:
            return
        if not self._waiting:
            self._last_progress_s = time.monotonic()
        self._waiting += data if self.raw else frame(stream, data)
        self._flush()
        if self.is_full:
            self._loop.later(STALL_S, self._check_stall)

    def finish(self) -> None:
        """Close once the client has taken everything (or nothing for too long)."""
        self._ending = True
        self._flush()
        if self.is_open:
            self._loop.later(STALL_S, self._check_stall)

    def close(self) -> None:
        """Let go of the client now."""
        if self.is_open:
            self.is_open = False
            self._loop.remove(self._sock.fileno())
            self._sock.close()
            self._waiting.clear()
            self._on_close(self)

    def want_input(self, *, wanted: bool) -> None:
        """Read, or stop reading, what the client sends."""
        self._set_events((self._events & ~READ) | (READ if wanted else 0))

    def _set_events(self, events: int) -> None:
        if self.is_open and events != self._events:
            self._events = events
            self._loop.change(self._sock.fileno(), events)

    def _check_stall(self) -> None:
        quiet_s = time.monotonic() - self._last_progress_s
        if not self.is_open or not (self.is_full or self._ending):
            return
        if quiet_s >= STALL_S:
            self.close()
        else:
            self._loop.later(STALL_S - quiet_s, self._check_stall)

    def _ready(self, events: int) -> None:
        if events & ~READ:
            self._flush()
        if self.is_open and events & ~WRITE:
            self._read()

    def _flush(self) -> None:
        was_full = self.is_full
        try:
            while self._waiting:
                sent = self._sock.send(self._waiting)
                del self._waiting[:sent]
                self._last_progress_s = time.monotonic()
        except BlockingIOError:
            pass
        except OSError:
            self.close()
            return
        if self._ending and not self._waiting:
            self.close()
            return
        self._set_events((self._events & ~WRITE) | (WRITE if self._waiting else 0))
        if was_full and not self.is_full and self.kept is not None:
            self.kept.go_on()

    def _read(self) -> None:
        try:
            data = self._sock.recv(_READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data and self.stdin and self.kept is not None:
            self.kept.feed(data)
            if self.kept.input_is_full:
                self.want_input(wanted=False)
        elif not data:
            # The client's half: its input has ended; output still goes to it.
            self._events &= ~READ
            self._loop.change(self._sock.fileno(), self._events)
            if self.stdin and self.kept is not None:
                self.kept.end_input()

"""Reading from a socket with limits on silence, on slowness and on the whole: client and server both need them.

A time limit on ``recv(2)`` ends a peer that says nothing. It does not end one that sends a byte a second: each byte starts the clock
again. So a reader also has a *pace*: after a time of grace, what has come so far must have come at no less than a number of
bytes a second. For the head of a message, where no length is known, the pace is none and the grace is the whole time there is.

Leaves out: the writing half. ``socket.sendall`` counts its time limit over the whole call, which bounds a peer that reads slowly.
See: recv(2), socket(7) (SO_RCVTIMEO), Python's socket.settimeout.
"""

from __future__ import annotations

import io
import math
import socket
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from _typeshed import WriteableBuffer

__all__ = ["Pace", "PatientReader"]


@dataclass(frozen=True, slots=True)
class Pace:
    """How slow a peer may be: ``silence_s`` without a byte; ``grace_s``, and after that ``least_bytes_per_s`` on average."""

    silence_s: float
    grace_s: float
    least_bytes_per_s: float = math.inf

    def deadline_s(self, begun_s: float, received: int) -> float:
        """Return the latest moment for the next byte of a message that began at ``begun_s``."""
        return begun_s + self.grace_s + received / self.least_bytes_per_s


class PatientReader(io.RawIOBase):
    """The reading half of a connected socket. Raises: TimeoutError when the peer is too slow.

    ``count`` is told the number of bytes of each read, for who wants to know what really travels.
    """

    def __init__(self, connection: socket.socket, pace: Pace, *, count: Callable[[int], object] | None = None) -> None:
        # Holds the descriptor open after connection.close(), as http.client expects of makefile().
        self._raw = connection.makefile("rb", buffering=0)
        self._connection, self._count = connection, count
        self.keep(pace)

    def keep(self, pace: Pace) -> None:
        """Begin a new message, with ``pace`` for it."""
        self._pace, self._begun_s, self._received = pace, time.monotonic(), 0

    def readable(self) -> bool:
        """Say that this stream can be read."""
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        """Fill ``buffer`` with what is there, at least one byte; 0 at the end."""
        left_s = self._pace.deadline_s(self._begun_s, self._received) - time.monotonic()
        if left_s <= 0:
            raise TimeoutError(f"only {self._received} bytes came in {time.monotonic() - self._begun_s:.0f} seconds")
        self._connection.settimeout(min(self._pace.silence_s, left_s))
        got = self._raw.readinto(buffer) or 0
        self._received += got
        if self._count is not None and got:
            self._count(got)
        return got

    def close(self) -> None:
        """Let go of the descriptor."""
        if not self.closed:
            self._raw.close()
        super().close()

"""Hashing in a thread of its own: the digest of what somebody else decompresses, computed on another processor meanwhile.

`hashlib` lets other threads run while it works on more than a few bytes, so this is one of the things that threads of Python do at the same time.

See: `hashlib`, "update"; OCI Image Specification, config.md ("DiffID").
"""

from __future__ import annotations

import hashlib
from threading import Thread
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from queue import Queue

__all__ = ["BackgroundHash"]

#: Parts that may wait: enough for both sides to go on, and little memory.
_MOST_WAITING = 2


class BackgroundHash:
    """A hash of parts in their order. The thread begins with the first part and ends with `digest` or `close`."""

    def __init__(self, algorithm: str) -> None:
        self._hash = hashlib.new(algorithm)
        self._parts: Queue[bytes] | None = None
        self._thread: Thread | None = None

    def update(self, data: bytes) -> None:
        """Hash ``data`` soon; waits if the thread is behind."""
        if not data:
            return
        if self._parts is None:
            from queue import Queue

            self._parts = Queue(_MOST_WAITING)
            self._thread = Thread(target=self._work, args=(self._parts,), name="labkit-hash", daemon=True)
            self._thread.start()
        self._parts.put(data)

    def digest(self) -> str:
        """Return the digest of everything so far, as in ``sha256:…``, when the thread has come to its end."""
        self.close()
        return f"{self._hash.name}:{self._hash.hexdigest()}"

    def close(self) -> None:
        """End the thread; safe to call twice."""
        if self._parts is not None and self._thread is not None:
            self._parts.put(b"")
            self._thread.join()
        self._parts = self._thread = None

    def _work(self, parts: Queue[bytes]) -> None:
        while data := parts.get():
            self._hash.update(data)

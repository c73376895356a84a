"""The folder that one engine keeps everything in, held by a lock as long as the engine lives.

The lock is the kernel's (flock): it goes with the process, however that ends.

See: flock(2), `labkit.engine.engine` for what is in it.
"""

from __future__ import annotations

import fcntl
import os

from labkit.errors import InvalidState
from labkit.linux.fds import Fd

__all__ = ["StateFolder"]


class StateFolder:
    """The folder ``path``, which is made if need be."""

    def __init__(self, path: str) -> None:
        """Take the folder. Raises: InvalidState if another engine has it, OSError."""
        self.path = os.path.abspath(path)
        os.makedirs(self.path, 0o700, exist_ok=True)
        os.makedirs(f"{self.path}/keeper", 0o700, exist_ok=True)
        self._lock = Fd(os.open(f"{self.path}/lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock.close()
            raise InvalidState(
                f"Another engine uses the state folder {self.path}: end it, or give another --state."
            ) from None

    def close(self) -> None:
        """Let others have it."""
        self._lock.close()

"""One keeper a folder: it holds a lock as long as it lives, so that a living one is never taken for a dead one.

A socket alone cannot tell: a keeper that is just starting has none yet, one that is ending has it still, and two that start at once
would each replace the other's. The lock is the kernel's (flock) and goes with the process, however that ends; its holder's pid
stands in the file. To wait for the lock is to wait for the keeper's end, also for an engine that is not its parent.

See: flock(2).
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterable
from contextlib import suppress

from labkit.linux.fds import Fd

__all__ = ["NAME", "end_holder", "is_free", "take", "wait_until_free"]

NAME = "keeper.lock"
_PAUSE_S = 0.005


def take(folder: str, patience_s: float) -> Fd:
    """Return the lock of ``folder``, held by this process until it is closed. Raises: TimeoutError if another one keeps it."""
    deadline_s = time.monotonic() + patience_s
    lock = _open(folder)
    while not _lock(lock):
        if time.monotonic() > deadline_s:
            lock.close()
            raise TimeoutError(f"another keeper holds {folder}")
        time.sleep(_PAUSE_S)
    os.truncate(lock.number, 0)
    os.pwrite(lock.number, str(os.getpid()).encode(), 0)
    return lock


def is_free(folder: str) -> bool:
    """Tell whether no keeper of ``folder`` lives. A folder that is gone has none that could be found."""
    try:
        with _open(folder) as lock:
            return _lock(lock)
    except FileNotFoundError:
        return True


def wait_until_free(folder: str, patience_s: float) -> bool:
    """Wait for the end of the keeper of ``folder``; False if it still lives after ``patience_s``."""
    deadline_s = time.monotonic() + patience_s
    while not is_free(folder):
        if time.monotonic() > deadline_s:
            return False
        time.sleep(_PAUSE_S)
    return True


def end_holder(folder: str, numbers: Iterable[int], patience_s: float) -> None:
    """Make the keeper of ``folder`` end: with one signal after the other, each with ``patience_s`` to work."""
    for number in numbers:
        if is_free(folder):
            return
        with _open(folder) as lock, suppress(ProcessLookupError, ValueError):
            # Whoever holds the lock has written this, so the pid cannot have gone to a stranger.
            os.kill(int(os.pread(lock.number, 20, 0)), number)
        wait_until_free(folder, patience_s)


def _open(folder: str) -> Fd:
    return Fd(os.open(f"{folder}/{NAME}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))


def _lock(lock: Fd) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True

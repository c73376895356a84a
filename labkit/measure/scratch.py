"""Temporary folders that are removed even when their maker was killed.

A folder ``labkit-scratch-XXXX`` is held by a lock (flock(2)) for as long as its maker lives. The kernel drops the lock when the
maker ends, however it ends, so whoever can take it knows that the folder is a leftover: ``labkit clean`` removes it, and so does
whoever makes the next one.

Leaves out: folders of other users.
See: flock(2), mkdtemp(3).
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from labkit.linux.fds import Fd

__all__ = ["PREFIX", "find_dead_scratch", "remove_dead_scratch", "scratch_folder"]

PREFIX = "labkit-scratch-"
_GRACE_S = 2.0


@contextmanager
def scratch_folder(*, mode: int = 0o755) -> Iterator[Path]:
    """Give an empty folder with ``mode``, and remove it with everything in it at the end.

    By default others may look into it: a container's root is another user than its maker.
    """
    for left in find_dead_scratch():
        remove_dead_scratch(left)
    folder, lock = _make()
    with lock:
        folder.chmod(mode)
        try:
            yield folder
        finally:
            _remove(folder)


def _make() -> tuple[Path, Fd]:
    while True:
        folder = Path(tempfile.mkdtemp(prefix=PREFIX))
        try:
            lock = Fd(os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except (FileNotFoundError, BlockingIOError):
            continue  # `labkit clean` was faster than the lock and took it for a leftover
        if folder.is_dir():
            return folder, lock
        lock.close()


def find_dead_scratch() -> list[Path]:
    """Return this user's scratch folders whose maker is gone."""
    folders = sorted(Path(tempfile.gettempdir()).glob(f"{PREFIX}*"))
    return [folder for folder in folders if _is_own_folder(folder) and _take(folder, lambda _: None)]


def remove_dead_scratch(folder: Path) -> None:
    """Remove ``folder`` unless somebody holds it by now."""
    _take(folder, _remove)


def _remove(folder: Path) -> None:
    """Remove ``folder``; a program that somebody detached (podman's clean-up) may still be writing to it for a moment."""
    deadline_s = time.monotonic() + _GRACE_S
    while True:
        try:
            shutil.rmtree(folder)
            return
        except FileNotFoundError:
            if not folder.exists():
                return
        except OSError as error:
            if error.errno != errno.ENOTEMPTY or time.monotonic() > deadline_s:
                raise
            time.sleep(0.01)


def _is_own_folder(folder: Path) -> bool:
    try:
        status = folder.lstat()
    except FileNotFoundError:
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid()


def _take(folder: Path, action: Callable[[Path], object]) -> bool:
    """Do ``action`` while nobody else can hold ``folder``; return False if somebody does."""
    try:
        with Fd(os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)) as fd:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            action(folder)
    except (BlockingIOError, FileNotFoundError):
        return False
    return True

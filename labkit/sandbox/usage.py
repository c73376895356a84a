"""How full ``~/work`` is: the one folder of a sandbox that lies on the machine's disk, where no tmpfs limits it.

Few file systems are set up with quotas for folders, so the server counts: it walks the folder every second or so while the kernel
runs, and ends a sandbox that has made it too full. What is written within that second goes beyond the limit; a single file cannot
(RLIMIT_FSIZE). A sandbox that begins with a folder that is too full gets it read-only.

The student's programs own the folder, so names, depth, links and permissions in it may be anything: the walk goes by
descriptors, follows no link, crosses no mount, gives up where it may not look, and stops as soon as a limit is passed.

See: openat(2) (O_NOFOLLOW), getrlimit(2), quotactl(2) for the quotas that this stands in for.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["DiskWatch", "Usage", "UsageLimit", "measure"]

_SECTOR_BYTES = 512
#: The longest part of the time that may go into walking: a twentieth.
_PAUSE_PER_WALK, _SHORTEST_PAUSE_S = 20, 1.0
_MOST_DEPTH = 64


@dataclass(frozen=True, slots=True)
class Usage:
    """What a folder holds, in bytes on disk, and in files and folders; counting ends where a limit is passed."""

    size_bytes: int = 0
    files: int = 0


def measure(folder: str, *, most_bytes: int, most_files: int) -> Usage:
    """Return what ``folder`` holds. A tree deeper than 64 folders counts as too full: nothing ordinary is like that."""
    try:
        top_fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return Usage()
    size_bytes = files = 0
    seen: set[int] = set()
    waiting = [(top_fd, os.fstat(top_fd).st_dev, 0)]
    try:
        while waiting and size_bytes <= most_bytes and files <= most_files:
            fd, device, depth = waiting.pop()
            try:
                for entry in os.scandir(fd):
                    status = entry.stat(follow_symlinks=False)
                    files += 1
                    if status.st_nlink == 1 or status.st_ino not in seen:
                        size_bytes += status.st_blocks * _SECTOR_BYTES
                    if status.st_nlink > 1:
                        seen.add(status.st_ino)
                    if entry.is_dir(follow_symlinks=False) and status.st_dev == device:
                        if depth >= _MOST_DEPTH:
                            return Usage(size_bytes, most_files + 1)
                        below = _open_below(fd, entry.name)
                        waiting += [(below, device, depth + 1)] if below >= 0 else []
            except OSError:
                continue  # changed under our eyes
            finally:
                os.close(fd)
    finally:
        for fd, _, _ in waiting:
            os.close(fd)
    return Usage(size_bytes, files)


def _open_below(fd: int, name: str) -> int:
    try:
        return os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd)
    except OSError:
        return -1


class UsageLimit:
    """Asks now and then whether a folder has become too full."""

    def __init__(self, folder: str, *, most_bytes: int, most_files: int) -> None:
        self.folder = folder
        self.most_bytes = most_bytes
        self.most_files = most_files
        self._next_s = 0.0

    @property
    def wait_s(self) -> float:
        """How long until the next look is due."""
        return max(0.0, self._next_s - time.monotonic())

    def passed(self) -> bool:
        """Look, if it is time to, and tell whether the folder is too full."""
        if self.wait_s > 0:
            return False
        started_s = time.monotonic()
        usage = measure(self.folder, most_bytes=self.most_bytes, most_files=self.most_files)
        elapsed_s = time.monotonic() - started_s
        self._next_s = time.monotonic() + max(_SHORTEST_PAUSE_S, elapsed_s * _PAUSE_PER_WALK)
        return usage.size_bytes > self.most_bytes or usage.files > self.most_files


class DiskWatch:
    """The limits of those folders of one sandbox that lie on the machine's disk; ``full`` are those beyond it from the start."""

    def __init__(self, folders: Iterable[str], *, most_bytes: int, most_files: int) -> None:
        limits = [UsageLimit(folder, most_bytes=most_bytes, most_files=most_files) for folder in folders]
        # What is too full already is shown read-only, or not used: then there is nothing to watch.
        self.full = frozenset(limit.folder for limit in limits if limit.passed())
        self._limits = [limit for limit in limits if limit.folder not in self.full]

    def passed(self) -> bool:
        """Tell whether one of the folders has become too full."""
        return any(limit.passed() for limit in self._limits)

    @property
    def wait_s(self) -> float | None:
        """How long until the next look is due; None if there is nothing to look at."""
        return min((limit.wait_s for limit in self._limits), default=None)

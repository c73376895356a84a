"""What a container has changed in its file tree: its upper layer, compared with the layers below.

OverlayFS notes a change as a copy in the upper folder, a deletion as a *whiteout* (a character device 0:0). What is in the
upper folder and in a layer below is changed, what is there alone is added.

See: Documentation/filesystems/overlayfs.rst in Linux; docker-diff(1).
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

__all__ = ["ADDED", "CHANGED", "DELETED", "Change", "changes", "size_bytes"]

CHANGED, ADDED, DELETED = 0, 1, 2
#: What the engine itself puts into the layer, or mounts over; no change of the container's.
_OWN = {"/.dockerenv", "/dev", "/proc", "/sys", "/etc/hosts", "/etc/hostname", "/etc/resolv.conf"}


@dataclass(frozen=True, slots=True)
class Change:
    """One path and what happened to it: `CHANGED`, `ADDED` or `DELETED`."""

    path: str
    kind: int


def changes(upper: str, lowers: Sequence[str]) -> list[Change]:
    """Return every change, in order of the paths. ``lowers`` are the layers below, topmost first."""
    return sorted(_walk(upper, "", list(lowers)), key=lambda change: change.path)


def _walk(upper: str, inner: str, lowers: list[str]) -> Iterator[Change]:
    with os.scandir(upper + inner) as entries:
        found = sorted(entries, key=lambda entry: entry.name)
    for entry in found:
        path = f"{inner}/{entry.name}"
        status = entry.stat(follow_symlinks=False)
        below = [lower for lower in lowers if os.path.lexists(lower + path)]
        if stat.S_ISCHR(status.st_mode) and status.st_rdev == 0:
            if below:
                yield Change(path, DELETED)
            continue
        if path in _OWN:
            continue
        is_folder = entry.is_dir(follow_symlinks=False)
        inside = list(_walk(upper, path, [] if is_folder and _is_opaque(upper + path) else below)) if is_folder else []
        if not below:
            if not inside and _holds_own(upper, path):
                continue  # an image without /etc: as in Docker, where a layer of its own holds the mount points
            yield Change(path, ADDED)
        elif not is_folder or inside or not _same(status, below[0] + path, with_time=not _holds_own(upper, path)):
            yield Change(path, CHANGED)
        yield from inside


def _is_opaque(path: str) -> bool:
    try:
        return os.getxattr(path, "user.overlay.opaque", follow_symlinks=False) == b"y"
    except OSError:
        return False


def _holds_own(upper: str, path: str) -> bool:
    # The folder is in the layer, with a time of its own, because the engine made its mount points in it: /etc for /etc/hosts.
    return any(os.path.dirname(own) == path and os.path.lexists(upper + own) for own in _OWN)


def _same(status: os.stat_result, lower: str, *, with_time: bool) -> bool:
    other = os.lstat(lower)
    if stat.S_IMODE(other.st_mode) != stat.S_IMODE(status.st_mode):
        return False
    return not with_time or other.st_mtime_ns == status.st_mtime_ns


def size_bytes(upper: str) -> int:
    """Return the bytes of the files in an upper folder; 0 if there is none."""
    total = 0
    for folder, _, files in os.walk(upper):
        for name in files:
            try:
                status = os.lstat(f"{folder}/{name}")
            except FileNotFoundError:
                continue
            total += status.st_size if stat.S_ISREG(status.st_mode) else 0
    return total

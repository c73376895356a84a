"""What the layers below hold at a path: the look-up of OverlayFS, done by hand while a layer is being unpacked.

From the topmost layer down, the first one that has the name decides; a whiteout or something other than a folder on the way ends the
search, and so does an opaque folder, after its own layer.

See: Documentation/filesystems/overlayfs.rst in Linux.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence

from labkit.image import tarheader as tar
from labkit.image import whiteout

__all__ = ["LowerLayers"]

_FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW
_FILE_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_KEPT = ("user.", "security.capability", "system.posix_acl_access")


class _Found:
    """Something at a path: its folder, open, and its status. (No dataclass: that module takes long to load.)"""

    __slots__ = ("parent_fd", "status")

    def __init__(self, parent_fd: int, status: os.stat_result) -> None:
        self.parent_fd = parent_fd
        self.status = status


class LowerLayers:
    """The folders of lower layers, topmost first, by their descriptors."""

    def __init__(self, folder_fds: Sequence[int]) -> None:
        self._folder_fds = tuple(folder_fds)

    def folder(self, path: bytes) -> os.stat_result | None:
        """Return the status of the folder at ``path`` (empty: the root); None if there is none."""
        if not path:
            return os.fstat(self._folder_fds[0]) if self._folder_fds else None
        found = self._find(path)
        if found is None:
            return None
        os.close(found.parent_fd)
        return found.status if stat.S_ISDIR(found.status.st_mode) else None

    def file(self, path: bytes) -> tuple[tar.Entry, int] | None:
        """Return the regular file at ``path`` as an entry, and a descriptor of it; None if there is none."""
        found = self._find(path)
        if found is None:
            return None
        try:
            if not stat.S_ISREG(found.status.st_mode):
                return None
            fd = os.open(path.rpartition(b"/")[2], _FILE_FLAGS, dir_fd=found.parent_fd)
        finally:
            os.close(found.parent_fd)
        status = found.status
        entry = tar.Entry(
            tar.FILE, path, b"", mode=stat.S_IMODE(status.st_mode), uid=status.st_uid, gid=status.st_gid,
            size=status.st_size, mtime_ns=status.st_mtime_ns,
        )  # fmt: skip
        entry.xattrs = {name: os.getxattr(fd, name) for name in os.listxattr(fd) if name.startswith(_KEPT)}
        return entry, fd

    def _find(self, path: bytes) -> _Found | None:
        parts = path.split(b"/")
        for folder_fd in self._folder_fds:
            found, is_over = _look(folder_fd, parts)
            if found is not None or is_over:
                return found
        return None


def _look(folder_fd: int, parts: list[bytes]) -> tuple[_Found | None, bool]:
    """Look for a path in one layer; return what is there, and whether lower layers do not count any more."""
    fd, is_over = os.dup(folder_fd), False
    for part in parts[:-1]:
        status = _lstat_or_none(part, fd)
        if status is None or not stat.S_ISDIR(status.st_mode):
            os.close(fd)
            return None, is_over or status is not None
        parent_fd, fd = fd, os.open(part, _FOLDER_FLAGS, dir_fd=fd)
        os.close(parent_fd)
        is_over = is_over or whiteout.is_opaque(fd)
    status = _lstat_or_none(parts[-1], fd)
    if status is None or whiteout.is_whiteout(status):
        os.close(fd)
        return None, is_over or status is not None
    return _Found(fd, status), True


def _lstat_or_none(name: bytes, dir_fd: int) -> os.stat_result | None:
    try:
        return os.lstat(name, dir_fd=dir_fd)
    except FileNotFoundError:
        return None

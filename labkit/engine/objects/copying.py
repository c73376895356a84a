"""Copying a file tree between two open folders, with owners, modes, times and extended attributes.

Both sides are reached by descriptor only, and links are copied as links, so neither tree can lead the copy anywhere else.

Leaves out: hard links (each becomes a file of its own), sockets.
See: openat(2), xattr(7).
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable
from contextlib import suppress

__all__ = ["copy_tree"]

_DEEPEST = 200


def copy_tree(source_fd: int, target_fd: int, *, owner: Callable[[int], int], depth: int = 0) -> None:
    """Copy everything in the folder ``source_fd`` to the empty folder ``target_fd``, and its own owner and mode.

    ``owner`` translates each uid and gid. Raises: OSError.
    """
    _copy_status(source_fd, target_fd, owner)
    for name in os.listdir(source_fd):
        status = os.stat(name, dir_fd=source_fd, follow_symlinks=False)
        uid, gid = owner(status.st_uid), owner(status.st_gid)
        if stat.S_ISDIR(status.st_mode) and depth < _DEEPEST:
            os.mkdir(name, 0o700, dir_fd=target_fd)
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
            inner = os.open(name, flags, dir_fd=source_fd)
            try:
                made = os.open(name, flags, dir_fd=target_fd)
                try:
                    copy_tree(inner, made, owner=owner, depth=depth + 1)
                finally:
                    os.close(made)
            finally:
                os.close(inner)
        elif stat.S_ISREG(status.st_mode):
            _copy_file(source_fd, target_fd, name, owner)
        elif stat.S_ISLNK(status.st_mode):
            os.symlink(os.readlink(name, dir_fd=source_fd), name, dir_fd=target_fd)
            os.chown(name, uid, gid, dir_fd=target_fd, follow_symlinks=False)
        elif stat.S_ISFIFO(status.st_mode):
            os.mkfifo(name, stat.S_IMODE(status.st_mode), dir_fd=target_fd)
            os.chown(name, uid, gid, dir_fd=target_fd, follow_symlinks=False)


def _copy_file(source_fd: int, target_fd: int, name: str, owner: Callable[[int], int]) -> None:
    flags = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    with (
        open(os.open(name, os.O_RDONLY | flags, dir_fd=source_fd), "rb") as source,
        open(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | flags, 0o600, dir_fd=target_fd), "wb") as target,
    ):
        shutil.copyfileobj(source, target, 1 << 20)
        target.flush()
        _copy_status(source.fileno(), target.fileno(), owner)


def _copy_status(source_fd: int, target_fd: int, owner: Callable[[int], int]) -> None:
    status = os.fstat(source_fd)
    os.fchown(target_fd, owner(status.st_uid), owner(status.st_gid))
    os.fchmod(target_fd, stat.S_IMODE(status.st_mode))
    with suppress(OSError):  # a file system without extended attributes
        for name in os.listxattr(source_fd):
            if name.startswith("user.") and not name.startswith("user.overlay."):
                os.setxattr(target_fd, name, os.getxattr(source_fd, name))
    os.utime(target_fd, ns=(status.st_atime_ns, status.st_mtime_ns))

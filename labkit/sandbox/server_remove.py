"""Removing a folder that a student has filled: any depth, any name, any mode.

A recursive walk dies in a folder 4,000 levels deep: of Python's recursion limit, of the longest path, or of its descriptors. Here every
folder that is found is first moved up, directly into the folder that is being removed, and so the walk never is more than
two levels deep. Nothing is opened by a path: descriptors, one level, no links.

Leaves out: files that belong to somebody else in a folder that does, too; they stay, and the error says so.
See: openat(2), renameat(2), unlinkat(2), rmdir(2).
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
import time

from labkit.linux.fds import Fd

__all__ = ["remove_entry"]

#: Programs of the student may go on filling the folder meanwhile.
_LONGEST_S = 20.0
_OPEN_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def remove_entry(parent_fd: int, name: str) -> None:
    """Remove ``name`` from the folder ``parent_fd`` with all that is in it; a link is removed, never followed.

    Raises: OSError; ENOTEMPTY if somebody has filled the folder for 20 s faster than it could be emptied.
    """
    if not stat.S_ISDIR(os.lstat(name, dir_fd=parent_fd).st_mode):
        os.unlink(name, dir_fd=parent_fd)
        return
    deadline_s = time.monotonic() + _LONGEST_S
    with _opened(parent_fd, name) as fd:
        while folders := _remove_files(fd.number):
            for folder in folders:
                _empty_into(fd.number, folder)
            if time.monotonic() > deadline_s:
                raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY), name)
    os.rmdir(name, dir_fd=parent_fd)


def _remove_files(folder_fd: int) -> list[str]:
    """Remove all but the folders, and return their names."""
    folders = []
    with os.scandir(folder_fd) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                folders.append(entry.name)
            else:
                os.unlink(entry.name, dir_fd=folder_fd)
    return folders


def _empty_into(top_fd: int, name: str) -> None:
    """Move the folders of ``name`` up into ``top_fd``, remove its files and then itself."""
    with _opened(top_fd, name) as fd:
        for inner in _remove_files(fd.number):
            with _opened(fd.number, inner):  # whose mode now allows it to be moved: its `..` changes
                os.rename(inner, f"labkit-{secrets.token_hex(8)}", src_dir_fd=fd.number, dst_dir_fd=top_fd)
    os.rmdir(name, dir_fd=top_fd)


def _opened(parent_fd: int, name: str) -> Fd:
    """Open a folder, whatever its mode, as its owner or root may."""
    try:
        fd = Fd(os.open(name, _OPEN_FOLDER, dir_fd=parent_fd))
    except PermissionError:
        with Fd(os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent_fd)) as looked:
            os.chmod(f"/proc/self/fd/{looked.number}", 0o700)
        return Fd(os.open(name, _OPEN_FOLDER, dir_fd=parent_fd))
    if not os.access(f"/proc/self/fd/{fd.number}", os.W_OK | os.X_OK):
        os.fchmod(fd.number, 0o700)
    return fd

"""State on disk: files that are either the old or the new, whatever happens in between.

A file is written beside its place, flushed to the disk, and renamed over the old one; then the folder is flushed, too, or the
rename itself could be lost. A crash at any point leaves the old or the new content, and at worst a ``.new`` file, which the
next write replaces.

See: rename(2), fsync(2).
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
from typing import Any

from labkit.errors import InvalidState

__all__ = ["read_json", "remove_tree", "write_json"]


def write_json(path: str, document: Any, *, durable: bool = True) -> None:
    """Make ``document`` the content of ``path``, whole or not at all; ``durable``: it survives a power failure."""
    data = json.dumps(document, separators=(",", ":")).encode()
    fd = os.open(f"{path}.new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]
        if durable:
            os.fdatasync(fd)
    finally:
        os.close(fd)
    os.rename(f"{path}.new", path)
    if durable:
        _flush_folder(os.path.dirname(path))


def _flush_folder(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def read_json(path: str) -> Any:
    """Return the content of ``path``; None if there is no such file. Raises: InvalidState for a damaged one."""
    try:
        with open(path, "rb") as file:
            return json.load(file)
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise InvalidState(
            f"The state file {path} is damaged ({error}): move it away, and the engine starts without."
        ) from error


def remove_tree(path: str) -> None:
    """Remove a folder and all in it, however deep and whatever its modes; nothing happens if there is none.

    It walks by descriptors and never follows a link, so what a container made can lead nowhere else.
    """
    parent_fd = os.open(os.path.dirname(path) or "/", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _remove_at(parent_fd, os.path.basename(path))
    finally:
        os.close(parent_fd)


def _remove_at(parent_fd: int, name: str) -> None:
    """Remove ``name`` below ``parent_fd``; a deep tree is first made flat, so no depth can exhaust anything."""
    counter = 0
    waiting = [name]
    while waiting:
        current = waiting.pop()
        try:
            fd = os.open(current, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent_fd)
        except FileNotFoundError:
            continue
        except NotADirectoryError:
            os.unlink(current, dir_fd=parent_fd)
            continue
        except PermissionError:
            os.chmod(current, 0o700, dir_fd=parent_fd)
            waiting.append(current)
            continue
        try:
            with contextlib.suppress(PermissionError):
                os.fchmod(fd, 0o700)
            for entry in os.listdir(fd):
                status = os.stat(entry, dir_fd=fd, follow_symlinks=False)
                if not stat.S_ISDIR(status.st_mode):
                    os.unlink(entry, dir_fd=fd)
                    continue
                try:
                    os.rmdir(entry, dir_fd=fd)
                except OSError:
                    counter += 1
                    moved = f".labkit-gone-{os.getpid()}-{counter}-{status.st_ino}"
                    with contextlib.suppress(PermissionError):
                        os.chmod(entry, 0o700, dir_fd=fd)
                    os.rename(entry, moved, src_dir_fd=fd, dst_dir_fd=parent_fd)
                    waiting.append(moved)
        finally:
            os.close(fd)
        os.rmdir(current, dir_fd=parent_fd)

"""Files below one folder, and no way out of it: what the Jupyter server may touch for a student.

The server runs outside the sandbox, and the student's programs write where it reads. A symbolic link, planted in the work
folder, would make it read or write any file of its user. So every path is resolved by the kernel with RESOLVE_BENEATH: links
and ``..`` work as long as they stay below the folder; what leads out fails, even if it is put there between two looks.

Opening is a trap of its own: a FIFO waits, a device acts. A file is looked at through an O_PATH descriptor first, and only a
regular one is opened. Writing makes a new file and renames it over the old one, so a link in that place is replaced, not followed.

Leaves out: quotas; the file system has those.
See: openat2(2), open(2) (O_PATH), rename(2), symlink(7).
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from labkit.linux.fds import Fd
from labkit.linux.syscalls import open_beneath
from labkit.sandbox.server_remove import remove_entry

__all__ = ["CourseFolder", "Entry"]

_TRIES = 16  # a folder of the path that is renamed all the time makes the kernel give up: EAGAIN
_BLOCK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Entry:
    """What there is at a path: ``kind`` is ``file``, ``directory`` or empty for what the server never opens."""

    name: str
    kind: str
    size_bytes: int
    modified_s: float
    changed_s: float
    writable: bool


class CourseFolder:
    """The folder ``root`` by itself; ``parts`` puts other folders below it, by name, as if they lay there."""

    def __init__(self, root: Path, *, parts: dict[str, Path] | None = None) -> None:
        self.root = root
        self.parts = dict(parts or {})

    def look(self, path: str) -> Entry:
        """Return what is at ``path``. Raises: OSError (ENOENT, ENOTDIR; EXDEV for a way out)."""
        with self._opened(path, os.O_PATH) as fd:
            return _entry(path.rpartition("/")[2], fd)

    def entries(self, path: str, *, most: int) -> list[Entry]:
        """Return what is in the folder ``path``, the first ``most`` of it; links that lead out are not shown."""
        found: list[Entry] = []
        with self._opened(path, os.O_RDONLY | os.O_DIRECTORY) as fd, os.scandir(fd) as names:
            for item in names:
                if len(found) == most:
                    break
                found += self._entry_in(path, fd, item.name)
        if not path:
            found = [entry for entry in found if entry.name not in self.parts]
            found += [self.look(name) for name, part in self.parts.items() if part.is_dir()]
        return found

    def read(self, path: str, *, most_bytes: int) -> bytes:
        """Return the contents of a regular file. Raises: OSError (EISDIR, EINVAL for a FIFO or a device, EFBIG)."""
        with self._opened(path, os.O_PATH) as looked_fd:
            status = os.fstat(looked_fd)
            _demand_file(status, path)
            if status.st_size > most_bytes:
                raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), path)
            with Fd(os.open(f"/proc/self/fd/{looked_fd}", os.O_RDONLY | os.O_CLOEXEC)) as fd:
                return _read_all(fd.number, path, most_bytes)

    def write(self, path: str, data: bytes) -> None:
        """Put ``data`` at ``path``, whole or not at all. Raises: OSError (EISDIR, EACCES, ENOSPC)."""
        with self._parent(path) as (parent_fd, name):
            old = _status(parent_fd, name)
            if old is not None and stat.S_ISDIR(old.st_mode):
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
            mode = stat.S_IMODE(old.st_mode) & 0o777 if old is not None and stat.S_ISREG(old.st_mode) else 0o644
            if old is not None and not os.access(name, os.W_OK, dir_fd=parent_fd, follow_symlinks=False):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
            _replace(parent_fd, name, data, mode)

    def append(self, path: str, data: bytes, *, most_bytes: int) -> None:
        """Add ``data`` to the regular file at ``path``. Raises: OSError (EFBIG when it would pass ``most_bytes``)."""
        with self._opened(path, os.O_PATH) as looked_fd:
            status = os.fstat(looked_fd)
            _demand_file(status, path)
            if status.st_size + len(data) > most_bytes:
                raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), path)
            with Fd(os.open(f"/proc/self/fd/{looked_fd}", os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)) as fd:
                _write_all(fd.number, data)

    def make_folder(self, path: str) -> None:
        """Make the folder ``path``. Raises: OSError (EEXIST)."""
        with self._parent(path) as (parent_fd, name):
            os.mkdir(name, 0o755, dir_fd=parent_fd)
            with Fd(open_beneath(parent_fd, name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)) as fd:
                _give_to_owner_of(parent_fd, fd.number)

    def rename(self, old: str, new: str) -> None:
        """Move ``old`` to ``new``. Raises: OSError (EEXIST: nothing is replaced; EXDEV between two ``parts``)."""
        if old in self.parts:
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), old)
        with self._parent(old) as (old_fd, old_name), self._parent(new) as (new_fd, new_name):
            if _status(new_fd, new_name) is not None or new in self.parts:
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), new)
            os.rename(old_name, new_name, src_dir_fd=old_fd, dst_dir_fd=new_fd)
            with Fd(open_beneath(new_fd, new_name, os.O_PATH | os.O_NOFOLLOW)) as fd:
                _give_to_owner_of(new_fd, fd.number)

    def remove(self, path: str) -> None:
        """Remove a file, or a folder with all that is in it; a link is removed, not what it leads to."""
        if path in self.parts:
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), path)
        with self._parent(path) as (parent_fd, name):
            remove_entry(parent_fd, name)

    def _entry_in(self, folder: str, folder_fd: int, name: str) -> list[Entry]:
        """Return the entry ``name``; nothing for what leads out, cannot be looked at, or is neither file nor folder."""
        try:
            with Fd(open_beneath(folder_fd, name, os.O_PATH | os.O_NOFOLLOW)) as fd:
                is_link = stat.S_ISLNK(os.fstat(fd.number).st_mode)
                entry = self.look(f"{folder}/{name}" if folder else name) if is_link else _entry(name, fd.number)
        except OSError:
            return []
        return [entry] if entry.kind else []

    @contextmanager
    def _opened(self, path: str, flags: int) -> Iterator[int]:
        root, rest = self.place(path)
        with (
            Fd(os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)) as root_fd,
            Fd(_open(root_fd.number, rest or ".", flags)) as fd,
        ):
            yield fd.number

    @contextmanager
    def _parent(self, path: str) -> Iterator[tuple[int, str]]:
        """Yield the folder that ``path`` lies in and the last name of it."""
        folder, _, name = path.rpartition("/")
        if not name:
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), path)
        with self._opened(folder, os.O_PATH | os.O_DIRECTORY) as fd:
            yield fd, name

    def place(self, path: str) -> tuple[Path, str]:
        """Return the real folder in which ``path`` is resolved, and the rest of it. Raises: OSError for ``..``."""
        names = path.split("/")
        if ".." in names or "." in names or "\0" in path:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        if names[0] in self.parts:
            return self.parts[names[0]], "/".join(names[1:])
        return self.root, path


def _open(root_fd: int, path: str, flags: int) -> int:
    for _ in range(_TRIES):
        try:
            return open_beneath(root_fd, path, flags)
        except BlockingIOError:
            continue
    return open_beneath(root_fd, path, flags)


def _entry(name: str, fd: int) -> Entry:
    status = os.fstat(fd)
    kind = "directory" if stat.S_ISDIR(status.st_mode) else "file" if stat.S_ISREG(status.st_mode) else ""
    writable = os.access(f"/proc/self/fd/{fd}", os.W_OK)
    return Entry(name, kind, status.st_size, status.st_mtime, status.st_ctime, writable)


def _status(folder_fd: int, name: str) -> os.stat_result | None:
    try:
        return os.lstat(name, dir_fd=folder_fd)
    except FileNotFoundError:
        return None


def _demand_file(status: os.stat_result, path: str) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "it is neither a file nor a folder", path)


def _read_all(fd: int, path: str, most_bytes: int) -> bytes:
    """Read to the end; the file may grow meanwhile, so the limit is checked here again."""
    blocks, total = [], 0
    while block := os.read(fd, _BLOCK_BYTES):
        blocks.append(block)
        total += len(block)
        if total > most_bytes:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), path)
    return b"".join(blocks)


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _replace(folder_fd: int, name: str, data: bytes, mode: int) -> None:
    new_name = f".~labkit-{secrets.token_hex(8)}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with Fd(os.open(new_name, flags, 0o600, dir_fd=folder_fd)) as fd:
        try:
            _write_all(fd.number, data)
            _give_to_owner_of(folder_fd, fd.number)
            os.fchmod(fd.number, mode)
            os.fsync(fd.number)
            os.rename(new_name, name, src_dir_fd=folder_fd, dst_dir_fd=folder_fd)
        except BaseException:
            os.unlink(new_name, dir_fd=folder_fd)
            raise


def _give_to_owner_of(folder_fd: int, fd: int) -> None:
    """Let what root's server makes in a student's folder belong to the student, who could not change it otherwise."""
    if os.geteuid() == 0:
        owner, status = os.fstat(folder_fd), os.fstat(fd)
        # Not a name of something that has others elsewhere, nor a link: only what is new here.
        if stat.S_ISDIR(status.st_mode) or (stat.S_ISREG(status.st_mode) and status.st_nlink == 1):
            os.chown(f"/proc/self/fd/{fd}", owner.st_uid, owner.st_gid)

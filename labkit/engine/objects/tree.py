"""A file tree as tar, and the look at one path in it, for ``docker cp`` and ``docker export``.

The tree belongs to a container, which may change it meanwhile. So a path is looked up as if the tree's root were ``/``, each folder is held
by its descriptor, and files are opened without following links and without blocking.

Leaves out: extended attributes, hard links (each name becomes a file of its own), sockets.
See: openat2(2) (RESOLVE_IN_ROOT), tar(5); Docker Engine API, "Get an archive of a filesystem resource".
"""

from __future__ import annotations

import base64
import json
import os
import posixpath
import stat
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO

from labkit.engine.keeper.logfile import timestamp
from labkit.linux.fds import Fd
from labkit.linux.syscalls import open_in_root

__all__ = ["Found", "locate", "stat_header", "write_tar"]

_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_DEEPEST = 500
#: Go's bits for what Unix puts into st_mode; the client reads them.
_GO_KINDS = {
    stat.S_IFDIR: 1 << 31, stat.S_IFLNK: 1 << 27, stat.S_IFIFO: 1 << 25, stat.S_IFSOCK: 1 << 24,
    stat.S_IFCHR: 1 << 26 | 1 << 21, stat.S_IFBLK: 1 << 26,
}  # fmt: skip
_GO_EXTRA = ((stat.S_ISUID, 1 << 23), (stat.S_ISGID, 1 << 22), (stat.S_ISVTX, 1 << 20))


@dataclass(slots=True)
class Found:
    """A path that was found: its folder, held open, its name there (empty: the root), and what it is."""

    folder: Fd
    name: str
    status: os.stat_result
    link: str = ""

    @property
    def is_folder(self) -> bool:
        """True for a folder, not for a link to one."""
        return stat.S_ISDIR(self.status.st_mode)

    def open_folder(self) -> Fd:
        """Return the folder itself, open. Raises: NotADirectoryError."""
        if not self.name:
            return Fd(os.dup(self.folder.number))
        return Fd(os.open(self.name, os.O_DIRECTORY | _FLAGS, dir_fd=self.folder.number))


def locate(root_fd: int, path: str) -> Found:
    """Return what is at ``path`` in the tree; a link at its end is followed only if a slash stands behind it.

    Raises: OSError (ENOENT, ENOTDIR, ELOOP).
    """
    follow = path.endswith(("/", "/."))
    clean = posixpath.normpath("/" + path)
    if clean == "/":
        return Found(Fd(os.dup(root_fd)), "", os.fstat(root_fd))
    parent, name = posixpath.split(clean)
    if follow:
        with Fd(open_in_root(root_fd, clean, os.O_PATH)) as target:
            if not stat.S_ISDIR(os.fstat(target.number).st_mode):
                raise NotADirectoryError(20, "not a directory", path)
            return Found(Fd(open_in_root(root_fd, clean, os.O_RDONLY | os.O_DIRECTORY)), "", os.fstat(target.number))
    folder = Fd(open_in_root(root_fd, parent, os.O_PATH | os.O_DIRECTORY))
    try:
        status = os.stat(name, dir_fd=folder.number, follow_symlinks=False)
        link = os.readlink(name, dir_fd=folder.number) if stat.S_ISLNK(status.st_mode) else ""
    except OSError:
        folder.close()
        raise
    return Found(folder, name, status, link)


def stat_header(found: Found, name: str) -> str:
    """Return what the header ``X-Docker-Container-Path-Stat`` says of a path."""
    mode = found.status.st_mode
    go_mode = stat.S_IMODE(mode) & 0o777 | _GO_KINDS.get(stat.S_IFMT(mode), 0)
    go_mode |= sum(bit for unix, bit in _GO_EXTRA if mode & unix)
    shown = {
        "name": name, "size": found.status.st_size, "mode": go_mode, "mtime": timestamp(found.status.st_mtime_ns),
        "linkTarget": found.link,
    }  # fmt: skip
    return base64.b64encode(json.dumps(shown).encode()).decode()


def write_tar(
    found: Found, name: str, out: IO[bytes], *, owner: Callable[[int], int], one_system: bool = False
) -> None:  # fmt: skip
    """Write what was found as a tar whose entries begin with ``name`` (empty: the folder's content alone).

    ``owner`` translates uids and gids; with ``one_system`` what is mounted below is left out.
    """
    with tarfile.open(fileobj=out, mode="w|", format=tarfile.PAX_FORMAT) as archive:
        walk = _Walk(archive, owner, found.status.st_dev if one_system else None)
        if found.is_folder:
            if name:
                archive.addfile(_entry(found.status, name, owner))
            with found.open_folder() as folder:
                walk.add_folder(folder.number, name, 0)
        else:
            walk.add(found.folder.number, found.name, name, 0)


@dataclass(frozen=True, slots=True)
class _Walk:
    """Adds files to an archive; folders of another ``device`` (if one is given) stay empty."""

    archive: tarfile.TarFile
    owner: Callable[[int], int]
    device: int | None

    def add_folder(self, fd: int, prefix: str, depth: int) -> None:
        for name in sorted(os.listdir(fd)):
            self.add(fd, name, f"{prefix}/{name}" if prefix else name, depth)

    def add(self, fd: int, name: str, path: str, depth: int) -> None:
        try:
            status = os.stat(name, dir_fd=fd, follow_symlinks=False)
        except FileNotFoundError:
            return  # removed meanwhile
        entry = _entry(status, path, self.owner)
        if stat.S_ISREG(status.st_mode):
            with Fd(os.open(name, _FLAGS, dir_fd=fd)) as file:
                entry.size = os.fstat(file.number).st_size
                self.archive.addfile(entry, _Exactly(file.number, entry.size))
        elif stat.S_ISDIR(status.st_mode):
            self.archive.addfile(entry)
            if depth < _DEEPEST and self.device in (None, status.st_dev):
                with Fd(os.open(name, os.O_DIRECTORY | _FLAGS, dir_fd=fd)) as folder:
                    self.add_folder(folder.number, path, depth + 1)
        elif not stat.S_ISSOCK(status.st_mode):
            if stat.S_ISLNK(status.st_mode):
                entry.linkname = os.readlink(name, dir_fd=fd)
            self.archive.addfile(entry)


class _Exactly:
    """A file that gives exactly as many bytes as were announced, even if it shrinks or grows meanwhile."""

    def __init__(self, fd: int, size: int) -> None:
        self._fd, self._left = fd, size

    def read(self, size: int = -1) -> bytes:
        wanted = self._left if size < 0 else min(size, self._left)
        data = os.read(self._fd, wanted) if wanted else b""
        data += b"\0" * (wanted - len(data)) if not data else b""
        self._left -= len(data)
        if len(data) < wanted:
            return data + self.read(wanted - len(data))
        return data


_TYPES = {
    stat.S_IFREG: tarfile.REGTYPE, stat.S_IFDIR: tarfile.DIRTYPE, stat.S_IFLNK: tarfile.SYMTYPE, stat.S_IFIFO: tarfile.FIFOTYPE,
    stat.S_IFCHR: tarfile.CHRTYPE, stat.S_IFBLK: tarfile.BLKTYPE,
}  # fmt: skip


def _entry(status: os.stat_result, path: str, owner: Callable[[int], int]) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(path)
    entry.type = _TYPES.get(stat.S_IFMT(status.st_mode), tarfile.REGTYPE)
    entry.mode = stat.S_IMODE(status.st_mode)
    entry.uid, entry.gid = owner(status.st_uid), owner(status.st_gid)
    entry.mtime = status.st_mtime_ns // 1_000_000_000
    entry.devmajor, entry.devminor = os.major(status.st_rdev), os.minor(status.st_rdev)
    return entry

"""Packing and removing a folder, as the confined child does it: folder by folder, by descriptors, to any depth.

A container may leave anything behind: folders 4,000 levels deep, names that are no text, folders that nobody may enter. A path would be
too long for the kernel and a recursion too deep for Python, so the walk holds one folder open at a time and climbs by ``..``;
the root of the confined child ends every climb. Files are opened only after they were seen to be regular, without following
links and without blocking.

Leaves out: sockets and devices, which no image needs.
See: `labkit.image.confined`; openat(2); overlayfs.rst in Linux ("whiteouts and opaque directories").
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from itertools import islice
from typing import Any

from labkit.image import tarheader as tar
from labkit.image import whiteout
from labkit.image.tarwrite import END, header_of, padding

__all__ = ["empty_folder", "pack", "remove_all"]

_FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW
_FILE_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_BATCH = 1000
_PART_BYTES = 1 << 20
_KEPT = ("user.", "security.capability", "system.posix_acl_access")
_NO_ATTRIBUTES = (errno.EOPNOTSUPP, errno.ENODATA, errno.EPERM)


def pack(stream_fd: int, options: dict[str, Any]) -> dict[str, Any]:
    """Write the process's root folder as tar to ``stream_fd``; return counts.

    ``options``: ``is_layer`` (OverlayFS's marks become whiteouts), ``latest_s`` (no file is newer; None: as it is), ``owner``
    (everything is uid:gid; None: as it is).
    """
    packer = _Packer(stream_fd, options)
    root_fd = os.open("/", _FOLDER_FLAGS)
    for name, path, fd in _walk(root_fd):
        packer.add(name, path, fd)
    packer.write(END)
    return packer.counts


def _walk(root_fd: int) -> Iterator[tuple[bytes, bytes, int]]:
    """Yield name, path and the folder's descriptor of everything below, in the order of names, folders before what is in them."""
    fd, path = os.dup(root_fd), b""
    waiting = [iter(_names(fd))]
    while waiting:
        name = next(waiting[-1], None)
        if name is None:
            waiting.pop()
            if waiting:
                parent_fd = os.open("..", _FOLDER_FLAGS, dir_fd=fd)
                os.close(fd)
                fd, path = parent_fd, path.rpartition(b"/")[0]
            continue
        whole = path + b"/" + name if path else name
        yield name, whole, fd
        try:
            inner_fd = os.open(name, _FOLDER_FLAGS, dir_fd=fd)
        except OSError as error:
            if error.errno not in (errno.ENOTDIR, errno.ELOOP, errno.ENOENT, errno.ENXIO):
                raise
            continue
        os.close(fd)
        fd, path = inner_fd, whole
        waiting.append(iter(_names(fd)))
    os.close(fd)


def _names(folder_fd: int) -> list[bytes]:
    return sorted(os.fsencode(name) for name in os.listdir(folder_fd))


class _Packer:
    """Writes entries; knows which inodes it has seen, for hard links."""

    def __init__(self, stream_fd: int, options: dict[str, Any]) -> None:
        self.stream_fd = stream_fd
        self.is_layer = bool(options["is_layer"])
        self.latest_s: int | None = options["latest_s"]
        self.owner: list[int] | None = options["owner"]
        self.counts = {"entries": 0, "bytes": 0, "skipped": 0}
        self._seen: dict[tuple[int, int], bytes] = {}

    def write(self, data: bytes) -> None:
        """Write all of ``data``."""
        view = memoryview(data)
        while view:
            view = view[os.write(self.stream_fd, view) :]

    def add(self, name: bytes, path: bytes, parent_fd: int) -> None:
        """Write one entry, if it is something that an archive can hold."""
        try:
            status = os.lstat(name, dir_fd=parent_fd)
        except FileNotFoundError:
            return  # removed meanwhile
        mode = status.st_mode
        if self.is_layer and whiteout.is_whiteout(status):
            folder, _, _ = path.rpartition(b"/")
            self._header(tar.FILE, (folder + b"/" if folder else b"") + whiteout.PREFIX + name, status, mode=0)
        elif stat.S_ISREG(mode):
            self._add_file(name, path, parent_fd, status)
        elif stat.S_ISDIR(mode):
            self._add_folder(name, path, parent_fd, status)
        elif stat.S_ISLNK(mode):
            self._header(tar.SYMLINK, path, status, mode=0o777, link=os.readlink(name, dir_fd=parent_fd))
        elif stat.S_ISFIFO(mode):
            self._header(tar.FIFO, path, status, mode=stat.S_IMODE(mode))
        else:
            self.counts["skipped"] += 1

    def _header(
        self, kind: bytes, path: bytes, status: os.stat_result, *, mode: int, size: int = 0, link: bytes = b"",
        xattrs: dict[str, bytes] | None = None,
    ) -> None:  # fmt: skip
        mtime_s = int(status.st_mtime_ns // 1_000_000_000)
        if self.latest_s is not None:
            mtime_s = min(mtime_s, self.latest_s)
        uid, gid = self.owner or (status.st_uid, status.st_gid)
        header = header_of(
            kind, path, mode=mode, uid=uid, gid=gid, size=size, mtime_s=mtime_s, link=link, xattrs=xattrs
        )
        self.counts["entries"] += 1
        self.counts["bytes"] += size
        self.write(header)

    def _add_folder(self, name: bytes, path: bytes, parent_fd: int, status: os.stat_result) -> None:
        fd = os.open(name, _FOLDER_FLAGS, dir_fd=parent_fd)
        try:
            self._header(tar.DIRECTORY, path, status, mode=stat.S_IMODE(status.st_mode), xattrs=_attributes(fd))
            if self.is_layer and whiteout.is_opaque(fd):
                self._header(tar.FILE, path + b"/" + whiteout.OPAQUE_MARKER, status, mode=0)
        finally:
            os.close(fd)

    def _add_file(self, name: bytes, path: bytes, parent_fd: int, status: os.stat_result) -> None:
        inode = (status.st_dev, status.st_ino)
        if inode in self._seen:
            self._header(tar.HARD_LINK, path, status, mode=stat.S_IMODE(status.st_mode), link=self._seen[inode])
            return
        fd = os.open(name, _FILE_FLAGS, dir_fd=parent_fd)
        try:
            now = os.fstat(fd)
            if not stat.S_ISREG(now.st_mode):
                return  # replaced meanwhile
            if now.st_nlink > 1:
                self._seen[inode] = path
            size = now.st_size
            self._header(
                tar.FILE, path, now, mode=stat.S_IMODE(now.st_mode), size=size, xattrs=_attributes(fd)
            )  # fmt: skip
            self._body(fd, size)
        finally:
            os.close(fd)

    def _body(self, fd: int, size: int) -> None:
        """Write exactly ``size`` bytes: a file that shrinks meanwhile is filled up, for the header has promised them."""
        left = size
        while left:
            sent = os.sendfile(self.stream_fd, fd, None, min(left, 1 << 30)) if left else 0
            if not sent:
                break
            left -= sent
        while left:
            part = min(left, _PART_BYTES)
            self.write(bytes(part))
            left -= part
        self.write(padding(size))


def _attributes(fd: int) -> dict[str, bytes]:
    try:
        names = [
            name for name in os.listxattr(fd) if name.startswith(_KEPT) and not whiteout.is_overlay_attribute(name)
        ]
        return {name: os.getxattr(fd, name) for name in names}
    except OSError as error:
        if error.errno in _NO_ATTRIBUTES:
            return {}
        raise


def remove_all() -> dict[str, Any]:
    """Remove everything below the process's root folder."""
    root_fd = os.open("/", _FOLDER_FLAGS)
    empty_folder(root_fd)
    os.close(root_fd)
    return {}


def empty_folder(top_fd: int) -> None:
    """Remove everything in the folder. Folders found inside others are moved to the top first, so depth does not matter."""
    moved = 0
    while batch := _batch(top_fd):
        for name, is_folder in batch:
            if not is_folder:
                os.unlink(name, dir_fd=top_fd)
                continue
            fd = os.open(name, _FOLDER_FLAGS, dir_fd=top_fd)
            try:
                moved = _empty_one(fd, top_fd, moved)
            finally:
                os.close(fd)
            os.rmdir(name, dir_fd=top_fd)


def _empty_one(fd: int, top_fd: int, moved: int) -> int:
    while batch := _batch(fd):
        for name, is_folder in batch:
            if not is_folder:
                os.unlink(name, dir_fd=fd)
                continue
            moved = _free_number(top_fd, moved)
            os.rename(name, b".labkit-%d" % moved, src_dir_fd=fd, dst_dir_fd=top_fd)
    return moved


def _free_number(top_fd: int, number: int) -> int:
    while True:
        number += 1
        try:
            os.lstat(b".labkit-%d" % number, dir_fd=top_fd)
        except FileNotFoundError:
            return number


def _batch(folder_fd: int) -> list[tuple[bytes, bool]]:
    with os.scandir(folder_fd) as found:
        return [(os.fsencode(item.name), item.is_dir(follow_symlinks=False)) for item in islice(found, _BATCH)]

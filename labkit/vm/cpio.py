"""An archive in the format that the kernel unpacks into its first file system.

The kernel reads "newc" archives: for each file a header of 110 ASCII characters, its name, and its content, each padded to four
bytes; a file named ``TRAILER!!!`` ends it. Owners, modes and device numbers are only numbers in the header, so
an ordinary user can write an archive with a root's files and with devices.

Leaves out: reading archives, hard links, checksums (format 070702).
See: cpio(5), Documentation/driver-api/early-userspace/buffer-format.rst.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable
from dataclasses import dataclass

from labkit.errors import InvalidSpec

__all__ = ["Entry", "device", "file", "folder", "link", "pack_cpio"]


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of an archive: its path without a leading slash, type and permissions, content, and device number."""

    path: str
    mode: int
    content: bytes = b""
    device: tuple[int, int] = (0, 0)


def folder(path: str, *, permissions: int = 0o755) -> Entry:
    """Return a folder; the ones above it must come before it."""
    return Entry(path, stat.S_IFDIR | permissions)


def file(path: str, content: bytes, *, permissions: int = 0o644) -> Entry:
    """Return a file with ``content``."""
    return Entry(path, stat.S_IFREG | permissions, content)


def link(path: str, target: str) -> Entry:
    """Return a symbolic link."""
    return Entry(path, stat.S_IFLNK | 0o777, target.encode())


def device(path: str, major: int, minor: int, *, permissions: int = 0o600) -> Entry:
    """Return a character device."""
    return Entry(path, stat.S_IFCHR | permissions, device=(major, minor))


def pack_cpio(entries: Iterable[Entry]) -> bytes:
    """Return the archive of ``entries``; the same entries give the same bytes. Raises: InvalidSpec for a bad path."""
    packed = bytearray()
    for number, entry in enumerate(entries, start=1):
        if entry.path.startswith("/") or "\0" in entry.path or not entry.path:
            raise InvalidSpec(f"{entry.path!r} is no path of an archive: it must be relative and not empty.")
        packed += _packed(entry, number)
    packed += _packed(Entry("TRAILER!!!", 0), 0)
    return bytes(packed)


def _packed(entry: Entry, number: int) -> bytes:
    name = entry.path.encode() + b"\0"
    # inode, mode, uid, gid, links, mtime, size, device of the file system (2), device (2), length of the name, checksum
    fields = (number, entry.mode, 0, 0, 1, 0, len(entry.content), 0, 0, *entry.device, len(name), 0)
    header = b"070701" + b"".join(b"%08X" % field for field in fields)
    return _padded(header + name) + _padded(entry.content)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)

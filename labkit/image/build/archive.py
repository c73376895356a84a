"""Archives that ADD unpacks: a local tar file, as it is or compressed with gzip, bzip2 or xz, recognised by its content.

The archive is read, not extracted: its entries become items of the layer, so nothing of it touches the host's file system. Owners and
modes are the archive's. Names are taken from the archive's root; one with ``..`` is refused, and so are devices.

Leaves out: zip (which Docker does not unpack either), zstd, sparse files, extended attributes; hard links become copies.
See: dockerfile(5), "ADD"; tar(5).
"""

from __future__ import annotations

import lzma
import posixpath
import tarfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import IO

from labkit import units
from labkit.image.build.errors import BuildError
from labkit.image.build.items import Item, Owner
from labkit.image.build.tree import Entry

__all__ = ["MOST_BYTES", "MOST_ENTRIES", "is_archive", "unpacked_items"]

MOST_ENTRIES = 200_000
MOST_BYTES = 8 * units.GiB
_BROKEN = (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, OSError)


def is_archive(entry: Entry) -> bool:
    """Say whether the content of a file is a tar archive, compressed or not."""
    try:
        with entry.open() as file, tarfile.open(fileobj=file, mode="r:*") as tar:
            return tar.next() is not None
    except _BROKEN:
        return False


def unpacked_items(
    archive: Entry, target: str, *, owner: Owner | None, mode: int | None, stack: ExitStack
) -> Iterator[Item]:
    """Yield what the archive holds, below ``target``. It stays open until ``stack`` is closed, to be read when the layer is written.

    Raises: BuildError naming the entry that is refused, or where the archive breaks off.
    """
    file = stack.enter_context(archive.open())
    tar = stack.enter_context(tarfile.open(fileobj=file, mode="r:*"))
    links: set[str] = set()
    total_bytes = 0
    try:
        for number, member in enumerate(tar):
            total_bytes += member.size if member.isreg() else 0
            if number >= MOST_ENTRIES or total_bytes > MOST_BYTES:
                limit = f"{MOST_ENTRIES} entries or {units.format_bytes(MOST_BYTES)}"
                raise BuildError(f"ADD failed: {archive.path} holds more than {limit}, at {member.name!r}.")
            item = _item(tar, member, target, owner=owner, mode=mode, where=archive.path)
            if item is None:
                continue
            if any(parent in links for parent in _parents(item.path)):
                raise BuildError(
                    f"ADD failed: {member.name!r} of {archive.path} leads through a link of the same archive."
                )
            if item.kind == "link":
                links.add(item.path)
            yield item
    except _BROKEN as error:
        raise BuildError(f"ADD failed: {archive.path} breaks off: {error}.") from error


def _item(
    tar: tarfile.TarFile, member: tarfile.TarInfo, target: str, *, owner: Owner | None, mode: int | None, where: str
) -> Item | None:
    if ".." in member.name.split("/"):
        raise BuildError(f"ADD failed: {member.name!r} of {where} leads out of its folder.")
    path = posixpath.normpath(posixpath.join("/", target, member.name.lstrip("/"))).strip("/")
    if path == target.strip("/"):
        return None
    bits = (member.mode & 0o7777) if mode is None else mode
    owner = owner or Owner(member.uid, member.gid)
    mtime_s = int(member.mtime)
    if member.isdir():
        return Item(path, "folder", bits, owner, mtime_s)
    if member.issym():
        return Item(path, "link", 0o777, owner, mtime_s, member.linkname)
    if member.isreg() or member.islnk():
        size_bytes = _content_of(tar, member, where).size
        return Item(path, "file", bits, owner, mtime_s, "", size_bytes, _opener(tar, member))
    raise BuildError(
        f"ADD failed: {member.name!r} of {where} is a device or a FIFO: only files, folders and links are unpacked."
    )


def _content_of(tar: tarfile.TarFile, member: tarfile.TarInfo, where: str) -> tarfile.TarInfo:
    """Return the entry whose content a hard link shares; it must stand before the link."""
    if not member.islnk():
        return member
    try:
        found = tar.getmember(member.linkname)
    except KeyError:
        raise BuildError(
            f"ADD failed: {member.name!r} of {where} is a link to {member.linkname!r}, which is not in it."
        ) from None
    if not found.isreg():
        raise BuildError(f"ADD failed: {member.name!r} of {where} is a hard link to something else than a file.")
    return found


def _opener(tar: tarfile.TarFile, member: tarfile.TarInfo) -> Callable[[], IO[bytes]]:
    def open_member() -> IO[bytes]:
        file = tar.extractfile(member)
        if file is None:
            raise BuildError(f"ADD failed: {member.name!r} has no content.")
        return file

    return open_member


def _parents(path: str) -> Iterator[str]:
    while path := posixpath.dirname(path):
        yield path

"""Archives that ADD unpacks: a local tar file, as it is or compressed with gzip, zstd, bzip2 or xz, recognised by its content.

Nothing is extracted on the host under a name of the archive's: contents of files go into numbered files of a scratch folder, and the entries
become items of the layer. Owners and modes are the archive's. Names are taken from the archive's root; one with ``..`` is refused, and so are
devices, and paths through a link of the same archive.

Leaves out: zip (which Docker does not unpack either), extended attributes; hard links become copies.
See: dockerfile(5), "ADD"; tar(5).
"""

from __future__ import annotations

import bz2
import lzma
import os
import posixpath
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path

from labkit import units
from labkit.errors import ImageError
from labkit.image import tarheader as tar
from labkit.image.build.errors import BuildError
from labkit.image.build.items import Item, Owner
from labkit.image.build.tree import Entry
from labkit.image.layer import Decompressor, sniff_compression
from labkit.image.tarheader import parse_header
from labkit.image.tarstream import Readable, TarReader, filler

__all__ = ["MOST_BYTES", "MOST_ENTRIES", "is_archive", "unpacked_items"]

MOST_ENTRIES = 200_000
MOST_BYTES = 8 * units.GiB
_MAGIC_BYTES = 8
#: What a damaged archive answers, whatever it is compressed with.
_BROKEN = (ImageError, EOFError, lzma.LZMAError, OSError)


def _plain(file: BufferedReader) -> Readable:
    """Return the archive's bytes without compression."""
    head = file.read(_MAGIC_BYTES)
    file.seek(0)
    if head.startswith(b"BZh"):
        return bz2.BZ2File(file)
    if head.startswith(b"\xfd7zXZ\0"):
        return lzma.LZMAFile(file)
    compression = sniff_compression(head.ljust(_MAGIC_BYTES, b"\0"))
    return file if compression == "none" else Decompressor(file, compression)


def is_archive(entry: Entry) -> bool:
    """Say whether the content of a file begins as a tar archive does, compressed or not."""
    head = b""
    try:
        with entry.open() as file:
            plain = _plain(file)
            while len(head) < tar.BLOCK and (data := plain.read(tar.BLOCK)):
                head += data
        return bool(len(head) >= tar.BLOCK and parse_header(head[: tar.BLOCK]).name)
    except _BROKEN:
        return False


def unpacked_items(
    archive: Entry, target: str, *, owner: Owner | None, mode: int | None, scratch: Path
) -> Iterator[Item]:
    """Yield what the archive holds, below ``target``; the contents of files lie in ``scratch`` until the layer is written.

    Raises: BuildError naming the entry that is refused, or where the archive breaks off.
    """
    unpacker = _Unpacker(archive.path, target, owner=owner, mode=mode, scratch=scratch)
    try:
        with archive.open() as file:
            reader = TarReader(filler(_plain(file)))
            for number, entry in enumerate(reader.entries()):
                item = unpacker.item(reader, entry, number)
                if item is not None:
                    yield item
    except BuildError:
        raise
    except _BROKEN as error:
        raise BuildError(f"ADD failed: {archive.path} breaks off: {error}") from error


class _Unpacker:
    """Makes items of entries, and remembers what links need to know."""

    def __init__(self, where: str, target: str, *, owner: Owner | None, mode: int | None, scratch: Path) -> None:
        self.where, self.target, self.owner, self.mode, self.scratch = where, target, owner, mode, scratch
        self.links: set[str] = set()
        self.files: dict[str, Item] = {}
        self.total_bytes = 0

    def item(self, reader: TarReader, entry: tar.Entry, number: int) -> Item | None:
        name = os.fsdecode(entry.name)
        self.total_bytes += entry.real_size
        if number >= MOST_ENTRIES or self.total_bytes > MOST_BYTES:
            limit = f"{MOST_ENTRIES} entries or {units.format_bytes(MOST_BYTES)}"
            raise self._refusal(f"it holds more than {limit}", name)
        path = self._path(name)
        if path == self.target.strip("/"):
            return None
        owner = self.owner or Owner(entry.uid, entry.gid)
        mode = entry.mode if self.mode is None else self.mode
        mtime_s = entry.mtime_ns // 1_000_000_000
        if entry.kind == tar.DIRECTORY:
            return Item(path, "folder", mode, owner, mtime_s)
        if entry.kind == tar.SYMLINK:
            self.links.add(path)
            return Item(path, "link", 0o777, owner, mtime_s, os.fsdecode(entry.link))
        if entry.kind == tar.HARD_LINK:
            same = self.files.get(self._path(os.fsdecode(entry.link)))
            if same is None:
                raise self._refusal(f"it is a link to {os.fsdecode(entry.link)!r}, which is not in it", name)
            return Item(path, "file", same.mode, same.owner, same.mtime_s, "", same.size_bytes, same.open)
        if entry.kind != tar.FILE:
            raise self._refusal("it is a device or a FIFO: only files, folders and links are unpacked", name)
        place = self._take(reader, entry, self.scratch / str(number))
        item = Item(path, "file", mode, owner, mtime_s, "", entry.real_size, lambda: place.open("rb"))
        self.files[path] = item
        return item

    def _path(self, name: str) -> str:
        if ".." in name.split("/"):
            raise self._refusal("it leads out of its folder", name)
        path = posixpath.normpath(posixpath.join("/", self.target, name.lstrip("/"))).strip("/")
        parent = path
        while parent := posixpath.dirname(parent):
            if parent in self.links:
                raise self._refusal("it leads through a link of the same archive", name)
        return path

    def _refusal(self, why: str, name: str) -> BuildError:
        return BuildError(f"ADD failed: {name!r} of {self.where} is refused: {why}.")

    def _take(self, reader: TarReader, entry: tar.Entry, place: Path) -> Path:
        """Write the content of the current entry to ``place``, holes included."""
        with place.open("xb", buffering=0) as file:
            for offset, length in entry.segments if entry.segments is not None else [(0, entry.size)]:
                file.seek(offset)
                reader.copy(file.fileno(), length)
            file.truncate(entry.real_size)
        return place

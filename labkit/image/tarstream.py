"""Reading tar from a pipe: one header of 512 bytes, then the file's bytes, filled up to 512, again and again.

The reader holds one buffer and one entry, so an archive of any size takes the same memory. Long names, exact times and attributes
come as extensions before the entry that they belong to. An archive that ends in the middle of something is refused; after its end
mark the rest is read and ignored, as GNU tar does.

Leaves out: multi-volume archives, incremental dumps.
See: tar(5) of libarchive; pax(1) of POSIX.1-2008, "pax Interchange Format".
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from functools import partial
from typing import Protocol

from labkit.errors import ImageError
from labkit.image import tarsparse
from labkit.image.tarheader import (
    BLOCK,
    CONTIGUOUS,
    FILE,
    GNU_LINK,
    GNU_NAME,
    GNU_SPARSE,
    HAS_BODY,
    KNOWN,
    PAX,
    PAX_GLOBAL,
    Entry,
    apply_pax,
    decimal,
    parse_header,
    pax_records,
)

__all__ = ["Readable", "TarReader", "filler"]

_ZEROS = bytes(BLOCK)
_BUFFER_BYTES = 1 << 20
_MOVED_BYTES = 1 << 18
_MOST_EXTENSION_BYTES = 1 << 20
_MOST_EXTENSIONS = 16


class TarReader:
    """Entries of the tar that ``source`` gives: a descriptor, or a function that fills a buffer and returns how far.

    After each entry its bytes are taken by `copy` or `parts`, or skipped when the next one is asked for.
    """

    def __init__(self, source: int | Callable[[memoryview], int]) -> None:
        self._fill: Callable[[memoryview], int] = (
            partial(_read_fd, source) if isinstance(source, int) else source
        )  # fmt: skip
        self._fd, self._is_pipe = _movable(source)
        self._buffer = memoryview(bytearray(_BUFFER_BYTES))
        self._start = self._end = 0
        self._left = 0  # bytes of the current body not yet taken
        self._padding = 0
        self._globals: dict[str, bytes] = {}
        self.current = "its beginning"

    def entries(self) -> Iterator[Entry]:
        """Yield each entry. Raises: ImageError naming the one at which the archive turns out to be damaged."""
        while True:
            self._finish_body()
            entry = self._next()
            if entry is None:
                self._drain()
                return
            self.current = entry.shown
            yield entry

    def copy(self, out_fd: int, size: int) -> None:
        """Write the next ``size`` bytes of the current entry to ``out_fd``."""
        self._left -= size
        while size:
            if self._start == self._end:
                if self._fd >= 0 and size >= _MOVED_BYTES:
                    written = self._move(out_fd, size)
                    size -= written
                    if written:
                        continue
                if not self._read_more():
                    raise self._truncated()
            part = min(size, self._end - self._start)
            written = os.write(out_fd, self._buffer[self._start : self._start + part])
            self._start += written
            size -= written

    def _move(self, out_fd: int, size: int) -> int:
        """Move up to ``size`` bytes without a turn through this process's memory; 0 where the file system cannot do that.

        See: splice(2) for pipes, sendfile(2) for files.
        """
        try:
            written = os.splice(self._fd, out_fd, size) if self._is_pipe else os.sendfile(out_fd, self._fd, None, size)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            self._fd = -1
            return 0
        if not written:
            raise self._truncated()
        return written

    def parts(self) -> Iterator[memoryview]:
        """Yield the bytes of the current entry in parts; each one is good until the next."""
        while self._left:
            if self._start == self._end and not self._read_more():
                raise self._truncated()
            part = min(self._left, self._end - self._start)
            self._start += part
            self._left -= part
            yield self._buffer[self._start - part : self._start]

    def _next(self) -> Entry | None:
        pax: dict[str, bytes] = {}
        long_name = long_link = None
        for _ in range(_MOST_EXTENSIONS):
            header = self._take_block()
            if header is None or header == _ZEROS:
                if pax or long_name is not None or long_link is not None:
                    raise ImageError("The archive ends after the extension of an entry that is not there.")
                return None
            entry = parse_header(header)
            kind = entry.kind
            if kind == GNU_SPARSE:
                self._read_old_sparse(entry, header)
            if kind == PAX:
                pax = pax_records(self._take_extension(entry))
            elif kind == PAX_GLOBAL:
                self._globals |= pax_records(self._take_extension(entry))
            elif kind == GNU_NAME:
                long_name = self._take_extension(entry).rstrip(b"\0")
            elif kind == GNU_LINK:
                long_link = self._take_extension(entry).rstrip(b"\0")
            else:
                if long_name is not None:
                    entry.name = long_name
                if long_link is not None:
                    entry.link = long_link
                return self._begin(entry, self._globals | pax if self._globals else pax)
        raise ImageError(f"More than {_MOST_EXTENSIONS} extensions in a row precede one entry.")

    def _begin(self, entry: Entry, pax: dict[str, bytes]) -> Entry:
        """Let the extensions have their word, and prepare for the body."""
        if pax:
            apply_pax(entry, pax)
        if entry.kind not in KNOWN:
            raise ImageError(f"{entry.shown} is of the unknown type {os.fsdecode(entry.kind)!r}.")
        if b"\0" in entry.name or b"\0" in entry.link:
            raise ImageError(f"{entry.shown} has a NUL byte in its name or its link.")
        # Other types have no body; what some programs write as their size is that of the file they link to.
        size = entry.size if entry.kind in HAS_BODY else 0
        if entry.kind not in HAS_BODY:
            entry.size = entry.real_size = 0
        self._left, self._padding = size, -size % BLOCK
        if pax and entry.kind in HAS_BODY:
            self._read_pax_sparse(entry, pax)
        if entry.kind in (CONTIGUOUS, GNU_SPARSE):
            entry.kind = FILE
        return entry

    def _read_old_sparse(self, entry: Entry, header: bytes) -> None:
        """Read the map of an ``S`` entry: four pieces in its header, then 21 in each further block."""
        segments, more = tarsparse.pieces_in(header[386:482], entry), header[482]
        while more:
            block = self._take_block()
            if block is None:
                raise self._truncated()
            segments += tarsparse.pieces_in(block[:504], entry)
            more = block[504]
            tarsparse.check_count(entry, len(segments))
        entry.real_size = tarsparse.real_size_in(header, entry)
        entry.segments = tarsparse.checked(entry, segments, entry.size)

    def _read_pax_sparse(self, entry: Entry, pax: dict[str, bytes]) -> None:
        real = pax.get("GNU.sparse.realsize", pax.get("GNU.sparse.size"))
        if real is None:
            return
        entry.real_size = decimal(real, entry, "GNU.sparse.realsize")
        used = 0
        if pax.get("GNU.sparse.major") == b"1":
            numbers, used = self._read_sparse_map(entry)
        else:
            words = pax.get("GNU.sparse.map", b"")
            numbers = [decimal(word, entry, "GNU.sparse.map") for word in words.split(b",")] if words else []
        entry.segments = tarsparse.checked(entry, tarsparse.pairs(entry, numbers), entry.size - used)

    def _read_sparse_map(self, entry: Entry) -> tuple[list[int], int]:
        """Read the map that begins the body in format 1.0: a count and its numbers, one a line, filled up to a block."""
        lines: list[bytes] = []
        rest, used, wanted = b"", 0, 1
        while len(lines) < wanted:
            if used + BLOCK > entry.size:
                raise ImageError(f"{entry.shown}: its sparse map is longer than its content.")
            *full, rest = (rest + self._take_body(BLOCK)).split(b"\n")
            lines += full
            used += BLOCK
            if lines:
                count = decimal(lines[0], entry, "sparse map")
                tarsparse.check_count(entry, count)
                wanted = 1 + 2 * count
        return [decimal(line, entry, "sparse map") for line in lines[1:wanted]], used

    def _take_block(self) -> bytes | None:
        """Return the next block; None at the end. Raises: ImageError in the middle of one."""
        while self._end - self._start < BLOCK:
            if not self._read_more():
                if self._end == self._start:
                    return None
                raise self._truncated()
        start = self._start
        self._start += BLOCK
        return bytes(self._buffer[start : self._start])

    def _take_body(self, size: int) -> bytes:
        data = bytearray()
        self._left -= size
        while len(data) < size:
            if self._start == self._end and not self._read_more():
                raise self._truncated()
            part = min(size - len(data), self._end - self._start)
            data += self._buffer[self._start : self._start + part]
            self._start += part
        return bytes(data)

    def _take_extension(self, entry: Entry) -> bytes:
        if entry.size > _MOST_EXTENSION_BYTES:
            raise ImageError(f"The extension {entry.shown} has {entry.size} bytes; nobody needs so many.")
        self._left, self._padding = entry.size, -entry.size % BLOCK
        data = self._take_body(entry.size)
        self._finish_body()
        return data

    def _finish_body(self) -> None:
        skip = self._left + self._padding
        self._left = self._padding = 0
        while skip:
            if self._start == self._end and not self._read_more():
                raise self._truncated()
            part = min(skip, self._end - self._start)
            self._start += part
            skip -= part

    def _read_more(self) -> bool:
        if self._start:
            rest = self._end - self._start
            if rest:
                self._buffer[:rest] = bytes(self._buffer[self._start : self._end])
            self._start, self._end = 0, rest
        count = self._fill(self._buffer[self._end :])
        self._end += count
        return count > 0

    def _drain(self) -> None:
        """Read what follows the end mark: whoever writes to the pipe must not get stuck."""
        self._start = self._end = 0
        while self._read_more():
            self._start = self._end = 0

    def _truncated(self) -> ImageError:
        return ImageError(f"The archive ends in the middle, after {self.current}.")


def _movable(source: int | Callable[[memoryview], int]) -> tuple[int, bool]:
    """Return the descriptor from which the system itself can move bytes into files (else -1), and whether it is a pipe."""
    mode = os.fstat(source).st_mode if isinstance(source, int) else 0
    if isinstance(source, int) and (stat.S_ISFIFO(mode) or stat.S_ISREG(mode)):
        return source, stat.S_ISFIFO(mode)
    return -1, False


def _read_fd(fd: int, buffer: memoryview) -> int:
    return os.readv(fd, [buffer])


class Readable(Protocol):
    """What bytes are read from: a file, a blob's reader, a decompressor."""

    def read(self, size: int, /) -> bytes:
        """Return the next bytes, nothing at the end."""
        ...


def filler(stream: Readable) -> Callable[[memoryview], int]:
    """Return a `TarReader`'s source out of a stream, which may give more or fewer bytes than it is asked for."""
    rest = b""

    def fill(buffer: memoryview) -> int:
        nonlocal rest
        data = rest or stream.read(len(buffer))
        part = min(len(buffer), len(data))
        buffer[:part] = data[:part]
        rest = data[part:]
        return part

    return fill

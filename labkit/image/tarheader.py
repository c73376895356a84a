"""The headers of tar: one file's name, kind, owner and size in 512 bytes, and the extensions that outgrew them.

Layers come from strangers, so nothing is taken on trust: the checksum, every number and the length of every extension are checked. A *pax*
header holds ``LENGTH KEY=VALUE`` records for the next entry; GNU tar has its own ``L`` and ``K`` entries for long names, and writes
large numbers in base 256.

Only the standard library is needed, because the child that unpacks (`labkit.image.extract`) runs without site-packages.

Leaves out: character sets (names are bytes, as the kernel has them), access and change times.
See: tar(5) of libarchive; pax(1) of POSIX.1-2008; GNU tar manual, "Basic Tar Format".
"""

from __future__ import annotations

import os
import struct

from labkit.errors import ImageError

__all__ = [
    "BLOCK",
    "BLOCK_DEVICE",
    "CHARACTER",
    "CONTIGUOUS",
    "DIRECTORY",
    "FIFO",
    "FILE",
    "GNU_LINK",
    "GNU_NAME",
    "GNU_SPARSE",
    "HARD_LINK",
    "HAS_BODY",
    "KNOWN",
    "PAX",
    "PAX_GLOBAL",
    "SYMLINK",
    "XATTR",
    "Entry",
    "apply_pax",
    "decimal",
    "parse_header",
    "pax_records",
]

BLOCK = 512
FILE, HARD_LINK, SYMLINK, CHARACTER, BLOCK_DEVICE, DIRECTORY, FIFO, CONTIGUOUS = (b"%d" % kind for kind in range(8))
PAX, PAX_GLOBAL, GNU_NAME, GNU_LINK, GNU_SPARSE = b"x", b"g", b"L", b"K", b"S"
#: What an entry can be, and which kinds are followed by bytes.
KNOWN = frozenset((FILE, HARD_LINK, SYMLINK, CHARACTER, BLOCK_DEVICE, DIRECTORY, FIFO, CONTIGUOUS, GNU_SPARSE))
HAS_BODY = frozenset((FILE, CONTIGUOUS, GNU_SPARSE))
#: How the key of an extended attribute begins.
XATTR = "SCHILY.xattr."
# name mode uid gid size mtime checksum type linkname magic version uname gname devmajor devminor prefix
_HEADER = struct.Struct("100s8s8s8s12s12s8sc100s6s2s32s32s8s8s155s12x")
_LARGEST = 2**63 - 1
_SPARSE_PAIR, _SPARSE_LIST = ("GNU.sparse.offset", "GNU.sparse.numbytes"), "GNU.sparse.map"
_NS = 1_000_000_000


class Entry:
    """One file of an archive, as its headers describe it. Names are bytes, as the kernel has them."""

    __slots__ = ("gid", "kind", "link", "mode", "mtime_ns", "name", "real_size", "segments", "size", "uid", "xattrs")

    def __init__(
        self, kind: bytes, name: bytes, link: bytes, *, mode: int, uid: int, gid: int, size: int, mtime_ns: int
    ) -> None:
        self.kind, self.name, self.link = kind, name, link
        self.mode, self.uid, self.gid = mode, uid, gid
        #: Bytes in the archive; ``real_size`` is the file's, which differs if it is sparse.
        self.size = self.real_size = size
        self.mtime_ns = mtime_ns
        self.xattrs: dict[str, bytes] = {}
        #: Of a sparse file: where the bytes in the archive belong, as (offset, length).
        self.segments: list[tuple[int, int]] | None = None

    @property
    def shown(self) -> str:
        """The name as it is shown in messages."""
        return repr(os.fsdecode(self.name))


def parse_header(header: bytes) -> Entry:
    """Return the entry of one header block. Raises: ImageError if it is damaged."""
    fields = _HEADER.unpack(header)
    name = fields[0].partition(b"\0")[0]
    expected = _number(fields[6], name, "checksum")
    # The checksum is taken with its own field as eight spaces.
    found = sum(header) - sum(fields[6]) + 256
    if found != expected and _signed_sum(header, fields[6]) != expected:
        raise ImageError(f"The header of {os.fsdecode(name)!r} is damaged: its checksum is {found}, not {expected}.")
    if fields[9] == b"ustar\0" and fields[15][0]:
        name = fields[15].partition(b"\0")[0] + b"/" + name
    kind = FILE if fields[7] == b"\0" else fields[7]
    if kind == FILE and name.endswith(b"/"):
        kind = DIRECTORY  # as before POSIX
    number = _number
    return Entry(
        kind, name, fields[8].partition(b"\0")[0],
        mode=number(fields[1], name, "mode") & 0o7777, uid=number(fields[2], name, "uid"),
        gid=number(fields[3], name, "gid"), size=number(fields[4], name, "size"),
        mtime_ns=number(fields[5], name, "time", signed=True) * _NS,
    )  # fmt: skip


def _number(field: bytes, name: bytes, what: str, *, signed: bool = False) -> int:
    """Return an octal number, or one in base 256 (GNU: first bit set)."""
    if field[0] & 0x80:
        value = int.from_bytes(field, "big", signed=field[0] == 0xFF)
        value = value if field[0] == 0xFF else value & ((1 << (8 * len(field) - 1)) - 1)
        if -_LARGEST <= value <= _LARGEST and (signed or value >= 0):
            return value
    else:
        text = field.partition(b"\0")[0].strip()
        if not text:
            return 0
        if text.isdigit():
            try:
                return int(text, 8)
            except ValueError:
                pass
    raise ImageError(f"The header of {os.fsdecode(name)!r} is damaged: its {what} {field!r} is no number.")


def _signed_sum(header: bytes, checksum: bytes) -> int:
    # Some old programs added the bytes as signed numbers.
    negative = sum(1 for byte in header if byte > 127) - sum(1 for byte in checksum if byte > 127)
    return sum(header) - sum(checksum) + 256 - 256 * negative


def pax_records(data: bytes) -> dict[str, bytes]:
    """Split ``LENGTH KEY=VALUE\\n`` records; the length counts all of it."""
    records: dict[str, bytes] = {}
    at, end = 0, len(data.rstrip(b"\0"))
    while at < end:
        space = data.find(b" ", at, at + 10)
        length = int(data[at:space]) if data[at:space].isdigit() else 0
        key, equals, value = data[space + 1 : at + length].partition(b"=")
        if not (equals and value.endswith(b"\n") and at + length <= len(data)):
            raise ImageError(f"A pax header is damaged at {data[at : at + 40]!r}.")
        name = key.decode(errors="surrogateescape")
        if name in _SPARSE_PAIR:
            # The one key that comes again and again (GNU tar's format 0.0): gathered into the list that format 0.1 has.
            name, value = (
                _SPARSE_LIST,
                records.get(_SPARSE_LIST, b"") + (b"," if _SPARSE_LIST in records else b"") + value,
            )
        records[name] = value[:-1]
        at += length
    return records


def apply_pax(entry: Entry, pax: dict[str, bytes]) -> None:
    """Let the records of ``pax`` replace what the header of ``entry`` says. Raises: ImageError."""
    for key, value in pax.items():
        if key == "path":
            entry.name = value
        elif key == "linkpath":
            entry.link = value
        elif key == "GNU.sparse.name":
            continue
        elif key in ("size", "uid", "gid"):
            setattr(entry, key, decimal(value, entry, key))
        elif key == "mtime":
            entry.mtime_ns = _nanoseconds(value, entry)
        elif key.startswith(XATTR):
            entry.xattrs[key[len(XATTR) :]] = value
    if "size" in pax:
        entry.real_size = entry.size
    entry.name = pax.get("GNU.sparse.name", entry.name)


def decimal(text: bytes, entry: Entry, what: str) -> int:
    """Return a number from an extension of ``entry``. Raises: ImageError unless it is one of at most 63 bits."""
    if text.isdigit() and len(text) < 20 and int(text) <= _LARGEST:
        return int(text)
    raise ImageError(f"{entry.shown}: its {what} is {os.fsdecode(text[:40])!r}, which is no number.")


def _nanoseconds(text: bytes, entry: Entry) -> int:
    """Return a decimal fraction of seconds exactly, as a float could not."""
    sign, digits = (-1, text[1:]) if text.startswith(b"-") else (1, text)
    seconds, _, fraction = digits.partition(b".")
    if not seconds.isdigit() or not (fraction or b"0").isdigit() or len(seconds) > 12:
        raise ImageError(f"{entry.shown}: its time is {os.fsdecode(text[:40])!r}, which is no number.")
    return sign * (int(seconds) * _NS + int(fraction[:9].ljust(9, b"0")))

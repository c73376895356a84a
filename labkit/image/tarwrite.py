"""Writing tar, always the same way: the same files give the same bytes, and so the same digest.

Entries are POSIX ustar, with a pax header only for what does not fit: a name or link of more than 100 bytes, large numbers,
extended attributes. Times are whole seconds; there are no user names, which would depend on the machine.

Only the standard library is needed, because the child that packs (`labkit.image.treewalk`) runs without site-packages.

Leaves out: access and change times, sparse files (holes are written as zeros, and compress well).
See: pax(1) of POSIX.1-2008, "ustar Interchange Format" and "pax Extended Header".
"""

from __future__ import annotations

from collections.abc import Mapping

from labkit.image.tarheader import BLOCK, DIRECTORY, PAX, XATTR

__all__ = ["END", "header_of", "padding"]

#: Two empty blocks end an archive.
END = bytes(2 * BLOCK)
_NAME_BYTES = 100
_MOST_ID = 0o7777777
_MOST_SIZE = 0o77777777777


def padding(size: int) -> bytes:
    """Return what fills ``size`` bytes up to a whole block."""
    return bytes(-size % BLOCK)


def header_of(
    kind: bytes, name: bytes, *, mode: int = 0o644, uid: int = 0, gid: int = 0, size: int = 0, mtime_s: int = 0,
    link: bytes = b"", xattrs: Mapping[str, bytes] | None = None,
) -> bytes:  # fmt: skip
    """Return the header of one entry, with a pax header before it if need be. A folder's name gets its slash."""
    if kind == DIRECTORY and not name.endswith(b"/"):
        name += b"/"
    records: dict[str, bytes] = {}
    if len(name) > _NAME_BYTES:
        records["path"] = name
    if len(link) > _NAME_BYTES:
        records["linkpath"] = link
    for key, number, most in (("uid", uid, _MOST_ID), ("gid", gid, _MOST_ID), ("size", size, _MOST_SIZE)):
        if number > most:
            records[key] = b"%d" % number
    if not 0 <= mtime_s <= _MOST_SIZE:
        records["mtime"] = b"%d" % mtime_s
    for key, value in sorted((xattrs or {}).items()):
        records[XATTR + key] = value
    extension = _pax_header(records) if records else b""
    return extension + _block(
        kind, name[:_NAME_BYTES], mode=mode, uid=uid if uid <= _MOST_ID else 0, gid=gid if gid <= _MOST_ID else 0,
        size=size if size <= _MOST_SIZE else 0, mtime_s=min(max(mtime_s, 0), _MOST_SIZE), link=link[:_NAME_BYTES],
    )  # fmt: skip


def _block(
    kind: bytes, name: bytes, *, mode: int, uid: int, gid: int, size: int, mtime_s: int, link: bytes
) -> bytes:  # fmt: skip
    head = b"%b%07o\0%07o\0%07o\0%011o\0%011o\0" % (name.ljust(100, b"\0"), mode, uid, gid, size, mtime_s)
    tail = b"%b%bustar\00000%b0000000\0000000000\0" % (kind, link.ljust(100, b"\0"), bytes(64))
    tail = tail.ljust(BLOCK - len(head) - 8, b"\0")
    checksum = sum(head) + sum(tail) + 8 * 0x20
    return head + b"%06o\0 " % checksum + tail


def _pax_header(records: Mapping[str, bytes]) -> bytes:
    body = b"".join(_record(key, value) for key, value in records.items())
    # Its own name means nothing; GNU tar shows it when it does not know pax.
    return (
        _block(PAX, b"pax", mode=0o644, uid=0, gid=0, size=len(body), mtime_s=0, link=b"") + body + padding(len(body))
    )


def _record(key: str, value: bytes) -> bytes:
    rest = b" %b=%b\n" % (key.encode(errors="surrogateescape"), value)
    length = len(rest) + len(str(len(rest)))
    # The length counts its own digits, which may make it one digit longer.
    return b"%d%b" % (length if len(str(length)) + len(rest) == length else length + 1, rest)

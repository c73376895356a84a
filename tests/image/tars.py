"""Archives made by hand, byte by byte: what no honest program writes, and what honest ones write rarely."""

from __future__ import annotations

import gzip
import io
import struct
import tarfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass

__all__ = ["HOSTILE", "Hostile", "end", "entry", "gnu_long", "pax", "tar"]

FILE, HARD, LINK, CHAR, BLOCK, FOLDER, FIFO = (str(number).encode() for number in range(7))


def _block(kind: bytes, name: bytes, **fields: bytes) -> bytes:
    """Return a header; ``fields`` replace what would stand in it, byte for byte."""
    values = {
        "name": name.ljust(100, b"\0")[:100], "mode": b"0000644\0", "uid": b"0000000\0", "gid": b"0000000\0",
        "size": b"00000000000\0", "mtime": b"00000000000\0", "checksum": b" " * 8, "kind": kind,
        "link": bytes(100), "magic": b"ustar\0", "version": b"00", "uname": bytes(32), "gname": bytes(32),
        "major": b"0000000\0", "minor": b"0000000\0", "prefix": bytes(155), "end": bytes(12),
    } | fields  # fmt: skip
    block = b"".join(values.values())
    assert len(block) == 512, {key: len(value) for key, value in values.items()}
    if values["checksum"] == b" " * 8:
        block = block[:148] + b"%06o\0 " % sum(block) + block[156:]
    return block


def entry(
    kind: bytes, name: str | bytes, data: bytes = b"", *, link: str | bytes = b"", mode: int | None = None, uid: int = 0,
    gid: int = 0, **fields: bytes,
) -> bytes:  # fmt: skip
    """Return one entry: header, content, padding."""
    raw = name.encode() if isinstance(name, str) else name
    target = link.encode() if isinstance(link, str) else link
    mode = mode if mode is not None else 0o755 if kind == FOLDER else 0o644
    made = {
        "mode": b"%07o\0" % mode, "uid": b"%07o\0" % uid, "gid": b"%07o\0" % gid, "size": b"%011o\0" % len(data),
        "link": target.ljust(100, b"\0")[:100],
    }  # fmt: skip
    return _block(kind, raw, **(made | fields)) + data + bytes(-len(data) % 512)


def pax(records: Mapping[str, str | bytes], *, kind: bytes = b"x") -> bytes:
    """Return a pax header with ``records``."""
    body = b""
    for key, value in records.items():
        raw = value.encode() if isinstance(value, str) else value
        rest = b" " + key.encode() + b"=" + raw + b"\n"
        length = len(rest) + 1
        while len(str(length)) + len(rest) != length:
            length += 1
        body += str(length).encode() + rest
    return entry(kind, "pax", body)


def gnu_long(name: bytes, *, kind: bytes = b"L") -> bytes:
    """Return GNU tar's entry for a long name (L) or link (K)."""
    return entry(kind, "././@LongLink", name + b"\0")


def end() -> bytes:
    """Return the end mark."""
    return bytes(1024)


def tar(*entries: bytes) -> bytes:
    """Return an archive."""
    return b"".join(entries) + end()


@dataclass(frozen=True)
class Hostile:
    """An archive, and a part of the sentence with which it is refused; None: it is unpacked, harmlessly."""

    name: str
    data: bytes | Callable[[], bytes]
    refused: str | None


def _ok(name: str, *entries: bytes) -> Hostile:
    return Hostile(name, tar(*entries), None)


def _bad(name: str, refused: str, *entries: bytes) -> Hostile:
    return Hostile(name, tar(*entries), refused)


_f = entry(FILE, "before", b"x")
_sparse_name = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "s"}


def _old_sparse(pieces: list[tuple[int, int]], data: bytes, real: int) -> bytes:
    body = b"".join(b"%011o\0%011o\0" % piece for piece in pieces).ljust(96, b"\0")
    # ABI of GNU tar: the map at 386, "more blocks follow" at 482, the real size at 483.
    tail = (bytes(41) + body + b"\0" + b"%011o\0" % real).ljust(167, b"\0")
    return entry(b"S", "s", data, magic=b"ustar ", version=b" \0", prefix=tail[:155], end=tail[155:167])


HOSTILE: tuple[Hostile, ...] = (
    # Ways out of the target.
    _bad("dot-dot", "'..'", entry(FILE, "../out", b"x")),
    _bad("dot-dot in the middle", "'..'", entry(FILE, "a/../../out", b"x")),
    _bad("dot-dot as a folder", "'..'", entry(FOLDER, "..")),
    _bad("dot-dot in pax", "'..'", pax({"path": "a/../../../out"}), entry(FILE, "a", b"x")),
    _bad("dot-dot in a GNU name", "'..'", gnu_long(b"../" * 60 + b"out"), entry(FILE, "a", b"x")),
    _bad("dot-dot in a prefix", "'..'", entry(FILE, "out", b"x", prefix=b"../..".ljust(155, b"\0"))),
    _bad("hard link upwards", "'..'", entry(HARD, "h", link="../../etc/passwd")),
    _bad("whiteout of dot-dot", "whiteout", entry(FILE, "d/.wh...")),
    _bad("whiteout of dot", "whiteout", entry(FILE, "d/.wh..")),
    _bad("whiteout of nothing", "whiteout", entry(FILE, ".wh.")),
    _ok("absolute name", entry(FILE, "/etc/labkit-out", b"x")),
    _ok("absolute link", entry(LINK, "l", link="/etc/passwd")),
    _ok("write through an absolute link", entry(LINK, "l", link="/etc"), entry(FOLDER, "etc"), entry(FILE, "l/labkit-out", b"x")),
    _bad("write through a link to nowhere", "leads nowhere", entry(LINK, "l", link="/tmp/x"), entry(FILE, "l/labkit-out", b"x")),
    _bad("through a link upwards", "leads nowhere", entry(LINK, "l", link="../../../../tmp/x"), entry(FILE, "l/labkit-out", b"x")),
    _bad("through two links", "leads nowhere", entry(LINK, "a", link="../.."), entry(LINK, "b", link="a/tmp/x"), entry(FILE, "b/out", b"x")),
    _bad("link to itself", "Too many levels", entry(LINK, "l", link="l"), entry(FILE, "l/out", b"x")),
    _ok("file over a link out", entry(LINK, "l", link="/etc/passwd"), entry(FILE, "l", b"x")),
    _ok("folder over a link out", entry(LINK, "l", link="/etc"), entry(FOLDER, "l"), entry(FILE, "l/labkit-out", b"x")),
    _bad("hard link through a link out", "not there", entry(LINK, "l", link="/etc"), entry(HARD, "h", link="l/passwd")),
    _ok("hard link to a link out", entry(LINK, "l", link="/etc/passwd"), entry(HARD, "h", link="l"), entry(FILE, "h", b"x")),
    _bad("hard link to what is not there", "not there", entry(HARD, "h", link="/etc/passwd")),
    _bad("hard link to a folder", "a folder", entry(FOLDER, "d"), entry(HARD, "h", link="d")),
    _bad("hard link to a whiteout", "removed", entry(FILE, ".wh.w"), entry(HARD, "h", link="w")),
    _bad("root as a link", "root folder", entry(LINK, "./", link="/etc")),
    _bad("root as a file", "root folder", entry(FILE, ".", b"x")),
    _bad("file below a file", "no folder", entry(FILE, "f", b"x"), entry(FILE, "f/g", b"x")),
    _bad("file below a FIFO", "no folder", entry(FIFO, "f"), entry(FILE, "f/g", b"x")),
    _ok("FIFO as /etc/passwd, then a file", entry(FIFO, "etc/passwd"), entry(FILE, "etc/passwd", b"root")),
    # What overlayfs would read as something else.
    _ok("character device 0:0", entry(CHAR, "dev0")),
    _ok("block device", entry(BLOCK, "sda", major=b"0000010\0")),
    _ok("opaque by attribute", pax({"SCHILY.xattr.user.overlay.opaque": "y"}), entry(FOLDER, "d")),
    _ok("trusted opaque", pax({"SCHILY.xattr.trusted.overlay.opaque": "y"}), entry(FOLDER, "d")),
    _ok("redirect by attribute", pax({"SCHILY.xattr.user.overlay.redirect": "/etc"}), entry(FOLDER, "d")),
    _ok("metacopy by attribute", pax({"SCHILY.xattr.trusted.overlay.metacopy": ""}), entry(FILE, "f")),
    _ok("selinux label", pax({"SCHILY.xattr.security.selinux": "u:r:t"}), entry(FILE, "f")),
    _bad("whiteout as a folder's name", ".wh.", entry(FILE, ".wh.d/f", b"x")),
    _ok("AUFS's book-keeping", entry(FILE, ".wh..wh.aufs"), entry(FOLDER, ".wh..wh.plnk")),
    # Damage and lies.
    _bad("wrong checksum", "checksum", entry(FILE, "f", b"x", checksum=b"0000001\0")),
    _bad("checksum that is no number", "checksum", entry(FILE, "f", checksum=b"xxxxxxxx")),
    Hostile("noise", bytes(range(256)) * 8, "damaged"),
    Hostile("header cut", tar(_f)[:700], "in the middle"),
    Hostile("content cut", (_f + entry(FILE, "f", b"x" * 5000))[:3000], "in the middle, after 'f'"),
    Hostile("second block of the end missing is no damage", _f + bytes(512), None),
    Hostile("extension cut", gnu_long(b"n" * 2000)[:1024], "in the middle"),
    Hostile("extension without an entry", tar(pax({"path": "x"})), "not there"),
    _bad("size that is no number", "size", entry(FILE, "f", size=b"12345x78901\0")),
    _bad("size with a sign", "size", entry(FILE, "f", size=b"-0000000001\0")),
    _bad("size with an underscore", "size", entry(FILE, "f", size=b"00000000_10\0")),
    _bad("negative size in base 256", "size", entry(FILE, "f", size=b"\xff" * 12)),
    _bad("size of 2^63 in base 256", "size", entry(FILE, "f", size=b"\x80" + bytes(3) + b"\x80" + bytes(7))),
    _bad("size beyond the archive", "limit of", pax({"size": "8589934592000"}), entry(FILE, "f", b"x")),
    _bad("pax size that is no number", "size", pax({"size": "1e3"}), entry(FILE, "f", b"x")),
    _bad("negative pax size", "size", pax({"size": "-1"}), entry(FILE, "f", b"x")),
    _bad("pax time that is no number", "time", pax({"mtime": "NaN"}), entry(FILE, "f", b"x")),
    _bad("pax owner that is no number", "uid", pax({"uid": "root"}), entry(FILE, "f", b"x")),
    _bad("pax length too long", "pax", entry(b"x", "pax", b"99 path=x\n"), entry(FILE, "f")),
    _bad("pax length too short", "pax", entry(b"x", "pax", b"3 path=x\n"), entry(FILE, "f")),
    _bad("pax length zero", "pax", entry(b"x", "pax", b"0 path=x\n"), entry(FILE, "f")),
    _bad("pax without a key", "pax", entry(b"x", "pax", b"hello world\n"), entry(FILE, "f")),
    _bad("NUL in a pax path", "NUL", pax({"path": b"a\0b"}), entry(FILE, "f")),
    _bad("NUL in a pax link", "NUL", pax({"linkpath": b"a\0b"}), entry(LINK, "l", link="x")),
    _bad("unknown type", "unknown type", entry(b"Z", "f")),
    _bad("multi-volume", "unknown type", entry(b"M", "f")),
    _bad("link to nothing", "link to nothing", entry(LINK, "l")),
    _bad("owner without a place in the range", "65536", entry(FILE, "f", uid=70000)),
    _bad("pax owner far away", "65536", pax({"gid": "4294967295"}), entry(FILE, "f")),
    # Bombs.
    _bad("long names in a row", "extensions in a row", *[gnu_long(b"x" * 200) for _ in range(20)], entry(FILE, "f")),
    _bad("an extension of two megabytes", "nobody needs", entry(b"L", "l", bytes(2 << 20)), entry(FILE, "f")),
    _bad("a path of 5000 bytes", "4096 bytes", gnu_long(b"d/" * 2500), entry(FILE, "f")),
    _bad("a name of 300 bytes", "too long", gnu_long(b"n" * 300), entry(FILE, "f")),
    _bad("a link of 5000 bytes", "4096 bytes", gnu_long(b"n" * 5000, kind=b"K"), entry(LINK, "f")),
    _ok("folders 2000 deep", gnu_long(b"d/" * 1990 + b"f"), entry(FILE, "f", b"x")),
    _bad("sparse beyond its size", "sparse map", _old_sparse([(1 << 20, 512)], b"x" * 512, 1024)),
    _bad("sparse pieces that overlap", "sparse map", _old_sparse([(0, 512), (100, 512)], b"x" * 1024, 4096)),
    _bad("sparse pieces that lie about the content", "sparse map", _old_sparse([(0, 512)], b"x" * 1024, 4096)),
    _bad("sparse, a terabyte", "limit of", _old_sparse([(0, 512)], b"x" * 512, 1 << 33)),
    _bad("pax sparse without its map", "sparse map", pax(_sparse_name | {"GNU.sparse.realsize": "100"}), entry(FILE, "s", b"")),
    _bad("pax sparse with a wild count", "pieces", pax(_sparse_name | {"GNU.sparse.realsize": "100"}), entry(FILE, "s", b"999999999\n".ljust(512, b"\0"))),
    _bad("pax sparse, half a pair", "pair", pax({"GNU.sparse.size": "9", "GNU.sparse.map": "0,1,2"}), entry(FILE, "s", b"x")),
)  # fmt: skip


def reference_tar(build: Callable[[tarfile.TarFile], None], *, gz: bool = False) -> bytes:
    """Return an archive that Python's own tarfile writes."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        build(archive)
    return gzip.compress(buffer.getvalue(), mtime=0) if gz else buffer.getvalue()


def zstd_bomb(blocks: int) -> bytes:
    """Return a zstd frame of run-length blocks: 128 KiB of zeros for every 4 bytes. See: RFC 8878, 3.1.1.2."""
    head = b"\x28\xb5\x2f\xfd" + bytes([0x00, 0x58])  # no size, a window of 2 MiB
    size = 128 << 10
    block = struct.pack("<I", size << 3 | 1 << 1)[:3] + b"\0"
    last = struct.pack("<I", size << 3 | 1 << 1 | 1)[:3] + b"\0"
    return head + block * (blocks - 1) + last

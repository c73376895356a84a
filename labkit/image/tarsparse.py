"""Sparse files in tar: only the pieces that hold bytes are stored, with a map that says where each belongs.

GNU tar has written the map in the header (type ``S``), in pax records (formats 0.0 and 0.1) and in front of the body (1.0). A map
of strangers could place one piece over another, or beyond the file's end, so it is checked as a whole.

See: GNU tar manual, "Storing Sparse Files".
"""

from __future__ import annotations

from labkit.errors import ImageError
from labkit.image.tarheader import Entry

__all__ = ["check_count", "checked", "pairs", "pieces_in", "real_size_in"]

_MOST_PIECES = 1 << 16
_PIECE_BYTES = 24


def check_count(entry: Entry, count: int) -> None:
    """Refuse a map of more pieces than any file needs. Raises: ImageError."""
    if count > _MOST_PIECES:
        raise ImageError(f"{entry.shown} is sparse in more than {_MOST_PIECES} pieces.")


def pieces_in(data: bytes, entry: Entry) -> list[tuple[int, int]]:
    """Return the (offset, length) pairs in a GNU header: two numbers of 12 bytes each, up to the first empty pair."""
    found = []
    for at in range(0, len(data), _PIECE_BYTES):
        piece = data[at : at + _PIECE_BYTES]
        if not piece.strip(b"\0"):
            break
        found.append((_number(piece[:12], entry), _number(piece[12:], entry)))
    return found


def real_size_in(header: bytes, entry: Entry) -> int:
    """Return the file's whole size, as a GNU header has it."""
    return _number(header[483:495], entry)


def pairs(entry: Entry, numbers: list[int]) -> list[tuple[int, int]]:
    """Return offset, length, offset, length ... as pairs. Raises: ImageError for an odd one."""
    check_count(entry, len(numbers) // 2)
    if len(numbers) % 2:
        raise ImageError(f"{entry.shown}: its sparse map ends in the middle of a pair.")
    return list(zip(numbers[::2], numbers[1::2], strict=True))


def checked(entry: Entry, pieces: list[tuple[int, int]], stored_bytes: int) -> list[tuple[int, int]]:
    """Refuse a map whose pieces overlap, go backwards, leave the file, or are not what the archive holds. Raises: ImageError."""
    at = 0
    for offset, length in pieces:
        if offset < at or length < 0 or offset + length > entry.real_size:
            raise ImageError(f"{entry.shown}: the pieces of its sparse map do not lie in the file one after another.")
        at = offset + length
    if sum(length for _, length in pieces) != stored_bytes:
        raise ImageError(f"{entry.shown}: its sparse map speaks of other bytes than the {stored_bytes} that are there.")
    return pieces


def _number(field: bytes, entry: Entry) -> int:
    if field[0] & 0x80:
        return int.from_bytes(field, "big") & ((1 << (8 * len(field) - 1)) - 1)
    text = field.partition(b"\0")[0].strip()
    try:
        return int(text or b"0", 8)
    except ValueError:
        raise ImageError(f"{entry.shown}: its sparse map is damaged at {field!r}.") from None

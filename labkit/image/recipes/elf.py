"""Just enough of ELF to read which loader a program asks for (its PT_INTERP segment).

See: elf(5); ld.so(8).
"""

from __future__ import annotations

import struct
from pathlib import Path

__all__ = ["loader_of"]

_PT_INTERP = 3  # linux/elf.h
_HEAD_BYTES = 1 << 16


def loader_of(program: Path) -> Path | None:
    """Return the loader that ``program`` names; None for a static program, or for what is no 64-bit ELF file."""
    with program.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    if head[:5] != b"\x7fELF\x02":
        return None
    order = "<" if head[5] == 1 else ">"
    start = struct.unpack_from(f"{order}Q", head, 32)[0]
    size, count = struct.unpack_from(f"{order}HH", head, 54)
    for offset in range(start, start + size * count, size):
        # ABI: struct elf64_phdr: type, flags, offset, virtual and physical address, size in the file.
        kind, _, place, _, _, length = struct.unpack_from(f"{order}IIQQQQ", head, offset)
        if kind == _PT_INTERP:
            return Path(head[place : place + length].rstrip(b"\0").decode())
    return None

"""The machine's memory, and the time that programs lose waiting for resources (pressure stall information).

``/proc/meminfo`` counts pages by what they are used for. ``/proc/pressure/*`` says how much of the wall time at least
one task (``some``) could not go on because memory, CPU or I/O was short: 0 while nobody waits, however busy the
machine is.

Leaves out: NUMA nodes, huge pages, slab.
See: proc_meminfo(5), Documentation/accounting/psi.rst.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from labkit.linux.proc import read_text, sizes_bytes

__all__ = ["MemoryInfo", "PressureLine", "parse_meminfo", "parse_pressure_line", "read_meminfo", "read_pressure"]


@dataclass(frozen=True, slots=True)
class MemoryInfo:
    """The machine's memory. A new program could get ``available_bytes`` without swapping; ``free_bytes`` are unused."""

    total_bytes: int
    free_bytes: int
    available_bytes: int
    cached_bytes: int
    shared_bytes: int
    swap_total_bytes: int
    swap_free_bytes: int


@dataclass(frozen=True, slots=True)
class PressureLine:
    """Share of wall time lost to waiting, averaged over 10, 60 and 300 s, and the time lost since the beginning."""

    avg10_percent: float
    avg60_percent: float
    avg300_percent: float
    total_usec: int


def parse_meminfo(text: str) -> MemoryInfo:
    """Return the machine's memory from ``/proc/meminfo``."""
    sizes = sizes_bytes(text)
    keys = ("MemTotal", "MemFree", "MemAvailable", "Cached", "Shmem", "SwapTotal", "SwapFree")
    return MemoryInfo(*(sizes[key] for key in keys))


def parse_pressure_line(line: str) -> PressureLine:
    """Return the numbers of ``some avg10=0.00 avg60=0.00 avg300=0.00 total=0`` (or of the ``full`` line)."""
    values = dict(word.split("=", 1) for word in line.split()[1:])
    return PressureLine(
        avg10_percent=float(values["avg10"]),
        avg60_percent=float(values["avg60"]),
        avg300_percent=float(values["avg300"]),
        total_usec=int(values["total"]),
    )


def read_meminfo() -> MemoryInfo:
    """Return the machine's memory."""
    return parse_meminfo(read_text("/proc/meminfo"))


def read_pressure(resource: Literal["cpu", "io", "memory"]) -> PressureLine:
    """Return the ``some`` line of the whole machine. Raises: OSError with ENOENT or EOPNOTSUPP where PSI is off."""
    return parse_pressure_line(read_text(f"/proc/pressure/{resource}").splitlines()[0])

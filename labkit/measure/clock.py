"""The clock that every experiment reads, and how fine it is.

``CLOCK_MONOTONIC`` counts from boot, never jumps back, and is slewed but not set by NTP: two readings differ by elapsed time.
The wall clock would not do, because it is set; a process's CPU time would not either, because a start-up is mostly
waiting for the kernel. Reading it takes tens of nanoseconds through the vDSO, without a system call.

Leaves out: per-CPU counters, CLOCK_MONOTONIC_RAW.
See: clock_gettime(2), vdso(7), time_namespaces(7) (inside one the clock has an offset, which differences do not show).
"""

from __future__ import annotations

import time
from collections.abc import Callable

__all__ = ["CLOCK", "now_ms", "resolution_ms", "time_ms"]

#: The name under which results mention it.
CLOCK = "CLOCK_MONOTONIC"


def now_ms() -> float:
    """Return the reading in milliseconds; only differences mean something."""
    return time.monotonic_ns() / 1e6


def resolution_ms() -> float:
    """Return the smallest difference that the clock can show, by clock_getres(2)."""
    return time.clock_getres(time.CLOCK_MONOTONIC) * 1e3


def time_ms(action: Callable[[], object]) -> float:
    """Return how long one call of ``action`` took, in milliseconds."""
    began_ns = time.monotonic_ns()
    action()
    return (time.monotonic_ns() - began_ns) / 1e6

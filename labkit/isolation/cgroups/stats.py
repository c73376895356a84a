"""What a cgroup has used: counters and events, read from files and turned into numbers with units.

Three forms of file occur: one number (``memory.current``), a number after each key (``cpu.stat``, ``memory.events``),
and keys nested under a device (``io.stat``). A counter that this kernel does not keep is ``None``, never 0.

Leaves out: the 50 lines of ``memory.stat``, per-CPU and per-NUMA-node figures, operations a second.
See: Documentation/admin-guide/cgroup-v2.rst; `psi` for pressure.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

__all__ = ["Events", "Stats", "parse_keyed", "sum_nested"]


@dataclass(frozen=True, slots=True)
class Stats:
    """One reading of a cgroup's counters; ``None`` where the host has no such counter.

    ``memory_bytes`` includes page cache. ``throttled_usec`` is the time that run queues waited for the next period,
    added over CPUs; ``nr_throttled`` of ``nr_periods`` periods ended early.
    """

    memory_bytes: int | None = None
    memory_peak_bytes: int | None = None
    swap_bytes: int | None = None
    pids: int | None = None
    cpu_usage_usec: int | None = None
    cpu_user_usec: int | None = None
    cpu_system_usec: int | None = None
    throttled_usec: int | None = None
    nr_throttled: int | None = None
    nr_periods: int | None = None
    oom_kills: int | None = None
    pids_limit_hits: int | None = None
    io_read_bytes: int | None = None
    io_write_bytes: int | None = None

    def completed_by(self, other: Stats) -> Stats:
        """Return these counters, with those of ``other`` where this has none: the halves of a hybrid group."""
        return Stats(*(_first(getattr(self, field.name), getattr(other, field.name)) for field in fields(self)))


@dataclass(frozen=True, slots=True)
class Events:
    """The state changes that the kernel counts or flags for a cgroup; `Cgroup.wait_event` waits for the next one.

    ``populated`` is true while a process lives in the group or below. ``memory_limit_hits`` counts the times that the
    group ran into its limit and had to reclaim, whether or not that ended in an OOM kill.
    """

    populated: bool
    frozen: bool
    oom_kills: int | None = None
    memory_limit_hits: int | None = None
    memory_high_hits: int | None = None
    pids_limit_hits: int | None = None

    def completed_by(self, other: Events) -> Events:
        """Return these events with the flags of ``other`` and its counters where this has none."""
        return replace(
            other,
            oom_kills=_first(self.oom_kills, other.oom_kills),
            memory_limit_hits=_first(self.memory_limit_hits, other.memory_limit_hits),
            memory_high_hits=_first(self.memory_high_hits, other.memory_high_hits),
            pids_limit_hits=_first(self.pids_limit_hits, other.pids_limit_hits),
        )


def parse_keyed(text: str) -> dict[str, int]:
    """Return ``{"usage_usec": 7, ...}`` of a file with one key and one number a line; other lines are left out."""
    numbers: dict[str, int] = {}
    for line in text.splitlines():
        key, _, value = line.partition(" ")
        if value.isdecimal():
            numbers[key] = int(value)
    return numbers


def sum_nested(text: str, key: str) -> int:
    """Return the sum of ``key=`` over all devices of a file such as ``io.stat``."""
    prefix = key + "="
    words = (word for line in text.splitlines() for word in line.split() if word.startswith(prefix))
    return sum(int(word[len(prefix) :]) for word in words)


def _first(value: int | None, other: int | None) -> int | None:
    return other if value is None else value

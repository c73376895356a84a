"""Limits of a cgroup, in the words of cgroup v2, and the arithmetic between v1 and v2.

The kernel takes each limit as a line of text written to a file. v1 and v2 differ in the name of the file and in the
unit: v2 shares the CPU by ``cpu.weight`` (1 to 10000, default 100), v1 by ``cpu.shares`` (2 to 262144, default 1024).
Both are only ratios between siblings, so labkit converts as the kernel itself does, linearly: 100 is 1024, and 100
to 300 stays 1 to 3.

Leaves out: huge pages, RDMA, realtime scheduling, burst, device rules, limits in operations a second.
See: Documentation/admin-guide/cgroup-v2.rst in the kernel's source, cgroups(7), cpuset(7).
"""

from __future__ import annotations

import math
import mmap
import re
from dataclasses import dataclass

from labkit.errors import InvalidSpec

__all__ = [
    "CPU_PERIOD_USEC",
    "NO_LIMITS",
    "Limits",
    "format_cpuset",
    "parse_cpuset",
    "quota_usec",
    "shares_from_weight",
    "weight_from_shares",
]

#: The time over which a CPU limit is counted: half a CPU is 50 ms of run time in each 100 ms.
CPU_PERIOD_USEC = 100_000
#: The kernel refuses a quota under 1 ms (``min_cfs_quota_period`` in kernel/sched/core.c).
_MIN_QUOTA_USEC = 1_000
_MAX_CPUS = 1_000_000.0
_MAX_BYTES = 2**63 - 1
_MAX_PIDS = 2**22  # PID_MAX_LIMIT, linux/threads.h
_MAX_CPU_NUMBER = 8191  # NR_CPUS of the largest distribution kernels
_CPUSET_PART = re.compile(r"(\d{1,6})(?:-(\d{1,6}))?\Z", re.ASCII)


@dataclass(frozen=True, slots=True)
class Limits:
    """What a cgroup may use; ``None`` means not limited. Wrong values raise `InvalidSpec` at once.

    ``memory_bytes`` counts all memory of the group, page cache included; reaching it makes the kernel reclaim, then
    kill. ``swap_bytes`` limits swap on top of it and needs ``memory_bytes`` (v1 can only limit the sum); without it
    a group on a machine with swap is pushed into swap before it is killed. ``cpus`` is run time per wall time: 0.5 is half of
    one CPU. The two ``io`` limits count on the disk that holds ``io_path``.
    """

    memory_bytes: int | None = None
    memory_high_bytes: int | None = None
    swap_bytes: int | None = None
    pids: int | None = None
    cpus: float | None = None
    cpu_weight: int | None = None
    cpuset: str | None = None
    io_read_bytes_per_s: int | None = None
    io_write_bytes_per_s: int | None = None
    io_path: str = "/"

    def __post_init__(self) -> None:
        page = mmap.PAGESIZE
        _check_whole("memory_bytes", self.memory_bytes, at_least=page, at_most=_MAX_BYTES)
        _check_whole("memory_high_bytes", self.memory_high_bytes, at_least=page, at_most=_MAX_BYTES)
        _check_whole("swap_bytes", self.swap_bytes, at_least=0, at_most=_MAX_BYTES)
        _check_whole("pids", self.pids, at_least=1, at_most=_MAX_PIDS)
        _check_whole("cpu_weight", self.cpu_weight, at_least=1, at_most=10_000)
        _check_whole("io_read_bytes_per_s", self.io_read_bytes_per_s, at_least=page, at_most=_MAX_BYTES)
        _check_whole("io_write_bytes_per_s", self.io_write_bytes_per_s, at_least=page, at_most=_MAX_BYTES)
        if self.swap_bytes is not None and self.memory_bytes is None:
            raise InvalidSpec(
                "swap_bytes needs memory_bytes as well: cgroup v1 can only limit memory and swap together."
            )
        if self.cpus is not None:
            _check_cpus(self.cpus)
        if self.cpuset is not None:
            parse_cpuset(self.cpuset)

    def controllers(self) -> frozenset[str]:
        """Return the names of the controllers that these limits need."""
        asked = {
            "memory": (self.memory_bytes, self.memory_high_bytes, self.swap_bytes),
            "pids": (self.pids,),
            "cpu": (self.cpus, self.cpu_weight),
            "cpuset": (self.cpuset,),
            "io": (self.io_read_bytes_per_s, self.io_write_bytes_per_s),
        }
        return frozenset(name for name, values in asked.items() if any(value is not None for value in values))


def quota_usec(cpus: float) -> int:
    """Return the run time that ``cpus`` CPUs may use in one period of `CPU_PERIOD_USEC`."""
    return round(cpus * CPU_PERIOD_USEC)


def shares_from_weight(weight: int) -> int:
    """Return the ``cpu.shares`` of v1 that mean the same as ``cpu.weight`` of v2.

    ``sched_weight_from_cgroup`` in kernel/sched/sched.h does the same sum. Some runtimes stretch 1..10000 over
    2..262144 instead, and then 100 becomes 2597 and no longer is the default of v1.
    """
    return max(2, min(262_144, (weight * 1024 + 50) // 100))


def weight_from_shares(shares: int) -> int:
    """Return the ``cpu.weight`` of v2 that means the same as ``cpu.shares`` of v1, as near as whole numbers allow."""
    return max(1, min(10_000, (shares * 100 + 512) // 1024))


def parse_cpuset(text: str) -> frozenset[int]:
    """Return the CPU numbers in a list such as ``0-2,5``. Raises: InvalidSpec. See: cpuset(7), "List format"."""
    numbers: set[int] = set()
    for part in str(text).strip().split(","):
        match = _CPUSET_PART.match(part.strip())
        if match is None:
            raise InvalidSpec(f"{text!r} is no list of CPUs: write numbers and ranges, as in 0 or 0-1,3.")
        first, last = int(match.group(1)), int(match.group(2) or match.group(1))
        if last < first or last > _MAX_CPU_NUMBER:
            raise InvalidSpec(f"{part!r} in the CPU list {text!r} is no range of CPU numbers.")
        numbers.update(range(first, last + 1))
    return frozenset(numbers)


def format_cpuset(numbers: frozenset[int]) -> str:
    """Return CPU numbers as the kernel writes them: ``0-2,5``."""
    parts: list[list[int]] = []
    for number in sorted(numbers):
        if parts and number == parts[-1][1] + 1:
            parts[-1][1] = number
        else:
            parts.append([number, number])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in parts)


def _check_whole(name: str, value: int | None, *, at_least: int, at_most: int) -> None:
    if value is None:
        return
    if not isinstance(value, int) or isinstance(value, bool):
        raise InvalidSpec(f"{name} must be a whole number, not {value!r}.")
    if not at_least <= value <= at_most:
        raise InvalidSpec(f"{name} is {value}, but must be at least {at_least} and at most {at_most}.")


def _check_cpus(cpus: float) -> None:
    if not isinstance(cpus, (int, float)) or isinstance(cpus, bool) or not math.isfinite(cpus) or cpus <= 0:
        raise InvalidSpec(f"cpus is {cpus!r}, but must be a number above 0, as in 0.5.")
    if cpus > _MAX_CPUS:
        raise InvalidSpec(f"cpus is {cpus!r}, which is more CPUs than any machine has.")
    if quota_usec(cpus) < _MIN_QUOTA_USEC:
        raise InvalidSpec(f"cpus is {cpus!r}, but the kernel gives out no less than 1 ms in 100 ms: 0.01 or more.")


#: Nothing limited. (Made last: checking it needs the functions above.)
NO_LIMITS = Limits()

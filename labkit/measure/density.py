"""How many fit: containers alive at once, and one after another.

A container that waits costs kernel memory (namespaces, mounts, the cgroup itself) and the program's own pages. The first is
charged to its cgroup, the second is what the process maps and shares with nobody (PSS: shared pages divided by their users).

Leaves out: memory that the kernel does not charge to a cgroup.
See: proc_pid_smaps(5), Documentation/admin-guide/cgroup-v2.rst ("Memory").
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from labkit.measure.hostfacts import HostFacts
from labkit.measure.record import Result
from labkit.measure.stats import median

__all__ = ["Counters", "Density", "Series", "count_now", "measure_density", "measure_series"]

#: The most containers that `measure_density` keeps alive at once.
MOST_ALIVE = 200


@dataclass(frozen=True, slots=True)
class Counters(Result):
    """What could leak, counted: descriptors and processes of this program, labkit's cgroups, mounts, the launcher's memory."""

    descriptors: int
    processes: int
    cgroups: int
    mounts: int
    launcher_descriptors: int
    launcher_bytes: int


@dataclass(frozen=True, slots=True)
class Density(Result):
    """``count`` containers alive at once. Per container, in bytes; None where this machine does not tell.

    ``cgroup_bytes``: charged to each cgroup, the program's pages included. ``kernel_bytes``: of that, the kernel's own.
    ``process_bytes``: PSS of each program. ``launcher_bytes``: PSS of the launcher divided by the count.
    ``host_bytes``: how much less memory the machine had, divided by the count; others use memory, too, so it is rough.
    """

    host: HostFacts
    count: int
    start_ms: tuple[float, ...]
    cgroup_bytes: tuple[int, ...]
    kernel_bytes: tuple[int, ...]
    process_bytes: tuple[int, ...]
    launcher_bytes: int
    host_bytes: int
    program_bytes: int

    @property
    def beyond_program_bytes(self) -> float:
        """The median container's memory beyond what the program costs as a bare process."""
        charged = median(self.cgroup_bytes) if self.cgroup_bytes else float(self.host_bytes)
        return charged + self.launcher_bytes - self.program_bytes


@dataclass(frozen=True, slots=True)
class Series(Result):
    """Containers started one after another: does the thousandth start as fast as the first, and is anything left?"""

    host: HostFacts
    samples_ms: tuple[float, ...]
    before: Counters
    after: Counters

    @property
    def first_ms(self) -> float:
        """The median of the first tenth."""
        return median(self.samples_ms[: max(1, len(self.samples_ms) // 10)])

    @property
    def last_ms(self) -> float:
        """The median of the last tenth."""
        return median(self.samples_ms[-max(1, len(self.samples_ms) // 10) :])

    @property
    def slowing(self) -> float:
        """How many times as long a start takes at the end as at the beginning."""
        return self.last_ms / self.first_ms


def count_now() -> Counters:
    """Return the counters of this moment."""
    raise NotImplementedError


def measure_density(count: int = 50, *, progress: Callable[[int, int], None] | None = None) -> Density:
    """Start ``count`` containers that wait, measure while all are alive, end them. Raises: InvalidSpec above 200."""
    raise NotImplementedError


def measure_series(count: int = 1000, *, progress: Callable[[int, int], None] | None = None) -> Series:
    """Start, wait for and delete ``count`` containers one after another; a thousand take a few seconds."""
    raise NotImplementedError

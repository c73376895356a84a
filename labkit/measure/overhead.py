"""What isolation costs a program that runs: nothing while it computes, a little at each system call.

A container is processes of the host's kernel. Its instructions run on the CPU as anybody's; only where the kernel is asked for
something may it have more to do: a seccomp filter runs at each call, a cgroup is charged for each page.

Leaves out: network and disk (lessons of their own), virtual machines (`labkit.vm`).
See: seccomp(2), Documentation/admin-guide/cgroup-v2.rst.
"""

from __future__ import annotations

from dataclasses import dataclass

from labkit.measure.hostfacts import HostFacts
from labkit.measure.record import Result
from labkit.measure.stats import median

__all__ = ["LOADS", "Overhead", "OverheadRow", "measure_overhead"]


@dataclass(frozen=True, slots=True)
class OverheadRow(Result):
    """One load, run as a bare process and in a full container, turn by turn."""

    name: str
    title: str
    process_ms: tuple[float, ...]
    container_ms: tuple[float, ...]

    @property
    def ratio(self) -> float:
        """How many times as long the median run takes in the container."""
        return median(self.container_ms) / median(self.process_ms)


@dataclass(frozen=True, slots=True)
class Overhead(Result):
    """The rows of all loads."""

    host: HostFacts
    rows: tuple[OverheadRow, ...]

    def row(self, name: str) -> OverheadRow:
        """Return the row of one load. Raises: KeyError."""
        return {row.name: row for row in self.rows}[name]


#: name, title, and the loop that the program runs; each prints how long it took.
LOADS: tuple[tuple[str, str], ...] = (
    ("cpu", "computing (no system calls)"),
    ("syscalls", "system calls, one after another"),
    ("memory", "fresh memory, page by page"),
    ("processes", "starting processes"),
)


def measure_overhead(n: int = 5) -> Overhead:
    """Run each load ``n`` times in each place, interleaved. Takes about a second a round."""
    raise NotImplementedError

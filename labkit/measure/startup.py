"""The race: how long it takes from asking for a program to its end, started in different ways.

All contenders run the same static ``true`` on the same files, turn by turn (A B C A B C ...), so that whatever else the machine
does hits all of them alike. The first rounds warm caches up and are not counted. A contender is tried once before; one that
cannot run here is listed with the reason.

Leaves out: starts with cold caches; pulling images; programs that do something.
See: `labkit.measure.contenders` and `labkit.measure.peers` for who takes part; posix_spawn(3), vfork(2).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from labkit.measure.hostfacts import HostFacts
from labkit.measure.record import Result
from labkit.measure.stats import Summary, summarise

__all__ = ["NAMES", "Race", "Row", "race"]

#: Everybody who can take part, in the order of the table.
NAMES = (
    "process", "namespace:user", "namespace:mnt", "namespace:pid", "namespace:net", "namespace:ipc", "namespace:uts",
    "namespace:cgroup", "namespace:time", "namespaces", "container", "unshare", "bwrap", "crun", "runc", "podman", "docker",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Row(Result):
    """One contender: its samples, what it is, and, if it could not run here, why (``skipped``)."""

    name: str
    samples_ms: tuple[float, ...]
    note: str = ""
    skipped: str = ""

    @property
    def summary(self) -> Summary:
        """Median, quartiles and n in milliseconds. Raises: InvalidSpec for a skipped row, which has no samples."""
        return summarise(self.samples_ms)


@dataclass(frozen=True, slots=True)
class Race(Result):
    """A whole race; ``rows`` in the order of `NAMES`, skipped ones included."""

    host: HostFacts
    rows: tuple[Row, ...]
    rounds: int
    warm_up_rounds: int

    def row(self, name: str) -> Row:
        """Return the row of one contender. Raises: KeyError."""
        return {row.name: row for row in self.rows}[name]

    @property
    def ran(self) -> tuple[Row, ...]:
        """The rows that have samples."""
        return tuple(row for row in self.rows if row.samples_ms)

    def ratio(self, name: str, other: str) -> float:
        """Return the median of ``name`` divided by that of ``other``. Raises: KeyError, InvalidSpec if one did not run."""
        return self.row(name).summary.median / self.row(other).summary.median


def race(
    n: int = 20,
    *,
    only: Iterable[str] | None = None,
    warm_up: int = 3,
    progress: Callable[[int, int], Any] | None = None,
) -> Race:
    """Let the contenders run for ``n`` rounds; ``only`` names those that take part, ``progress`` is told each round.

    Raises: InvalidSpec for an unknown name or n below 1, FeatureMissing without a static busybox.
    """
    raise NotImplementedError

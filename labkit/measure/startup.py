"""The race: how long it takes from asking for a program to its end, started in different ways.

All contenders run the same static ``true`` on the same files, turn by turn (A B C A B C ...), so that whatever else the machine
does hits all of them alike. The first rounds warm caches up and are not counted. A contender is tried once before; one that
cannot run here is listed with the reason.

Leaves out: starts with cold caches; pulling images; programs that do something.
See: `labkit.measure.contenders` and `labkit.measure.peers` for who takes part; posix_spawn(3), vfork(2).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Generator, Iterable
from contextlib import AbstractContextManager, ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labkit.errors import InvalidSpec, LabkitError
from labkit.measure import contenders, peers
from labkit.measure.clock import time_ms
from labkit.measure.contenders import Contender
from labkit.measure.hostfacts import HostFacts, host_facts
from labkit.measure.record import Result
from labkit.measure.rootfs import busybox_rootfs
from labkit.measure.stats import Summary, summarise

__all__ = ["MACHINE_NAMES", "NAMES", "Race", "Row", "race", "rounds"]

#: Everybody who can take part, in the order of the table.
NAMES = (
    "process", "namespace:user", "namespace:mnt", "namespace:pid", "namespace:net", "namespace:ipc", "namespace:uts",
    "namespace:cgroup", "namespace:time", "namespaces", "container", "unshare", "bwrap", "crun", "runc", "podman", "docker",
)  # fmt: skip
#: Who takes part only when asked for: virtual machines, which take seconds (`labkit.measure.machines`).
MACHINE_NAMES = ("microvm", "vm-restore", "vm-hostroot", "vm-distribution", "virtme-ng")


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
    extra: Iterable[Contender] = (),
) -> Race:
    """Let the contenders run for ``n`` rounds; ``only`` names those that take part, ``progress`` is told each round.

    ``extra`` brings contenders of one's own, which come last.

    Raises: InvalidSpec for an unknown name or n below 1, FeatureMissing without a static busybox.
    """
    if n < 1 or warm_up < 0:
        raise InvalidSpec(f"A race needs at least 1 round to count and no negative warm-up, not {n} and {warm_up}.")
    with closing(rounds(only, warm_up=warm_up, extra=extra)) as going:
        for number in range(1, warm_up + n + 1):
            so_far = next(going)
            if progress is not None:
                progress(number, warm_up + n)
    return so_far


def rounds(
    only: Iterable[str] | None = None, *, warm_up: int = 3, extra: Iterable[Contender] = ()
) -> Generator[Race, None, None]:
    """Let the contenders run round after round, without an end, and yield the race so far after each of them.

    Closing the generator ends the race and releases what the contenders need. Raises: as `race`.
    """
    names = _checked_names(only)
    host = host_facts()
    with busybox_rootfs() as rootfs, ExitStack() as stack:
        runners = [_Runner(_enter(name, rootfs, stack)) for name in names]
        runners += [_Runner(contender) for contender in extra]
        for number in itertools.count(1):
            for runner in runners:
                runner.run(counts=number > warm_up)
            yield Race(host, tuple(runner.row() for runner in runners), max(0, number - warm_up), warm_up)


class _Runner:
    """A contender on its way; one that fails drops out of the race and keeps no samples."""

    def __init__(self, contender: Contender) -> None:
        self.contender = contender
        self.skipped = contender.skipped
        self.samples_ms: list[float] = []

    def run(self, *, counts: bool) -> None:
        if self.skipped:
            return
        try:
            elapsed_ms = time_ms(self.contender.start)
        except LabkitError as error:
            self.skipped = f"It failed after {len(self.samples_ms)} rounds: {error}"
            return
        if counts:
            self.samples_ms.append(elapsed_ms)

    def row(self) -> Row:
        samples_ms = () if self.skipped else tuple(self.samples_ms)
        return Row(self.contender.name, samples_ms, self.contender.note, self.skipped)


def _checked_names(only: Iterable[str] | None) -> list[str]:
    wanted = list(NAMES if only is None else only)
    everybody = (*NAMES, *MACHINE_NAMES)
    unknown = [name for name in wanted if name not in everybody]
    if unknown or not wanted:
        what = f"{unknown[0]!r} does not take part in the race" if unknown else "Nobody takes part in the race"
        raise InvalidSpec(f"{what}: choose among {', '.join(everybody)}.")
    return [name for name in everybody if name in wanted]


def _enter(name: str, rootfs: Path, stack: ExitStack) -> Contender:
    """Prepare one contender and let it run once; what it needs is released with ``stack``."""
    try:
        contender = stack.enter_context(_preparation(name)(rootfs))
        contender.start()
    except LabkitError as error:
        return Contender(name, start=lambda: None, skipped=str(error))
    return contender


def _preparation(name: str) -> Callable[[Path], AbstractContextManager[Contender]]:
    if name in MACHINE_NAMES:
        from labkit.measure.machines import MACHINES  # which loads all that machines need

        return MACHINES[name]
    return contenders.OWN[name] if name in contenders.OWN else peers.PEERS[name]

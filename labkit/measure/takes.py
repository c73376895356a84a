"""The takes of `labkit record`: each experiment with the numbers of runs that its lesson uses, on machines made for it.

A lesson runs the same functions with machines that live on in the notebook; here each machine ends with its take.

See: `labkit.measure.recordable`, `labkit.measure.scenes`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from labkit.measure import density as crowds
from labkit.measure import scenes, startup
from labkit.measure.machine_costs import MachineCosts, measure_machine
from labkit.measure.machine_density import MachineDensity, measure_machine_density
from labkit.measure.overhead import Overhead, measure_overhead
from labkit.measure.scratch import scratch_folder
from labkit.vm.guest import Guest

__all__ = [
    "boot", "density", "machine_costs", "machine_density", "moved", "overhead", "panic", "race", "race_machines", "saved", "series", "tenants",
]  # fmt: skip

_FEW = ("process", "container")


@contextmanager
def _two_guests() -> Iterator[tuple[Guest, Guest]]:
    with Guest(128) as first, Guest(96) as second:
        yield first, second


@contextmanager
def _counting() -> Iterator[Guest]:
    with Guest(128) as guest:
        scenes.start_counter(guest)
        yield guest


def boot() -> scenes.Boot:
    """Boot a micro guest with 128 MiB."""
    with Guest(128) as guest:
        return scenes.boot_of(guest)


def panic() -> scenes.Panic:
    """Let one of two guests panic."""
    with _two_guests() as (other, victim):
        return scenes.panic(victim, other)


def tenants() -> scenes.Tenants:
    """Let two tenants search each other."""
    with _two_guests() as (first, second):
        return scenes.search_secrets(first, second)


def saved() -> scenes.Saved:
    """Save a counting machine and wake a copy up."""
    with _counting() as guest, scratch_folder() as folder:
        return scenes.save_and_wake(guest, folder / "machine")


def moved() -> scenes.Moved:
    """Move a counting machine."""
    with _counting() as guest:
        return scenes.move(guest)


def machine_costs() -> MachineCosts:
    """Weigh a machine, five runs of each load."""
    return measure_machine(5)


def machine_density() -> MachineDensity:
    """Weigh one, two, four and eight guests."""
    return measure_machine_density()


def race() -> startup.Race:
    """Let everybody but machines race, twelve rounds."""
    return startup.race(12)


def race_machines() -> startup.Race:
    """Let a process, a container and all machines race, three rounds."""
    return startup.race(3, only=[*_FEW, *startup.MACHINE_NAMES], warm_up=1)


def density() -> crowds.Density:
    """Keep a hundred containers alive."""
    return crowds.measure_density(100)


def series() -> crowds.Series:
    """Start three hundred containers one after another."""
    return crowds.measure_series(300)


def overhead() -> Overhead:
    """Run each load twelve times in each place."""
    return measure_overhead(12)

"""Desired and actual state side by side, replica by replica: what `labkit.charts.desired` draws.

See: `labkit.compose.plan`, which turns the difference into actions.
"""

from __future__ import annotations

from dataclasses import dataclass

from labkit.compose.actual import Actual
from labkit.compose.containers import config_hash, container_name
from labkit.compose.model import Project

__all__ = ["Replica", "States", "states_of"]


@dataclass(frozen=True, slots=True)
class Replica:
    """One replica: ``wanted`` or not, and what there is: ``state`` (empty: nothing), and whether it is of the wanted kind."""

    name: str
    wanted: bool
    state: str
    current: bool

    @property
    def settled(self) -> bool:
        """True if there is nothing to do for it."""
        return self.wanted and self.current and self.state in ("running", "healthy")


@dataclass(frozen=True, slots=True)
class States:
    """All replicas of a project, those that should not be there included."""

    replicas: tuple[Replica, ...]

    @property
    def settled(self) -> bool:
        """True if what there is, is what is wanted."""
        return all(replica.settled for replica in self.replicas)


def states_of(project: Project, actual: Actual, images: dict[str, str]) -> States:
    """Compare ``actual`` with ``project``; ``images`` are the ids of the services' images."""
    replicas = []
    for name, service in project.services.items():
        there = actual.of(name)
        digest = config_hash(project, service, images.get(name, ""))
        for number in sorted({*range(1, service.replicas + 1), *there}):
            found = there.get(number)
            state = (
                "" if found is None else (found.health if found.state == "running" and found.health else found.state)
            )
            label = container_name(project, service, number).removeprefix(f"{project.name}-")
            current = found is not None and found.config_hash == digest
            replicas.append(Replica(label, number <= service.replicas, state, current))
    return States(tuple(replicas))

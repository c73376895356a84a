"""The result types of the attack table: attacks, defences, and how each went against each.

See: `labkit.measure.attacks`, which holds the table.
"""

from __future__ import annotations

from dataclasses import dataclass

from labkit.measure.hostfacts import HostFacts
from labkit.measure.record import Result

__all__ = ["Attack", "AttackTable", "Defence", "Outcome"]


@dataclass(frozen=True, slots=True)
class Attack(Result):
    """One attack: what it tries, and how its success is seen from outside."""

    name: str
    title: str
    tries: str
    proof: str


@dataclass(frozen=True, slots=True)
class Defence(Result):
    """One level of defence; it includes all those before it. ``adds`` says what is new, in labkit's own words."""

    name: str
    title: str
    adds: str


@dataclass(frozen=True, slots=True)
class Outcome(Result):
    """How one attack went at one level. ``succeeded`` is None where the level cannot be had here (``evidence`` says why).

    ``errno`` is the kernel's answer to the attacker by name (``EPERM``), empty if no call was refused.
    """

    attack: str
    defence: str
    succeeded: bool | None
    errno: str
    evidence: str

    @property
    def verdict(self) -> str:
        """``succeeded``, ``failed`` or ``unknown``."""
        return "unknown" if self.succeeded is None else "succeeded" if self.succeeded else "failed"


@dataclass(frozen=True, slots=True)
class AttackTable(Result):
    """All outcomes: attacks down, defences across."""

    host: HostFacts
    attacks: tuple[Attack, ...]
    defences: tuple[Defence, ...]
    outcomes: tuple[Outcome, ...]

    def outcome(self, attack: str, defence: str) -> Outcome:
        """Return one cell. Raises: KeyError."""
        return {(o.attack, o.defence): o for o in self.outcomes}[attack, defence]

    def stopped_by(self, attack: str) -> Defence | None:
        """Return the first defence from which on ``attack`` never succeeds; None if it still does at the last one."""
        first = None
        for defence in self.defences:
            succeeded = self.outcome(attack, defence.name).succeeded
            if succeeded:
                first = None
            elif first is None and succeeded is False:
                first = defence
        return first

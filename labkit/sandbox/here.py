"""The sandbox seen from inside: which one this program is in, and the policy that it lives under.

The server writes the facts into a file of the sandbox's when it starts it. They are for reading: changing the file changes no limit.

See: `labkit.sandbox.policy` for the keys.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass

from labkit.sandbox.level import Level
from labkit.sandbox.policy import Policy, as_text, parse
from labkit.units import format_bytes

__all__ = ["FACTS_FILE", "Here", "facts_text", "here"]

FACTS_FILE = "/run/jupyter/sandbox.json"


@dataclass(frozen=True, slots=True)
class Here:
    """The sandbox around this program: its level ("full", "rlimits"), what it lacks, and its policy."""

    level: str
    reasons: tuple[str, ...]
    policy: Policy

    @property
    def summary(self) -> str:
        """The limits in one line."""
        policy = self.policy
        network = "no network but its own" if policy.network == "none" else "outgoing network"
        return (
            f"{self.level}: {format_bytes(policy.memory_bytes)} of memory, {policy.pids} processes, {policy.cpus:g} CPUs,"
            f" a home of {format_bytes(policy.home_bytes)}, {network}"
        )

    def __str__(self) -> str:
        return "\n".join([f"A sandbox of labkit's, {self.summary}.", *self.reasons, "", as_text(self.policy)])


def facts_text(level: Level, policy: Policy) -> str:
    """Return what the file shall say; the summary is there for readers that know no more of labkit than this file."""
    name = f"{level.name}, in a virtual machine" if level.backend == "vm" else level.name
    inside = Here(name, level.reasons, policy)
    facts = {"level": name, "reasons": level.reasons, "policy": as_text(policy), "summary": inside.summary}
    return json.dumps(facts, indent=1)


def here(path: str = FACTS_FILE) -> Here | None:
    """Return the sandbox that this program is in; None outside of one."""
    if not os.path.exists(path):
        return None
    with open(path) as file:
        facts = json.load(file)
    source = facts["policy"].partition("\n")[0].removeprefix("# from ")
    return Here(facts["level"], tuple(facts["reasons"]), parse(facts["policy"], source=source))

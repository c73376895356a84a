"""How much of a sandbox this machine allows, found out by asking and trying, never assumed.

* ``full``: namespaces, and cgroups with the limits;
* ``rlimits``: namespaces, but nobody has given this user all the cgroups: what is missing is replaced, as far as that goes, by
  limits of single processes and of their number;
* ``none``: the machine refuses namespaces and has no QEMU. Then the kernel runs as it always did, and says so in the notebook.

Where namespaces are refused and QEMU is there, a full sandbox is made of a virtual machine (`labkit.sandbox.machine`).

See: `labkit doctor`, which names the rule that refuses and what to do; systemd.resource-control(5) (Delegate=).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from labkit.container.client import launcher
from labkit.errors import FeatureMissing, GuestError
from labkit.isolation.cgroups.places import DELEGATE_REMEDY
from labkit.sandbox.policy import Policy
from labkit.sandbox.subtree import NEEDED, lacking
from labkit.units import format_bytes

__all__ = ["REFUSED", "Level", "find_level", "lacking_machine", "required"]


#: How the reason for no sandbox begins.
REFUSED = "This machine does not allow the namespaces of a sandbox:"
_WITHOUT = {
    "memory": "each process is limited in memory, but not all together",
    "pids": "processes are counted by user, not by sandbox",
    "cpu": "CPU time is not limited",
}


@dataclass(frozen=True, slots=True)
class Level:
    """What can be had, and one sentence for each thing that cannot."""

    name: Literal["full", "rlimits", "none"]
    reasons: tuple[str, ...] = ()
    #: Of memory, pids and cpu, those that a cgroup limits here.
    controllers: frozenset[str] = frozenset()
    #: What the sandbox is made of; "" without one.
    backend: Literal["namespaces", "vm", ""] = ""

    @property
    def namespaces(self) -> bool:
        """True if the sandbox is made of this machine's namespaces."""
        return self.backend == "namespaces"


def find_level(backend: str = "auto", *, refused: str = "") -> Level:
    """Return the level that sandboxes can be tried at: of namespaces, else of a virtual machine, else none.

    ``backend`` is the policy's; ``refused`` says why this machine has just turned namespaces down, if it has.
    An ordinary user's launcher has a user namespace itself, and says if not.
    """
    if backend == "vm":
        missing = lacking_machine()
        return Level("none", (missing,)) if missing else _MACHINE
    refused = refused or _refusal()
    if refused:
        why_no_machine = lacking_machine() if backend == "auto" else ""
        if backend == "auto" and not why_no_machine:
            return _MACHINE
        return Level("none", (f"{REFUSED} {refused}", *([why_no_machine] if why_no_machine else [])))
    missing_controllers = lacking()
    if missing_controllers:
        names = ", ".join(missing_controllers)
        lost = " and ".join(_WITHOUT[name] for name in missing_controllers)
        reason = f"This machine gives the sandbox no cgroup for {names}: {lost}. {DELEGATE_REMEDY}"
        return Level("rlimits", (reason,), frozenset(NEEDED) - missing_controllers.keys(), "namespaces")
    return Level("full", (), frozenset(NEEDED), "namespaces")


def _refusal() -> str:
    try:
        launcher()
    except FeatureMissing as error:
        return str(error)
    return ""


def lacking_machine() -> str:
    """Return what a sandbox in a virtual machine needs and this machine lacks, as a sentence; "" if it can be tried."""
    from labkit.vm.accel import find_qemu  # only where there is no other way
    from labkit.vm.agent import AGENT_MACHINES
    from labkit.vm.kernel import find_kernel

    machine = os.uname().machine
    if machine not in AGENT_MACHINES:
        return f"labkit has no virtual machine for a {machine} processor that a kernel could live in."
    try:
        find_qemu()
        find_kernel("hostroot")
    except (FeatureMissing, GuestError) as error:
        return str(error)
    return ""


def required(level: Level, policy: Policy) -> Level:
    """Return ``level`` if ``policy`` accepts it. Raises: FeatureMissing if it demands more, or what a VM does not have."""
    if policy.backend == "vm" and level.backend != "vm":
        raise FeatureMissing(
            f'The policy ({policy.source}) says sandbox.backend = "vm", which this machine does not have.',
            remedy=" ".join(level.reasons),
        )
    if policy.require == "full" and level.name != "full":
        raise FeatureMissing(
            f'The policy ({policy.source}) says sandbox.require = "full", and this machine gives less.',
            remedy=" ".join(level.reasons),
        )
    if level.backend == "vm":
        for says, lacks in _beyond_a_machine(policy):
            raise FeatureMissing(
                f"The policy ({policy.source}) says {says}, and a sandbox in a virtual machine {lacks}.",
                remedy='Change that, or set sandbox.backend to "namespaces" where the machine allows them.',
            )
    return level


def _beyond_a_machine(policy: Policy) -> Iterator[tuple[str, str]]:
    """Yield what ``policy`` says that a sandbox in a virtual machine cannot do, and why."""
    from labkit.sandbox.machine import MOST_MEMORY_BYTES

    if policy.network != "none":
        yield 'network.mode = "outgoing"', "has no way out"
    if policy.notebooks == "keep":
        yield 'mounts.notebooks = "keep"', "cannot keep changes"
    if policy.memory_bytes > MOST_MEMORY_BYTES:
        size = format_bytes(policy.memory_bytes)
        yield f'limits.memory = "{size}"', f"has at most {format_bytes(MOST_MEMORY_BYTES)}"


_MACHINE = Level("full", (), frozenset(NEEDED), "vm")

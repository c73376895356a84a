"""How much of a sandbox this machine allows, found out by asking and trying, never assumed.

* ``full``: namespaces, and cgroups with the limits;
* ``rlimits``: namespaces, but nobody has given this user all the cgroups: what is missing is replaced, as far as that goes, by
  limits of single processes and of their number;
* ``none``: the machine refuses namespaces. Then the kernel runs as it always did, and says so in the notebook.

See: `labkit doctor`, which names the rule that refuses and what to do; systemd.resource-control(5) (Delegate=).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from labkit.container.client import launcher
from labkit.errors import FeatureMissing
from labkit.isolation.cgroups.places import DELEGATE_REMEDY
from labkit.sandbox.policy import Policy
from labkit.sandbox.subtree import NEEDED, lacking

__all__ = ["REFUSED", "Level", "find_level", "required"]


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

    @property
    def namespaces(self) -> bool:
        """True if there is a sandbox at all."""
        return self.name != "none"


def find_level() -> Level:
    """Return the level that sandboxes can be tried at; an ordinary user's launcher has a user namespace itself, and says if not."""
    try:
        launcher()
    except FeatureMissing as error:
        return Level("none", (f"{REFUSED} {error}",))
    missing = lacking()
    if missing:
        lost = " and ".join(_WITHOUT[name] for name in missing)
        reason = f"This machine gives the sandbox no cgroup for {', '.join(missing)}: {lost}. {DELEGATE_REMEDY}"
        return Level("rlimits", (reason,), frozenset(NEEDED) - missing.keys())
    return Level("full", controllers=frozenset(NEEDED))


def required(level: Level, policy: Policy) -> Level:
    """Return ``level`` if ``policy`` accepts it. Raises: FeatureMissing if it demands a full one, or a VM."""
    if policy.backend == "vm":
        raise FeatureMissing(
            f'The policy ({policy.source}) says sandbox.backend = "vm", and kernels in virtual machines are not there yet.',
            remedy='Write "namespaces" or "auto".',
        )
    if policy.require == "full" and level.name != "full":
        raise FeatureMissing(
            f'The policy ({policy.source}) says sandbox.require = "full", and this machine gives less.',
            remedy=" ".join(level.reasons),
        )
    return level

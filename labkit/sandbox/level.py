"""How much of a sandbox this machine allows, found out by asking and trying, never assumed.

* ``full``: namespaces, and cgroups with the limits;
* ``rlimits``: namespaces, but nobody has given this user cgroups: only limits of single processes, and of their number;
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
from labkit.sandbox.subtree import lacking

__all__ = ["Level", "find_level", "required"]


@dataclass(frozen=True, slots=True)
class Level:
    """What can be had, and one sentence for each thing that cannot."""

    name: Literal["full", "rlimits", "none"]
    reasons: tuple[str, ...] = ()

    @property
    def cgroups(self) -> bool:
        """True if the limits are a cgroup's."""
        return self.name == "full"

    @property
    def namespaces(self) -> bool:
        """True if there is a sandbox at all."""
        return self.name != "none"


def find_level() -> Level:
    """Return the level that this process can start sandboxes at; starts the launcher, which tries the namespaces."""
    try:
        launcher()
    except FeatureMissing as error:
        return Level("none", (f"This machine does not allow the namespaces of a sandbox: {error}",))
    missing = lacking()
    if missing:
        names = ", ".join(missing)
        reason = f"Memory, processes and CPU together are not limited: there is no cgroup for {names} here. {DELEGATE_REMEDY}"
        return Level("rlimits", (reason,))
    return Level("full")


def required(level: Level, policy: Policy) -> Level:
    """Return ``level`` if ``policy`` accepts it. Raises: FeatureMissing if it demands a full one, or a VM."""
    if policy.require == "full" and level.name != "full":
        raise FeatureMissing(
            f'The policy ({policy.source}) says sandbox.require = "full", and this machine gives less.',
            remedy=" ".join(level.reasons),
        )
    return level

"""Control groups: one interface over cgroup v1, hybrid and v2.

::

    with Cgroup.create(limits=Limits(memory_bytes=64 * MiB, pids=32, cpus=0.5)) as group:
        group.attach(pid)
        group.stats().throttled_usec

``limits`` what can be asked for; ``stats`` what is counted; ``layout`` where the hierarchies are; ``places`` where this user
may make groups, ``delegation`` what that changes above them; ``v1`` and ``v2`` the files; ``parent`` and ``cgroup`` the
owners; ``tree`` and ``leftovers`` clean-up; ``watch`` events.

See: cgroups(7).
"""

from labkit.isolation.cgroups.cgroup import Cgroup
from labkit.isolation.cgroups.join import JoinFds
from labkit.isolation.cgroups.layout import Hierarchy, Layout, read_layout
from labkit.isolation.cgroups.leftovers import find_leftovers, remove_leftovers
from labkit.isolation.cgroups.limits import Limits, shares_from_weight, weight_from_shares
from labkit.isolation.cgroups.met import LimitsMet, limits_met
from labkit.isolation.cgroups.parent import CgroupParent, default_parent
from labkit.isolation.cgroups.psi import Pressure, PressureLine
from labkit.isolation.cgroups.stats import Events, Stats
from labkit.isolation.cgroups.tree import remove_tree
from labkit.isolation.cgroups.watch import EventWatch

__all__ = [
    "Cgroup",
    "CgroupParent",
    "EventWatch",
    "Events",
    "Hierarchy",
    "JoinFds",
    "Layout",
    "Limits",
    "LimitsMet",
    "Pressure",
    "PressureLine",
    "Stats",
    "default_parent",
    "find_leftovers",
    "limits_met",
    "read_layout",
    "remove_leftovers",
    "remove_tree",
    "shares_from_weight",
    "weight_from_shares",
]

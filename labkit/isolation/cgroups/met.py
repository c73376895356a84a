"""Which of its limits a group has met: at most three counters, read without all the others.

Asked at the end of every container, so it reads only the files of limits that were set.

See: cgroups(7); Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/ in Linux.
"""

from __future__ import annotations

from dataclasses import dataclass

from labkit.isolation.cgroups import files
from labkit.isolation.cgroups.cgroup import Cgroup
from labkit.isolation.cgroups.stats import parse_keyed

__all__ = ["LimitsMet", "limits_met"]


@dataclass(frozen=True, slots=True)
class LimitsMet:
    """How often, or for how long, a group ran into its memory, pids and cpu limits; 0 where it has none."""

    oom_kills: int = 0
    pids_limit_hits: int = 0
    throttled_usec: int = 0


def limits_met(group: Cgroup) -> LimitsMet:
    """Return which limits ``group`` has met so far."""
    limits, unified = group.limits, group.folder("unified")

    def read(controller: str, v1_file: str, v2_file: str) -> dict[str, int]:
        folder = group.folder(controller)
        if folder is None:
            return {}
        return parse_keyed(files.try_read(f"{folder}/{v2_file if folder == unified else v1_file}") or "")

    memory = read("memory", "memory.oom_control", "memory.events") if limits.memory_bytes is not None else {}
    pids = read("pids", "pids.events", "pids.events") if limits.pids is not None else {}
    cpu = read("cpu", "cpu.stat", "cpu.stat") if limits.cpus is not None else {}
    # v1 counts throttled time in nanoseconds, under another name.
    throttled_usec = cpu.get("throttled_usec", cpu.get("throttled_time", 0) // 1000)
    return LimitsMet(memory.get("oom_kill", 0), pids.get("max", 0), throttled_usec)

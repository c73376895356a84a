"""The cgroups of one sandbox: limits on the outside, and below them a group that is given away.

::

    labkit-ID/                    this program's, held by a lock (`labkit.isolation.cgroups.parent`)
      labkit-sandbox-NAME/        memory, pids, cpu: written here, belongs to the machine
        labkit-payload/           given to the student's root: the sandbox begins here and sees this as "/"
          labkit-.../             what lessons make inside

Whoever owns ``labkit-payload`` may divide it further, but the files with the limits lie above it, and its cgroup namespace ends
below them. On cgroup v1 each hierarchy is a tree of its own, also those that labkit does not use (``devices``, ``name=systemd``): the
sandbox gets an empty group in these, or mounting one inside would show the machine's tree.

See: cgroups(7) ("Delegation", "Cgroups v2 delegation containment"), cgroup_namespaces(7).
"""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from dataclasses import dataclass, field

from labkit.isolation.cgroups import Cgroup, JoinFds, Limits, default_parent, v1
from labkit.isolation.cgroups.files import read_text
from labkit.isolation.cgroups.stats import parse_keyed
from labkit.isolation.cgroups.tree import walk
from labkit.linux.fds import Fd

__all__ = ["NEEDED", "PAYLOAD", "PREFIX", "Subtree", "lacking"]

#: How the name of every sandbox begins.
PREFIX = "labkit-sandbox-"
PAYLOAD = "labkit-payload"
#: The controllers of the policy's limits.
NEEDED = ("memory", "pids", "cpu")


def lacking() -> dict[str, str]:
    """Return those controllers that the limits need and this user cannot use, each with the reason as a sentence."""
    parent = default_parent()
    missing = parent.missing_controllers
    return {
        name: missing.get(name, f"No cgroup controller {name!r}.") for name in NEEDED if name not in parent.controllers
    }


@dataclass(slots=True)
class Subtree:
    """Owner of a sandbox's groups; made by `create`, removed by `delete`."""

    group: Cgroup
    payload: Cgroup
    others: dict[str, Fd] = field(default_factory=dict)  # folder -> its lock

    @classmethod
    def create(cls, name: str, limits: Limits, *, owner: tuple[int, int]) -> Subtree:
        """Make the groups, limit the outer one, and give the inner one to ``owner`` (uid, gid). Raises: FeatureMissing."""
        parent = default_parent()
        everything = sorted(parent.controllers)
        group = Cgroup.create(None, limits, name=name, controllers=everything)
        tree = cls(group, group)
        try:
            tree.payload = Cgroup.create(group, name=PAYLOAD, controllers=everything)
            tree.payload.delegate(*owner)
            if group.version != "v2":
                _make_empty_groups(tree.others, name, owner)
        except BaseException:
            tree.delete()
            raise
        return tree

    def join_fds(self) -> JoinFds:
        """Return the descriptors through which the sandbox's first process enters its groups."""
        join = self.payload.join_fds()
        for folder in self.others:
            join.task_fds += (os.open(f"{folder}/tasks", os.O_WRONLY | os.O_CLOEXEC),)
        return join

    def memory_kills(self) -> int:
        """Return how often the memory limit of the sandbox itself, not of a group made inside, has killed a process."""
        folder = self.payload.folder("memory")
        if folder is None:
            return 0
        if os.path.exists(f"{folder}/memory.oom_control"):
            return parse_keyed(read_text(f"{folder}/memory.oom_control")).get("oom_kill", 0)
        # v2 adds up what happens below; only the local file says that it was this limit.
        return parse_keyed(read_text(f"{self.group.folder('memory')}/memory.events.local")).get("oom", 0)

    def thaw(self) -> None:
        """Let every process go on that a program inside has frozen: on v1 a frozen one does not even die when it is killed."""
        folder = self.payload.folder("freezer") if self.group.version != "v2" else None
        for group in walk(folder) if folder else ():
            with suppress(OSError):  # removed meanwhile
                v1.thaw(group)

    def delete(self) -> None:
        """Kill what runs in the groups and remove them; safe to call twice."""
        self.group.delete()
        for folder, lock in self.others.items():
            with suppress(FileNotFoundError):
                os.rmdir(folder)
            lock.close()
        self.others.clear()


def _make_empty_groups(made: dict[str, Fd], name: str, owner: tuple[int, int]) -> None:
    """Make a group in each v1 hierarchy that labkit does not use, where this user may; hold a lock on each."""
    parent = default_parent()
    for hierarchy in parent.layout.others:
        # Named after this program's groups: who removes those of a killed program finds them by that.
        folder = f"{hierarchy.own}/{parent.name}-{name.removeprefix(PREFIX)}"
        try:
            os.mkdir(folder, 0o755)
        except OSError:
            continue  # not this user's to make; what can be seen through it then belongs to others and is read-only
        made[folder] = Fd(os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
        fcntl.flock(made[folder], fcntl.LOCK_SH)
        os.chown(folder, *owner)

"""A second set of namespaces inside a container's first: its program is root there, and cannot undo the container.

Mounts that a process finds in a mount namespace whose user namespace is not its own are *locked*: they cannot be unmounted,
moved or made writable, not even by root of the new user namespace. So the container's tree is put together in the first set, and
then the child makes a second child, in a user, mount, network, IPC, UTS and cgroup namespace of its own::

    child (PID 1)                                     second child (process 2)
      |-- clone3 -------------------------------------->| waits
      |-- writes its uid_map and gid_map                |
      |-- "go" (an eventfd) --------------------------->| root inside; mounts what belongs to the new
      v                                                 | namespaces: /sys, message queues, cgroups
    init: waits for every child, ends with the program  v
                                                      the program

The two share one PID namespace, owned by the first set. So the program's PID 1 can be seen, but neither traced (its user namespace
is the parent's) nor killed (the kernel protects PID 1), and its end takes everything along.

See: mount_namespaces(7) ("Restrictions on mount namespaces"), user_namespaces(7), eventfd(2).
"""

from __future__ import annotations

import errno
import os
import resource
import signal
import struct

from labkit.container.spec import Inner
from labkit.isolation import capabilities, mounts
from labkit.isolation.idmap import IdMaps
from labkit.isolation.loopback import loopback_up
from labkit.linux.constants import NS, CloneFlag, Prctl
from labkit.linux.fds import Place
from labkit.linux.steps import Step
from labkit.linux.syscalls import AT_FDCWD

__all__ = ["INNER_NAMESPACES", "INNER_PID", "inner_steps"]

#: What the program gets once more, for itself; the PID namespace is the first set's.
INNER_NAMESPACES = NS.USER | NS.MNT | NS.NET | NS.IPC | NS.UTS | NS.CGROUP
#: The first child of PID 1 in a new PID namespace.
INNER_PID = 2


def inner_steps(
    inner: Inner, become_root: list[Step], die_with_launcher: list[Step], program: list[Step], *, maps: IdMaps, v1_hierarchies: tuple[str, ...],
    share_memory: bool, last_capability: int,
) -> list[Step]:  # fmt: skip
    """Return the steps from a finished tree to the running ``program`` (its own steps, execve last) and its init."""
    wait = Step("read", (Place.EVENT, bytes(8), 8), "wait for the inner id maps", least=8)
    ours = [wait, *become_root, *_second_child(inner, v1_hierarchies), *program]
    flags = int(INNER_NAMESPACES) | (int(CloneFlag.VM) if share_memory else 0)
    # ABI: struct clone_args, linux/sched.h: flags, three that nobody needs, the signal at its end, six more.
    args = struct.pack("<11Q", flags, 0, 0, 0, signal.SIGCHLD, *[0] * 6)
    # As in `labkit.container.plan.enter_steps`: the second child's answer is 0, and it takes the next step.
    clone = Step(
        "clone3", (args, len(args)), "start the second child", tolerate=(0,), least=1, skip_on_success=len(ours)
    )
    return [
        *_before(inner),
        clone,
        *ours,
        *_write_outside_files(inner, maps),
        *_become_init(inner, die_with_launcher, last_capability),
    ]


def _before(inner: Inner) -> list[Step]:
    steps = [step for path, text in inner.settings for step in _write(path, text, why=f"set {path}")]
    for name, soft, hard in inner.rlimits:
        # ABI: struct rlimit64, two unsigned words; -1 is RLIM_INFINITY.
        limit = struct.pack("<qq", soft, hard)
        steps.append(Step("prlimit64", (0, int(getattr(resource, name)), limit, None), f"set {name}"))
    # The session's key ring is inherited, whatever the namespaces; a new one is empty. KEYCTL_JOIN_SESSION_KEYRING is 1.
    steps.append(Step("keyctl", (1, None), "begin an empty session key ring", tolerate=(errno.ENOSYS,)))
    why = "make the signal to go on"
    return [
        *steps,
        # Id maps are files of the second child's, and it must not hide them; `_write_outside_files` sets it back. On the way in nobody
        # else is in these namespaces who could trace it.
        Step("prctl", (Prctl.SET_DUMPABLE, 1, 0, 0, 0), "show the id maps"),
        Step("eventfd2", (0, os.O_CLOEXEC), why, result_to_next=True),
        Step("dup3", (0, Place.EVENT, os.O_CLOEXEC), why),
    ]


def _second_child(inner: Inner, v1_hierarchies: tuple[str, ...]) -> list[Step]:
    return [
        *loopback_up(),
        *mounts.sysfs("/sys"),
        *mounts.mqueue("/dev/mqueue"),
        *mounts.cgroups("/sys/fs/cgroup", v1=v1_hierarchies, writable=True, unified=inner.shows_unified),
    ]


def _write_outside_files(inner: Inner, maps: IdMaps) -> list[Step]:
    """Let every id of the first set be the same id in the second one; say who is killed first when memory ends."""
    steps = _write(f"/proc/{INNER_PID}/oom_score_adj", str(inner.oom_score_adj), why="set the second child's OOM score")
    for name, lines in (("uid_map", maps.uids), ("gid_map", maps.gids)):
        text = "\n".join(f"{line.inside} {line.inside} {line.count}" for line in lines)
        steps += _write(f"/proc/{INNER_PID}/{name}", text, why="write the inner id maps")
    hide = Step("prctl", (Prctl.SET_DUMPABLE, 0, 0, 0, 0), "hide the id maps")
    return [*steps, hide, Step("write", (Place.EVENT, struct.pack("=Q", 1), 8), "let the second child go on")]


def _become_init(inner: Inner, die_with_launcher: list[Step], last_capability: int) -> list[Step]:
    why = "become the init"
    null = Step("openat", (AT_FDCWD, "/dev/null", os.O_RDWR | os.O_CLOEXEC, 0), why, result_to_next=True)
    streams = [step for number in range(3) for step in (null, Step("dup3", (0, number, 0), why))]
    # Waiting needs no power; whoever should find a way to speak through PID 1 would find nothing.
    powerless = capabilities.limit_bounding_set(0, last=last_capability)
    return [
        *streams,
        *die_with_launcher,
        *powerless,
        Step("prctl", (Prctl.SET_NO_NEW_PRIVS, 1, 0, 0, 0), why),
        Step("chdir", ("/",), why),
        Step("execve", (inner.init[0], inner.init, ()), "run the init"),
    ]


def _write(path: str, text: str, *, why: str) -> list[Step]:
    data = text.encode()
    return [
        Step("openat", (AT_FDCWD, path, os.O_WRONLY | os.O_CLOEXEC, 0), why, result_to_next=True),
        Step("write", (0, data, len(data)), why, least=len(data)),
    ]

"""Namespaces: what a process can see.

A namespace wraps one kind of thing (mounts, process ids, network interfaces, ...) so that the processes in it have
a set of their own. Every process is in exactly one namespace of each of the eight kinds, and its children inherit them. Each
namespace is an object with a number, shown by the links in ``/proc/PID/ns``: two processes share a namespace exactly
when the numbers agree. It lives as long as a process is in it, or something holds its file open or mounted.

Every namespace belongs to a *user namespace*, its owner: capabilities held there count in it. User and PID namespaces are
nested: they also have a parent.

Run ``python -m labkit.isolation.namespaces`` to see those of this machine, as lsns(8) shows them.

Leaves out: namespaces that no process is in, kept by a mount or a descriptor only.
See: namespaces(7), ioctl_ns(2), lsns(8).
"""

from __future__ import annotations

import fcntl
import os
import struct
from dataclasses import dataclass
from typing import Literal

from labkit.linux.constants import NS, NS_FILES
from labkit.linux.fds import Fd

__all__ = [
    "Description",
    "Namespace",
    "describe",
    "kind_of",
    "list_namespaces",
    "namespace_id",
    "namespaces_of",
    "open_namespace",
    "owner",
    "owner_uid",
    "parent",
]

Pid = int | Literal["self"]

# linux/nsfs.h
_NS_GET_USERNS, _NS_GET_PARENT, _NS_GET_NSTYPE, _NS_GET_OWNER_UID = 0xB701, 0xB702, 0xB703, 0xB704


@dataclass(frozen=True, slots=True)
class Description:
    """One kind of namespace in words: what it separates, what a process inside no longer sees, what still shines through."""

    kind: NS
    name: str
    separates: str
    hides: str
    still_shared: str
    since_linux: str
    man_page: str


def _description(kind: NS, separates: str, hides: str, still_shared: str, since_linux: str) -> Description:
    name = {NS.MNT: "mount"}.get(kind, NS_FILES[kind])
    page = f"{name}_namespaces(7)" if kind != NS.NET else "network_namespaces(7)"
    return Description(kind, name, separates, hides, still_shared, since_linux, page)


_DESCRIPTIONS = (
    _description(
        NS.USER,
        "user and group ids, capabilities, key rings",
        "The ids of the machine: root inside is an ordinary user, or nobody, outside.",
        "Files keep the ids they have on disk; an id without a mapping shows as 65534.",
        "3.8",
    ),
    _description(
        NS.MNT,
        "mounts, that is, the file tree",
        "What others mount from now on, and others do not see what it mounts.",
        "It begins as a copy: all files are the same until something is mounted over them.",
        "2.4.19",
    ),
    _description(
        NS.PID,
        "process ids",
        "All processes outside: the first one inside is 1, and others cannot even be named.",
        "An old /proc still shows the processes outside, until a new one is mounted.",
        "2.6.24",
    ),
    _description(
        NS.NET,
        "network interfaces, addresses, routes, ports, firewall rules",
        "Every interface of the machine; inside there is only lo, and it is down.",
        "Sockets that were open before, and Unix sockets that have a file.",
        "2.6.29",
    ),
    _description(
        NS.IPC,
        "System V shared memory, semaphores and queues, POSIX message queues",
        "Shared memory segments, semaphores and message queues made outside.",
        "Files of /dev/shm, which are mounts, and pipes and sockets.",
        "2.6.19",
    ),
    _description(
        NS.UTS,
        "the host name and the NIS domain name",
        "Changes of the host name: each side has its own.",
        "It begins with a copy of the name.",
        "2.6.19",
    ),
    _description(
        NS.CGROUP,
        "the root of the cgroup tree",
        "The cgroups above its own: /proc/self/cgroup shows /.",
        "The limits themselves: they hold whether the process sees them or not.",
        "4.6",
    ),
    _description(
        NS.TIME,
        "the monotonic and the boot-time clock",
        "How long the machine has been up: both clocks get an offset.",
        "The wall clock: date is the same everywhere.",
        "5.6",
    ),
)


@dataclass(frozen=True, slots=True)
class Namespace:
    """A namespace with the processes in it that the caller may look at.

    ``owner_inode`` is the user namespace it belongs to (None: outside of what the caller may see).
    """

    kind: NS
    inode: int
    pids: tuple[int, ...]
    owner_inode: int | None


def describe(kind: NS) -> Description:
    """Return what namespaces of ``kind`` separate and hide. Raises: KeyError for a combination of kinds."""
    return {description.kind: description for description in _DESCRIPTIONS}[kind]


def namespace_id(pid: Pid, kind: NS) -> int:
    """Return the number (inode) of the namespace of ``kind`` that process ``pid`` is in.

    Raises: FileNotFoundError if there is no such process, or the kernel lacks this kind; PermissionError unless the caller
    may ptrace the process.
    """
    return os.stat(f"/proc/{pid}/ns/{NS_FILES[kind]}").st_ino


def namespaces_of(pid: Pid) -> dict[NS, int]:
    """Return the numbers of all namespaces of ``pid``; a kind that this kernel does not have is left out."""
    present = set(os.listdir(f"/proc/{pid}/ns"))
    return {kind: namespace_id(pid, kind) for kind, name in NS_FILES.items() if name in present}


def open_namespace(pid: Pid, kind: NS) -> Fd:
    """Return a descriptor that refers to a namespace, keeps it alive, and can be given to setns(2).

    Raises: FileNotFoundError, PermissionError as `namespace_id`.
    """
    return Fd(os.open(f"/proc/{pid}/ns/{NS_FILES[kind]}", os.O_RDONLY | os.O_CLOEXEC))


def owner(namespace: Fd) -> Fd:
    """Return the user namespace that owns ``namespace`` (of a user namespace: its parent).

    Raises: PermissionError when that lies outside the caller's own user namespace. See: ioctl_ns(2).
    """
    return Fd(fcntl.ioctl(namespace.fileno(), _NS_GET_USERNS))


def parent(namespace: Fd) -> Fd:
    """Return the parent of a user or PID namespace.

    Raises: PermissionError at the caller's own namespace (nobody sees above), OSError with EINVAL for the other kinds.
    """
    return Fd(fcntl.ioctl(namespace.fileno(), _NS_GET_PARENT))


def owner_uid(user_namespace: Fd) -> int:
    """Return the uid, as the caller's user namespace shows it, of who made ``user_namespace``.

    Raises: OSError with EINVAL for another kind.
    """
    answer = fcntl.ioctl(user_namespace.fileno(), _NS_GET_OWNER_UID, bytes(4))
    return int(struct.unpack("=I", answer)[0])


def kind_of(namespace: Fd) -> NS:
    """Return the kind of the namespace that a descriptor refers to. Raises: OSError with ENOTTY for another file."""
    return NS(fcntl.ioctl(namespace.fileno(), _NS_GET_NSTYPE))


def list_namespaces() -> list[Namespace]:
    """Return every namespace that a process visible to the caller is in, by kind and number. Witness: lsns(8)."""
    members: dict[tuple[NS, int], list[int]] = {}
    for pid in sorted(int(name) for name in os.listdir("/proc") if name.isdigit()):
        try:
            found = namespaces_of(pid)
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue  # it ended, or belongs to somebody else
        for key in found.items():
            members.setdefault(key, []).append(pid)
    order = list(NS_FILES)
    keys = sorted(members, key=lambda key: (order.index(key[0]), key[1]))
    return [
        Namespace(kind, inode, tuple(members[kind, inode]), _owner_of(members[kind, inode], kind))
        for kind, inode in keys
    ]


def _owner_of(pids: list[int], kind: NS) -> int | None:
    for pid in pids:
        try:
            with open_namespace(pid, kind) as namespace, owner(namespace) as user_namespace:
                return os.fstat(user_namespace.fileno()).st_ino
        except PermissionError:
            return None
        except (FileNotFoundError, ProcessLookupError):
            continue
    return None


def main() -> None:
    """Print the eight kinds and the namespaces of this machine."""
    for kind in NS_FILES:
        text = describe(kind)
        print(f"{text.name:<7} {namespace_id('self', kind)}  separates {text.separates}")
    print(f"\n{'KIND':<7} {'NUMBER':<11} {'PROCESSES':>9}  {'FIRST':>7}  OWNER")
    for item in list_namespaces():
        print(
            f"{NS_FILES[item.kind]:<7} {item.inode:<11} {len(item.pids):>9}  {item.pids[0]:>7}  {item.owner_inode or '-'}"
        )


if __name__ == "__main__":
    main()

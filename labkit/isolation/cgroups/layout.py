"""Where this machine keeps its cgroups, and where this process is in them.

Each cgroup *hierarchy* is a tree of folders, mounted somewhere. v1 has one hierarchy for each controller or group of
controllers; v2 has a single one for all. A machine is

* ``v1``: controllers in v1 hierarchies only;
* ``hybrid``: controllers in v1 hierarchies, beside them a v2 tree that has none, but still can freeze, kill and count;
* ``v2``: one tree.

``/proc/self/mountinfo`` says what is mounted where, ``/proc/self/cgroup`` in which folder the reader is. Both give
paths as the reader's cgroup namespace shows them, and a mount may show only a part of its hierarchy.

Leaves out: limits in hierarchies of other controllers (``devices``) or none (``name=systemd``): these are only found.
See: cgroups(7), cgroup_namespaces(7), proc_pid_mountinfo(5), proc_pid_cgroup(5).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

__all__ = ["CONTROLLERS", "Hierarchy", "Layout", "Version", "parse_layout", "read_layout", "v2_controllers"]

Version = Literal["v1", "hybrid", "v2"]
#: The controllers that labkit knows, in v2's names.
CONTROLLERS = ("cpu", "cpuacct", "cpuset", "memory", "io", "pids", "freezer")
_V1_NAMES = {"blkio": "io"}


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """One mounted tree of cgroups; ``own`` is this process's folder in it, None if the mount does not show it."""

    version: Literal[1, 2]
    mount: str
    own: str | None
    controllers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Layout:
    """All hierarchies that this process can reach, each mentioned once."""

    version: Version
    hierarchies: tuple[Hierarchy, ...]
    #: v1 hierarchies without a controller that labkit uses, such as ``devices`` and ``name=systemd``.
    others: tuple[Hierarchy, ...] = ()

    def hierarchy_of(self, controller: str) -> Hierarchy | None:
        """Return the hierarchy that ``controller`` is attached to; None where the kernel has no such controller."""
        return next((h for h in self.hierarchies if controller in h.controllers), None)

    @property
    def unified(self) -> Hierarchy | None:
        """The v2 tree, with or without controllers."""
        return next((h for h in self.hierarchies if h.version == 2), None)


def read_layout() -> Layout:
    """Return the layout that this process sees now."""
    with open("/proc/self/mountinfo") as mountinfo, open("/proc/self/cgroup") as cgroup:
        layout = parse_layout(mountinfo.read(), cgroup.read())
    return Layout(layout.version, tuple(_with_v2_controllers(h) for h in layout.hierarchies), layout.others)


def parse_layout(mountinfo: str, cgroup: str) -> Layout:
    """Return the layout that the two files' texts describe; a v2 tree's controllers are not in them and stay empty."""
    positions = _positions(cgroup)
    found: dict[tuple[str, ...], Hierarchy] = {}
    for mount, root, version, controllers in _cgroup_mounts(mountinfo):
        own = _folder_below(mount, root, positions.get(controllers))
        known = found.get(controllers)
        # A hierarchy may be mounted several times; a mount that shows the own folder is worth more than one that does not.
        if known is None or (known.own is None and own is not None):
            names = tuple(_V1_NAMES.get(name, name) for name in sorted(controllers))
            found[controllers] = Hierarchy(version, mount, own, names)
    hierarchies = tuple(h for h in found.values() if h.version == 2 or set(h.controllers) & set(CONTROLLERS))
    others = tuple(h for h in found.values() if h not in hierarchies)
    versions = {h.version for h in hierarchies}
    return Layout("hybrid" if versions == {1, 2} else "v1" if versions == {1} else "v2", hierarchies, others)


def _positions(cgroup: str) -> dict[tuple[str, ...], str]:
    """Return the own path in each hierarchy, by its sorted controllers; v2, whose line is ``0::PATH``, has none."""
    lines = (line.split(":", 2) for line in cgroup.splitlines())
    return {tuple(sorted(filter(None, names.split(",")))): path for _, names, path in lines}


def _cgroup_mounts(mountinfo: str) -> Iterator[tuple[str, str, Literal[1, 2], tuple[str, ...]]]:
    """Yield mount point, shown root, version and controllers of each cgroup mount that no later mount covers."""
    mounts: dict[str, tuple[str, str, str]] = {}
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        root, point = before.split(" ")[3:5]
        fstype, _, options = after.split(" ", 2)
        mounts[_unescape(point)] = (_unescape(root), fstype, options)  # a later mount at the same place hides this one
    for point, (root, fstype, options) in mounts.items():
        if fstype == "cgroup2":
            yield point, root, 2, ()
        elif fstype == "cgroup":
            known = {
                *CONTROLLERS,
                *_V1_NAMES,
                "devices",
                "net_cls",
                "net_prio",
                "perf_event",
                "hugetlb",
                "rdma",
                "misc",
            }
            names = tuple(sorted(word for word in options.split(",") if word in known or word.startswith("name=")))
            if names:
                yield point, root, 1, names


def _folder_below(mount: str, root: str, position: str | None) -> str | None:
    """Return where ``position`` is seen through a mount that shows the hierarchy from ``root`` down."""
    if position is None or "/.." in position:  # outside the cgroup namespace
        return None
    if root == "/":
        return mount + position.rstrip("/")
    if position == root or position.startswith(root + "/"):
        return mount + position[len(root) :]
    return None


def _unescape(text: str) -> str:
    """Undo the octal escapes that mountinfo uses for blanks and backslashes."""
    for code, char in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(code, char)
    return text


def _with_v2_controllers(hierarchy: Hierarchy) -> Hierarchy:
    if hierarchy.version == 1:
        return hierarchy
    try:
        names = v2_controllers(hierarchy.mount)
    except OSError:  # hidden by another mount, or not readable: as good as absent
        names = ()
    return Hierarchy(2, hierarchy.mount, hierarchy.own, names)


def v2_controllers(folder: str) -> tuple[str, ...]:
    """Return those controllers of the v2 group ``folder`` that labkit knows. Raises: OSError."""
    with open(f"{folder}/cgroup.controllers") as file:
        return tuple(name for name in file.read().split() if name in CONTROLLERS)

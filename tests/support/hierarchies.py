"""The cgroup hierarchies of this machine, read without labkit, so that labkit's own reading can be compared with it.

See: cgroups(7), proc_pid_mountinfo(5), proc_pid_cgroup(5).
"""

from __future__ import annotations

import os
from dataclasses import dataclass

__all__ = ["Hierarchy", "mounted_hierarchies", "own_paths"]


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """One mounted tree; ``own`` is the folder that this process is in, ``controllers`` is empty for v2."""

    version: int
    mount: str
    own: str
    controllers: tuple[str, ...]


def own_paths() -> dict[frozenset[str], str]:
    """Return this process's path in each hierarchy, by the hierarchy's controllers (none: v2)."""
    paths = {}
    with open("/proc/self/cgroup") as file:
        for line in file:
            _, names, path = line.rstrip("\n").split(":", 2)
            paths[frozenset(filter(None, names.split(",")))] = path
    return paths


def mounted_hierarchies() -> list[Hierarchy]:
    """Return every hierarchy of v1 controllers and the v2 tree, each once; not those without controllers."""
    paths = own_paths()
    found: dict[frozenset[str], Hierarchy] = {}
    with open("/proc/self/mountinfo") as file:
        for line in file:
            before, _, after = line.rstrip("\n").partition(" - ")
            fstype, _, options = after.split(" ", 2)
            if fstype not in ("cgroup", "cgroup2"):
                continue
            root, mount = before.split(" ")[3:5]
            words = set(options.split(",")) if fstype == "cgroup" else set()
            names = next((key for key in paths if key and key <= words), frozenset()) if words else frozenset()
            if fstype == "cgroup" and (not names or any(name.startswith("name=") for name in names)):
                continue
            own = _seen_through(mount, root, paths.get(names, "/"))
            found.setdefault(names, Hierarchy(1 if names else 2, mount, own, tuple(sorted(names))))
    return [h for h in found.values() if os.path.isdir(h.own)]


def _seen_through(mount: str, root: str, path: str) -> str:
    inside = path[len(root) :] if root != "/" and path.startswith(root) else path
    return (mount + "/" + inside.strip("/")).rstrip("/")

"""Where this process may make cgroups: the rule, and who set it.

* **v1**: below the own group of each hierarchy, if its folder may be written to. Root may; an ordinary user may where
  somebody gave the folder away (chown).
* **v2**: a group with processes cannot give controllers to child groups; only the root of the tree is exempt. So root uses the
  top of the tree. Anybody else needs a group that was *delegated* to them (systemd does it:
  ``systemd-run --user --scope -p Delegate=yes``); there labkit first moves the group's processes into a child
  ``labkit-leaf``, so that the group itself has none. Inside a container's cgroup namespace the same holds for its root.
* **hybrid**: v1's rule for the controllers; the v2 tree has none, so its own group does as it is.

The processes of a delegated group are moved whoever they belong to: being given the group means being given them. A
terminal's own scope under ``user@.service`` counts as delegated, as it belongs to the user.

``LABKIT_CGROUP=PATH`` names another group to start from, as a path below the top of each hierarchy.

Leaves out: asking systemd over D-Bus for a scope.
See: cgroups(7) "No internal processes", "Delegation"; systemd.resource-control(5) (Delegate=).
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from labkit.errors import InvalidSpec
from labkit.isolation.cgroups import v2
from labkit.isolation.cgroups.layout import CONTROLLERS, Hierarchy, Layout, v2_controllers
from labkit.isolation.cgroups.tree import LEAF_NAME

__all__ = ["DELEGATE_REMEDY", "Base", "Places", "find_places"]

DELEGATE_REMEDY = "Start the program with: systemd-run --user --scope -p Delegate=yes -- PROGRAM, or run it as root."


@dataclass(frozen=True, slots=True)
class Base:
    """The folder of one hierarchy below which labkit makes its groups.

    ``needs_leaf``: processes in the folder must move into a leaf before it can enable controllers.
    """

    hierarchy: Hierarchy
    folder: str
    needs_leaf: bool
    controllers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Places:
    """The usable base of each hierarchy, and for each controller without one the reason, as a sentence."""

    bases: dict[str, Base]  # by the hierarchy's mount point
    controllers: frozenset[str]
    missing: dict[str, str]


def find_places(layout: Layout) -> Places:
    """Return where groups can be made, changing nothing. Raises: InvalidSpec for a wrong ``LABKIT_CGROUP``."""
    asked = os.environ.get("LABKIT_CGROUP", "").strip("/")
    if ".." in asked.split("/"):
        raise InvalidSpec(f"LABKIT_CGROUP={asked!r} must be a path below the top of the hierarchies, without '..'.")
    bases: dict[str, Base] = {}
    refused: dict[str, str] = {}
    for hierarchy in layout.hierarchies:
        base = _base_v1(hierarchy, asked) if hierarchy.version == 1 else _base_v2(hierarchy, layout, asked)
        if isinstance(base, Base):
            bases[hierarchy.mount] = base
        else:
            refused |= dict.fromkeys(hierarchy.controllers, base)
    usable = frozenset(name for base in bases.values() for name in base.controllers)
    # The v2 tree counts CPU time and freezes without a controller.
    needed = set(CONTROLLERS) - (
        {"cpuacct", "freezer"} if any(b.hierarchy.version == 2 for b in bases.values()) else set()
    )
    missing = {name: refused.get(name, _absent(name, layout)) for name in CONTROLLERS if name in needed - usable}
    return Places(bases, usable, missing)


def _absent(controller: str, layout: Layout) -> str:
    if layout.hierarchy_of(controller) is None:
        return f"This machine has no cgroup controller {controller!r} (see /proc/cgroups)."
    return (
        f"The cgroup controller {controller!r} is not among those delegated to this user. Have root run "
        f"`systemctl edit user@.service` and set Delegate=cpu cpuset io memory pids."
    )


def _base_v1(hierarchy: Hierarchy, asked: str) -> Base | str:
    folder = f"{hierarchy.mount}/{asked}" if asked else hierarchy.own
    if folder is None:
        return f"The cgroup that this process is in is not visible in {hierarchy.mount}."
    if not os.path.isdir(folder):
        return f"{folder}, which LABKIT_CGROUP names, does not exist."
    if not os.access(folder, os.W_OK | os.X_OK):
        return f"This user may not make cgroups in {folder}. Run as root, or have the folder given to the user (chown)."
    return Base(hierarchy, folder, needs_leaf=False, controllers=hierarchy.controllers)


def _base_v2(hierarchy: Hierarchy, layout: Layout, asked: str) -> Base | str:
    own = hierarchy.own
    if layout.version == "hybrid" and not hierarchy.controllers and not asked:
        if own is None or not _writable(own):
            return f"This user may not make cgroups in {own or hierarchy.mount}. {DELEGATE_REMEDY}"
        return Base(hierarchy, own, needs_leaf=False, controllers=())
    if asked:
        folder = f"{hierarchy.mount}/{asked}"
        if not os.path.isdir(folder):
            return f"{folder}, which LABKIT_CGROUP names, does not exist."
    elif _writable(hierarchy.mount) and v2.is_hierarchy_root(hierarchy.mount) and not _is_delegated(own):
        folder = hierarchy.mount
    elif own is None:
        return f"The cgroup that this process is in is not visible in {hierarchy.mount}."
    else:
        folder = own.removesuffix("/" + LEAF_NAME)
    if not _writable(folder):
        return f"The cgroup {folder} is not delegated to this user. {DELEGATE_REMEDY}"
    lives_there = own in (folder, f"{folder}/{LEAF_NAME}") and not v2.is_hierarchy_root(folder)
    return Base(hierarchy, folder, lives_there, v2_controllers(folder))


def _writable(folder: str) -> bool:
    """Tell whether this user may make groups in ``folder``, enable their controllers and move processes into them."""
    names = ("", "/cgroup.procs", "/cgroup.subtree_control")
    return all(os.access(folder + name, os.W_OK) for name in names)


def _is_delegated(folder: str | None) -> bool:
    """Tell whether systemd has marked ``folder`` as given away: then root stays within it, too."""
    if folder is None or not _writable(folder):
        return False
    for name in ("trusted.delegate", "user.delegate"):
        try:
            if os.getxattr(folder, name) == b"1":
                return True
        except OSError:  # no such mark, or not ours to read
            continue
    return False

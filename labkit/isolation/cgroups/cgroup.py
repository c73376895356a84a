"""A control group: processes that the kernel counts, limits, freezes and kills together.

To the kernel a cgroup is a folder: mkdir(2) makes it, a number written to a file limits it, a PID written to
``cgroup.procs`` moves a process in, and its children are born there. `Cgroup` is one such group over all hierarchies
of the machine; on v2 it has one folder, on v1 one for each controller.

Leaves out: threaded groups, moving a group, device rules, network classes.
See: cgroups(7); `join` for the quick way in.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self

from labkit.errors import DeadlineExceeded, FeatureMissing, InvalidState, LabkitError
from labkit.isolation.cgroups import files, tree, v1, v2
from labkit.isolation.cgroups.applying import apply_limits, check_cpuset
from labkit.isolation.cgroups.join import JoinFds
from labkit.isolation.cgroups.layout import Hierarchy, Layout, Version
from labkit.isolation.cgroups.limits import NO_LIMITS, Limits
from labkit.isolation.cgroups.parent import CgroupParent, checked_name, default_parent
from labkit.isolation.cgroups.psi import Pressure, Resource, read_pressure
from labkit.isolation.cgroups.stats import Events, Stats
from labkit.isolation.cgroups.watch import EventWatch

__all__ = ["Cgroup"]

#: What every group has, so that it is counted even when nothing is limited.
_ALWAYS = frozenset({"cpu", "memory", "pids"})
#: What v1 needs besides for CPU time and freezing, both of which a v2 tree does without a controller.
_WITHOUT_UNIFIED = frozenset({"cpuacct", "freezer"})
#: What a group has that puts its v2 folder off.
_LEAN = _ALWAYS | {"cpuacct"}


class Cgroup:
    """Owner of one group; a context manager; made by `create`, deleted with everything that still runs in it."""

    def __init__(self, name: str, parent: Cgroup | CgroupParent, *, lean: bool = False) -> None:
        self.name = name
        self.limits = NO_LIMITS
        self._lean = lean
        self._parent = parent
        self._layout: Layout = parent.layout
        self._by_mount: dict[str, str] = {}
        self._folders: dict[str, str] = {}
        self._v2_folder: str | None = None
        self._v2_controllers: frozenset[str] = frozenset()
        self._deleted = False

    @classmethod
    def create(
        cls, parent: Cgroup | CgroupParent | None = None, limits: Limits = NO_LIMITS, *, name: str | None = None,
        controllers: Iterable[str] = (), lean: bool = False,
    ) -> Cgroup:  # fmt: skip
        """Make a group below ``parent`` (None: this program's own, `default_parent`) and limit it.

        ``controllers`` asks for more than cpu, memory and pids and what ``limits`` need, for example ``io`` to count only.
        ``lean`` puts off, on a hybrid machine, the folder in the v2 tree until somebody freezes, kills or asks for pressure.
        Raises: FeatureMissing naming the rule where a controller that a limit needs cannot be used, InvalidSpec; nothing
        half-made is left.
        """
        holder = default_parent() if parent is None else parent
        group = cls(holder.next_name() if name is None else checked_name(name), holder, lean=lean)
        try:
            group._make(limits.controllers().union(controllers))
            group.set(limits)
        except BaseException:
            group.delete()
            raise
        return group

    @property
    def layout(self) -> Layout:
        """The machine's hierarchies as the creator saw them."""
        return self._layout

    @property
    def version(self) -> Version:
        """``v1``, ``hybrid`` or ``v2``."""
        return self._layout.version

    @property
    def folders(self) -> dict[str, Path]:
        """The group's folder for each of its controllers, and under ``unified`` that of the v2 tree."""
        return {name: Path(folder) for name, folder in self._folders.items()}

    def folder(self, controller: str) -> str | None:
        """Return the path in `folders` as text, None where the group has none; costs nothing."""
        return self._folders.get(controller)

    @property
    def controllers(self) -> frozenset[str]:
        """The controllers that groups below this one could have."""
        return self._parent.controllers

    @property
    def missing_controllers(self) -> dict[str, str]:
        """For each controller that cannot be used here, the reason and the remedy in one sentence."""
        return self._parent.missing_controllers

    def next_name(self) -> str:
        """Return a free name for a group below this one."""
        return self._parent.next_name()

    # -- making -------------------------------------------------------------------------------------------------------

    def _make(self, asked: Iterable[str]) -> None:
        has_unified = self._reachable_unified() is not None
        lean = self._lean and has_unified and self.version == "hybrid" and self.controllers >= _LEAN
        wanted = (_LEAN if lean else _ALWAYS if has_unified else _ALWAYS | _WITHOUT_UNIFIED) & self.controllers
        self._need(wanted.union(asked), with_unified=has_unified and not lean)
        if not self._folders:
            reasons = " ".join(dict.fromkeys(self.missing_controllers.values()))
            raise FeatureMissing(f"No cgroup can be made on this machine by this user. {reasons}")

    def _reachable_unified(self) -> Hierarchy | None:
        unified = self._layout.unified
        return unified if unified is not None and self._parent.reaches(unified.mount) else None

    def _into_unified(self) -> str | None:
        """Return the folder in the v2 tree; if it was put off it is made now, and whoever is in the group moves in."""
        unified = None if self._v2_folder or self._deleted else self._reachable_unified()
        if unified is not None:
            v1_folder = next(iter(self._by_mount.values()))
            self._make_folder(unified.mount, [], is_v2=True)
            v2.gather(self._by_mount[unified.mount], f"{v1_folder}/cgroup.procs")
        return self._v2_folder

    def _need(self, controllers: Iterable[str], *, with_unified: bool = False) -> None:
        """Make the folders that ``controllers`` need and that the group does not have yet; its processes move along."""
        new = sorted(name for name in controllers if name not in self._folders)
        mounts: dict[str, list[str]] = {}
        for name in new:
            hierarchy = self._layout.hierarchy_of(name)
            if hierarchy is None or name not in self.controllers:
                raise FeatureMissing(
                    self.missing_controllers.get(name, f"There is no cgroup controller {name!r} here.")
                )
            mounts.setdefault(hierarchy.mount, []).append(name)
        unified = self._layout.unified
        if with_unified and unified is not None:
            mounts.setdefault(unified.mount, [])
        members = self.procs() if self._by_mount and not mounts.keys() <= self._by_mount.keys() else []
        for mount, names in mounts.items():
            self._make_folder(mount, names, is_v2=unified is not None and mount == unified.mount)
        for pid in members:
            self.attach(pid)

    def _make_folder(self, mount: str, names: list[str], *, is_v2: bool) -> None:
        above = self._parent.child_folder(mount, names)
        folder = self._by_mount.get(mount)
        if folder is None:
            folder = f"{above}/{self.name}"
            try:
                os.mkdir(folder, 0o755)
            except OSError as error:
                raise files.explain_mkdir(error, folder) from error
            self._by_mount[mount] = folder
        for name in names:
            self._folders[name] = folder
        if is_v2:
            self._folders["unified"] = self._v2_folder = folder
            self._v2_controllers |= frozenset(names)
        elif "cpuset" in names:
            v1.copy_cpuset(above, folder)

    def reaches(self, mount: str) -> bool:
        """Tell whether groups below this one can have a folder in the hierarchy mounted at ``mount``."""
        return mount in self._by_mount

    def child_folder(self, mount: str, controllers: Iterable[str]) -> str:
        """Return the folder for groups below this one, with ``controllers`` enabled for them (v2).

        Raises: InvalidState on v2 while processes are in this group: it can have children or processes, not both.
        """
        if mount not in self._by_mount:
            self._need(controllers)
        folder = self._by_mount[mount]
        if folder == self._v2_folder and self._v2_controllers:
            try:
                v2.enable_controllers(folder, set(controllers))
            except OSError as error:
                raise InvalidState(
                    f"{self.name} cannot have groups below it ({error.strerror}): on v2 processes live in the leaves only."
                ) from error
        return folder

    def delegate(self, uid: int, gid: int) -> None:
        """Give the group away: that user may make groups below it and move processes, but not lift its limits.

        See: cgroups(7), "Delegation".
        """
        for folder in self._by_mount.values():
            os.chown(folder, uid, gid)
            for name in ("cgroup.procs", "tasks", "cgroup.threads", "cgroup.subtree_control"):
                with suppress(FileNotFoundError):
                    os.chown(f"{folder}/{name}", uid, gid)

    # -- limits -------------------------------------------------------------------------------------------------------

    def set(self, limits: Limits) -> None:
        """Make ``limits`` the group's limits; only what differs from `limits` is written, and None lifts a limit.

        Less memory than is in use: v2 takes pages back and then kills, v1 takes back what it can and else refuses.
        Raises: InvalidSpec, InvalidState, FeatureMissing; then the limits stay as they were.
        """
        if limits == self.limits:
            return
        self._check_exists()
        if "io" in self.limits.controllers() and limits.io_path != self.limits.io_path:
            self.set(replace(self.limits, io_read_bytes_per_s=None, io_write_bytes_per_s=None))  # on the old disk
        self._need(limits.controllers())
        if limits.cpuset is not None and limits.cpuset != self.limits.cpuset:
            check_cpuset(self._folders, limits.cpuset)
        try:
            apply_limits(self._folders, limits, self.limits)
        except LabkitError:
            with suppress(LabkitError):
                apply_limits(self._folders, self.limits, limits)
            raise
        self.limits = limits

    # -- processes ----------------------------------------------------------------------------------------------------

    def attach(self, pid: int) -> None:
        """Move the process ``pid`` into the group, with all its threads; takes milliseconds (see `join_fds`).

        Raises: InvalidState if there is no such process, FeatureMissing if this user may not move it.
        """
        self._check_exists()
        for folder in self._by_mount.values():
            try:
                files.write_text(f"{folder}/cgroup.procs", str(pid))
            except ProcessLookupError as error:
                raise InvalidState(f"Process {pid} cannot join {self.name}: it has ended.") from error
            except OSError as error:
                raise FeatureMissing(
                    f"Process {pid} cannot be moved into {folder} ({error.strerror}).",
                    remedy="It must belong to this user, and both groups must be delegated to this user.",
                ) from error

    def join_fds(self) -> JoinFds:
        """Return descriptors through which a child that is being made enters the group; the caller closes them."""
        self._check_exists()
        v1_folders = (folder for folder in self._by_mount.values() if folder != self._v2_folder)
        return JoinFds.open(self._v2_folder, v1_folders)

    def procs(self) -> list[int]:
        """Return the PIDs in the group (not in groups below it)."""
        folder = self._any_folder()
        return [] if folder is None else files.read_pids(f"{folder}/cgroup.procs")

    def _check_exists(self) -> None:
        if self._deleted:
            raise InvalidState(f"The cgroup {self.name} has been deleted.")

    def _any_folder(self) -> str | None:
        return self._v2_folder or next(iter(self._by_mount.values()), None)

    def freeze(self, *, timeout_s: float = 2.0) -> None:
        """Stop every process of the group where it is; none of them can notice or refuse it.

        Raises: DeadlineExceeded, InvalidState if this process itself is in the group.
        """
        self._check_exists()
        if os.getpid() in self.procs():
            raise InvalidState(f"This process is in {self.name}: frozen, it could never thaw itself.")
        if (folder := self._into_unified()) is not None:
            v2.freeze(folder, timeout_s=timeout_s)
        else:
            v1.freeze(self._freezer(), timeout_s=timeout_s)

    def thaw(self) -> None:
        """Let the processes go on where they were stopped."""
        self._check_exists()
        if self._v2_folder is not None:
            v2.thaw(self._v2_folder)
        else:
            v1.thaw(self._freezer())

    def _freezer(self) -> str:
        self._need(("freezer",))
        return self._folders["freezer"]

    @property
    def is_frozen(self) -> bool:
        """True while every process of the group is stopped."""
        if self._v2_folder is not None:
            return v2.is_frozen(self._v2_folder)
        return "freezer" in self._folders and v1.is_frozen(self._folders["freezer"])

    def kill(self) -> None:
        """Send SIGKILL to every process in the group and below; `wait_empty` waits for their end."""
        if (unified := self._into_unified()) is not None and v2.kill(unified):
            return
        if "freezer" in self._folders:
            # Frozen processes cannot fork, so one pass over them reaches all; kill_members thaws them afterwards.
            with suppress(DeadlineExceeded, FileNotFoundError):
                v1.freeze(self._folders["freezer"], timeout_s=0.1)
        folder = self._folders.get("freezer") or self._any_folder()
        if folder is not None:
            tree.kill_members(folder)

    def wait_empty(self, timeout_s: float) -> None:
        """Wait until no process is left in the group or below. Raises: DeadlineExceeded."""
        if self._v2_folder is not None:
            v2.wait_flag(self._v2_folder, "populated", value=0, timeout_s=timeout_s)
        elif (folder := self._any_folder()) is not None:
            tree.wait_empty(folder, timeout_s=timeout_s)

    # -- looking ------------------------------------------------------------------------------------------------------

    def stats(self) -> Stats:
        """Return the group's counters now; None where this machine keeps no such counter."""
        if self._v2_folder is None:
            return v1.read_stats(self._folders)
        counted = v2.read_stats(self._v2_folder, self._v2_controllers)
        old = {name: folder for name, folder in self._folders.items() if folder != self._v2_folder}
        return v1.read_stats(old).completed_by(counted) if old else counted

    def pressure(self, resource: Resource) -> Pressure:
        """Return how long tasks had to wait for ``resource``; v1 knows only the whole machine (``scope``).

        Raises: FeatureMissing if the kernel keeps no pressure at all.
        """
        self._check_exists()
        return read_pressure(self._into_unified(), resource)

    @property
    def events(self) -> Events:
        """The group's flags and event counters now."""
        if self._v2_folder is None:
            return v1.read_events(self._folders)
        seen = v2.read_events(self._v2_folder)
        old = {name: folder for name, folder in self._folders.items() if folder != self._v2_folder}
        return v1.read_events(old).completed_by(seen) if old else seen

    def watch(self) -> EventWatch:
        """Return a watch that misses no event between one wait and the next; the caller closes it."""
        return EventWatch(self._folders)

    def wait_event(self, timeout_s: float, *, since: Events | None = None) -> Events:
        """Wait until the events differ from ``since`` (None: from now) and return them.

        Raises: DeadlineExceeded.
        """
        deadline_s = time.monotonic() + timeout_s
        with self.watch() as watch:
            before = self.events if since is None else since
            while (now := self.events) == before:
                left_s = deadline_s - time.monotonic()
                if left_s <= 0:
                    raise DeadlineExceeded(f"Nothing happened in {self.name} within {timeout_s} s.")
                watch.wait(min(left_s, 0.25))  # not longer: v1 does not announce that a group became empty
        return now

    # -- end ----------------------------------------------------------------------------------------------------------

    def delete(self) -> None:
        """Kill what still runs in the group and remove it; safe to call twice.

        Raises: DeadlineExceeded naming processes that would not end.
        """
        if self._deleted:
            return
        # First where killing is one step: one by one, a fork bomb could win the race.
        first = (self._v2_folder, self._folders.get("freezer"))
        folders = sorted(self._by_mount.values(), key=lambda path: path not in first)
        if folders and tree.rmdir_all(folders[0]):
            del folders[0]
        elif folders:
            self.kill()
        for folder in folders:
            tree.remove_tree(folder)
        self._deleted = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.delete()

    def __repr__(self) -> str:
        return f"Cgroup({self.name!r}, {self.version}, {self.limits})"

"""A container's file tree, seen from the engine, whether the container runs or not.

A running container's tree is reached through ``/proc/PID/root``. For a stopped one the same overlay is mounted once more, in a mount
namespace that only one thread has, and only for the moment in which a *detached* copy of the mount is taken: a descriptor that
is attached nowhere. When it is closed, the mount is gone; nobody else ever saw it, and a killed engine leaves none.

File owners are seen as the machine has them. Root's containers live in a high range of ids, in which their layers lie on the disk, too, so
`Ids` translates.

See: unshare(2) (CLONE_NEWNS of a thread), open_tree(2).
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from labkit.errors import InvalidState, LabkitError
from labkit.isolation import idmap, mounts
from labkit.isolation.overlay import overlay
from labkit.linux.constants import NS
from labkit.linux.fds import Fd
from labkit.linux.steps import perform
from labkit.linux.syscalls import unshare

__all__ = ["Ids", "RootViews"]


@dataclass(frozen=True, slots=True)
class Ids:
    """How owners inside a container are written on the machine: ``outside = inside + shift`` for the first 65536."""

    shift: int

    @classmethod
    def of_containers(cls) -> Ids:
        """Return the translation for containers of this process."""
        maps = idmap.container_maps(idmap.own_maps())
        return cls(next((m.outside for m in maps.uids if m.inside == 0), 0))

    def inside(self, number: int) -> int:
        """Return the id that a container sees; what is outside its range stays (a layer's file, seen without mapping)."""
        low = number - self.shift
        return low if 0 <= low < idmap.CONTAINER_IDS else number

    def outside(self, number: int) -> int:
        """Return the id on the machine for one of a container's."""
        return number + self.shift if 0 <= number < idmap.CONTAINER_IDS else number


class _HasPid(Protocol):
    @property
    def pid(self) -> int: ...


class RootViews:
    """Opens file trees; ``stage`` is an empty folder."""

    def __init__(self, stage: str) -> None:
        self._stage = stage
        self.ids = Ids.of_containers()
        os.makedirs(stage, 0o700, exist_ok=True)

    def of_running(self, state: _HasPid) -> Fd:
        """Return the root of a running container, with everything that is mounted in it."""
        try:
            return Fd(os.open(f"/proc/{state.pid}/root", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
        except OSError as error:
            raise InvalidState(f"The container's file tree cannot be opened: {error.strerror}.") from error

    def of_layers(self, lowers: Sequence[str], writable: str | None) -> Fd:
        """Return the union of ``lowers`` (topmost first) and the folder ``writable`` (with upper and work in it)."""
        return self._in_own_thread(lambda: self._mount(lowers, writable))

    def _in_own_thread(self, what: Callable[[], int]) -> Fd:
        found: list[int] = []
        errors: list[OSError | LabkitError] = []

        def work() -> None:
            try:
                found.append(what())
            except (OSError, LabkitError) as error:
                errors.append(error)

        thread = threading.Thread(target=work, name="root view")
        thread.start()
        thread.join()
        if errors:
            raise errors[0]
        return Fd(found[0])

    def _mount(self, lowers: Sequence[str], writable: str | None) -> int:
        unshare(NS.MNT)  # of this thread alone
        perform([*mounts.private(), *mounts.tmpfs(self._stage, data="size=1m,mode=700")])
        names = [f"{self._stage}/{number}" for number in range(len(lowers))]
        for name, lower in zip(names, lowers, strict=True):
            with Fd(mounts.detached_copy(lower)) as tree:
                perform(mounts.attach(tree.number, name)[-2:])
        os.mkdir(f"{self._stage}/root")
        upper = None if writable is None else f"{writable}/upper"
        work = None if writable is None else f"{writable}/work"
        if writable is None and len(names) == 1:
            return mounts.detached_copy(names[0])
        perform(overlay(f"{self._stage}/root", names, upper=upper, work=work, userxattr=True))
        return mounts.detached_copy(f"{self._stage}/root")

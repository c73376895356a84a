"""The folder that one program keeps all its cgroups in: ``labkit-ID``, one in each hierarchy, held by a lock.

Made when the first group needs it, removed when the program ends, and found by ``labkit clean`` when it ended badly: the
program holds a shared flock(2) on each folder, and the kernel lets go of it when the program dies.

On v2 the folder's controllers have to be enabled above it; `delegation` does that and undoes it.

See: cgroups(7), flock(2).
"""

from __future__ import annotations

import atexit
import fcntl
import itertools
import os
import re
import threading
from collections.abc import Iterable
from types import TracebackType
from typing import Self

from labkit.errors import FeatureMissing, InvalidSpec, InvalidState, LabkitError
from labkit.isolation.cgroups import delegation, v1, v2
from labkit.isolation.cgroups.layout import Layout, Version, read_layout
from labkit.isolation.cgroups.places import DELEGATE_REMEDY, Base, Places, find_places
from labkit.isolation.cgroups.tree import PREFIX, remove_tree
from labkit.linux.fds import Fd

__all__ = ["CgroupParent", "checked_name", "default_parent"]

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}\Z", re.ASCII)


def checked_name(name: str) -> str:
    """Return ``name`` with labkit's prefix. Raises: InvalidSpec unless it is letters, digits, ``_``, ``.``, ``-``."""
    if not _NAME.match(name):
        raise InvalidSpec(f"{name!r} is no name for a cgroup: use up to 64 letters, digits, '_', '.' and '-'.")
    return name if name.startswith(PREFIX) else PREFIX + name


class CgroupParent:
    """Owner of this program's folders; a context manager; nothing is made or read before the first use."""

    def __init__(self, name: str | None = None, *, layout: Layout | None = None) -> None:
        self.name = checked_name(name or os.urandom(6).hex())
        self._given_layout = layout
        self._state: tuple[Layout, Places] | None = None
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._made: dict[str, tuple[str, Fd]] = {}  # mount point -> folder, lock
        self._enabled: dict[str, set[str]] = {}
        self._enabled_at_base: set[str] = set()
        self._numbers = itertools.count(1)
        self._closed = False

    @property
    def layout(self) -> Layout:
        """The machine's hierarchies as this process sees them."""
        return self._look()[0]

    @property
    def places(self) -> Places:
        """Where groups can be made, and why not where not."""
        return self._look()[1]

    @property
    def version(self) -> Version:
        """``v1``, ``hybrid`` or ``v2``."""
        return self.layout.version

    @property
    def controllers(self) -> frozenset[str]:
        """The controllers that groups below this parent can have."""
        return self.places.controllers

    @property
    def missing_controllers(self) -> dict[str, str]:
        """For each controller that cannot be used here, the reason and the remedy in one sentence."""
        return self.places.missing

    def _look(self) -> tuple[Layout, Places]:
        if self._state is None:
            layout = self._given_layout or read_layout()
            self._state = (layout, find_places(layout))
        return self._state

    def next_name(self) -> str:
        """Return a name for a group that no other group below this parent has."""
        return f"{PREFIX}{next(self._numbers)}"

    def base_of(self, mount: str) -> Base | None:
        """Return the usable base in the hierarchy mounted at ``mount``."""
        return self.places.bases.get(mount)

    def reaches(self, mount: str) -> bool:
        """Tell whether groups can have a folder in the hierarchy mounted at ``mount``."""
        return self.base_of(mount) is not None

    def child_folder(self, mount: str, controllers: Iterable[str]) -> str:
        """Return the folder for groups in the hierarchy at ``mount``, with ``controllers`` enabled for them (v2).

        Raises: FeatureMissing naming the rule that forbids it, InvalidState once closed.
        """
        with self._lock:
            if self._closed or self._pid != os.getpid():
                raise InvalidState(
                    f"The parent {self.name} of these cgroups has been closed or belongs to another process."
                )
            made = self._made.get(mount)
            base = self.base_of(mount)
            if base is None:
                raise FeatureMissing(f"No cgroup can be made in {mount}.", remedy=DELEGATE_REMEDY)
            if made is None:
                made = self._made[mount] = self._make(base)
            if base.hierarchy.version == 2 and not self._enabled.setdefault(mount, set()).issuperset(controllers):
                self._enable(base, made[0], controllers)
            return made[0]

    def _make(self, base: Base) -> tuple[str, Fd]:
        folder = f"{base.folder}/{self.name}"
        for _ in range(3):
            try:
                os.mkdir(folder, 0o755)
                lock = Fd(os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
                fcntl.flock(lock, fcntl.LOCK_SH)
                if os.path.isdir(folder):
                    break
                lock.close()
            except FileNotFoundError:
                pass  # `labkit clean` was faster than the lock
            except FileExistsError as error:
                raise InvalidState(f"{folder} exists already: two programs cannot share a name.") from error
            except OSError as error:
                raise FeatureMissing(f"{folder} cannot be made ({error.strerror}).", remedy=DELEGATE_REMEDY) from error
        else:
            raise InvalidState(f"{folder} was removed by somebody else three times.")
        if "cpuset" in base.hierarchy.controllers and base.hierarchy.version == 1:
            try:
                v1.copy_cpuset(base.folder, folder)
            except (OSError, LabkitError):
                lock.close()
                remove_tree(folder)
                raise
        return folder, lock

    def _enable(self, base: Base, folder: str, controllers: Iterable[str]) -> None:
        wanted = set(controllers)
        self._enabled_at_base |= delegation.give_controllers(base, wanted)
        v2.enable_controllers(folder, wanted)
        self._enabled[base.hierarchy.mount].update(wanted)

    def close(self) -> None:
        """Remove the folders with everything in them and undo what was changed above; safe to call twice."""
        with self._lock:
            if self._closed or self._pid != os.getpid():
                return
            self._closed = True
        errors: list[Exception] = []
        for mount, (folder, lock) in self._made.items():
            try:
                remove_tree(folder)
                base = self.base_of(mount)
                if base is not None and base.hierarchy.version == 2 and self._enabled.get(mount):
                    delegation.restore(base, self._enabled_at_base)
            except (OSError, TimeoutError) as error:
                errors.append(error)
            finally:
                lock.close()
        if errors:
            raise ExceptionGroup(f"Some cgroups of {self.name} could not be removed; run `labkit clean`.", errors)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"CgroupParent({self.name!r})"


_default: CgroupParent | None = None
_default_lock = threading.Lock()


def default_parent(name: str | None = None) -> CgroupParent:
    """Return this process's parent; the first call may give it a ``name``. It is closed when Python exits."""
    global _default
    with _default_lock:
        if _default is None or _default._closed or _default._pid != os.getpid():
            if _default is None:
                atexit.register(_close_default)
            _default = CgroupParent(name)
        return _default


def _close_default() -> None:
    if _default is not None:
        _default.close()

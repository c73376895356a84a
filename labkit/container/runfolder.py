"""Where a launcher keeps its things on the host: one folder, one lock, one file a container.

``/run/labkit`` for root, ``$XDG_RUNTIME_DIR/labkit`` or ``/tmp/labkit-UID`` for others. In it each launcher has the folder
``labkit-ID`` with

* ``lock``, locked (flock) as long as the launcher lives: a lock that can be taken means that the owner is gone;
* ``stage``, an empty folder on which each container mounts its private scratch space;
* ``NAME.json`` for each container that runs, for ``labkit ps``.

Leaves out: moving containers from one launcher to another.
See: flock(2), file-hierarchy(7) (/run).
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

__all__ = ["RunFolder", "base_folder", "dead_folders", "live_folders", "remove_folder"]

#: How a folder's name begins until it is locked, and how long that may take at the most.
_UNREADY, _YOUNG_S = ".unready-", 60.0


def base_folder() -> str:
    """Return the path under which this user's launchers keep their folders; it may not exist yet."""
    if os.geteuid() == 0 and os.access("/run", os.W_OK):
        return "/run/labkit"
    runtime_dir = os.environ.get("XDG_RUNTIME_DIR", "")
    if runtime_dir and os.access(runtime_dir, os.W_OK):
        return f"{runtime_dir}/labkit"
    return f"/tmp/labkit-{os.geteuid()}"


@dataclass(slots=True)
class RunFolder:
    """The folder of one launcher, held by a lock."""

    path: str
    lock_fd: int

    @classmethod
    def create(cls, base: str, name: str) -> RunFolder:
        """Make and lock ``base/name``. Raises: OSError; EPERM if ``base`` belongs to somebody else."""
        # 0711: a container's root is another user, who must pass through to the stage and may not look around.
        os.makedirs(base, 0o711, exist_ok=True)
        status = os.lstat(base)
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
            # In /tmp anybody may have made it first, as a trap.
            raise PermissionError(errno.EPERM, "the folder is not a folder of this user's own", base)
        # Under its name only once it is locked: whoever finds it before would take it for a dead launcher's.
        path, unready = f"{base}/{name}", f"{base}/{_UNREADY}{name}"
        os.mkdir(unready, 0o711)
        os.mkdir(f"{unready}/stage", 0o755)
        lock_fd = os.open(f"{unready}/lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.rename(unready, path)
        return cls(path, lock_fd)

    @property
    def stage(self) -> str:
        """The empty folder that every container covers with its own scratch mount."""
        return f"{self.path}/stage"

    def write_entry(self, name: str, entry: dict[str, Any]) -> None:
        """Note a running container, so that ``labkit ps`` of another process can list it."""
        with open(f"{self.path}/.{name}", "w") as file:
            json.dump(entry, file)
        os.rename(f"{self.path}/.{name}", f"{self.path}/{name}.json")

    def remove_entry(self, name: str) -> None:
        """Forget a container that has ended."""
        try:
            os.unlink(f"{self.path}/{name}.json")
        except FileNotFoundError:
            pass

    def remove(self) -> None:
        """Remove the folder, and the base if it was the last one."""
        remove_folder(self.path)
        os.close(self.lock_fd)


def remove_folder(path: str) -> None:
    """Remove one launcher's folder, and the base folder when nothing else is in it."""
    import shutil  # at the end only: it brings three compression libraries along

    shutil.rmtree(path, ignore_errors=True)
    try:
        os.rmdir(os.path.dirname(path))
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.ENOENT, errno.EBUSY):
            raise


def live_folders(base: str) -> Iterator[str]:
    """Yield the folders under ``base`` whose launcher lives."""
    yield from (path for path, alive in _folders(base) if alive)


def dead_folders(base: str) -> Iterator[str]:
    """Yield the folders under ``base`` whose launcher is gone: leftovers."""
    yield from (path for path, alive in _folders(base) if not alive)


def _folders(base: str) -> Iterator[tuple[str, bool]]:
    try:
        names = sorted(os.listdir(base))
    except FileNotFoundError:
        return
    for name in names:
        path = f"{base}/{name}"
        if name.startswith("labkit-"):
            yield path, is_locked(f"{path}/lock")
        elif name.startswith(_UNREADY):
            yield path, is_locked(f"{path}/lock") or _is_young(path)


def _is_young(path: str) -> bool:
    try:
        return time.time() - os.stat(path).st_mtime < _YOUNG_S
    except FileNotFoundError:
        return True  # renamed meanwhile


def is_locked(lock_path: str) -> bool:
    """Tell whether somebody holds the lock; a lock file that is missing counts as held by nobody."""
    try:
        fd = os.open(lock_path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False

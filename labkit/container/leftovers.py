"""What a killed program leaves behind, and its removal.

When a program is killed its launcher ends everything; when the launcher is killed the kernel ends its children. Killed both at
once, some things stay: empty cgroups, a run folder, and processes that had no PID namespace of their own and had left
their parent. Each can be told from what belongs to the living: a folder's lock (flock) can be taken, and a
process carries the run folder of its launcher in its environment.

Leaves out: mounts and interfaces, which live in namespaces and go with the last process in them.
See: flock(2), proc(5) (/proc/PID/environ), pidfd_open(2).
"""

from __future__ import annotations

import fcntl
import os
import signal
import stat
from dataclasses import dataclass
from pathlib import Path

from labkit.container import runfolder
from labkit.isolation import cgroups
from labkit.linux.syscalls import open_in_root

__all__ = ["LAUNCHER_VARIABLE", "Leftovers", "find", "marked_processes", "remove"]

#: The environment variable that marks a process without a PID namespace with the run folder of its launcher. The whole path:
#: root, who sees everybody's processes, must look for the lock where that user's launcher keeps it.
LAUNCHER_VARIABLE = "LABKIT_LAUNCHER"


@dataclass(frozen=True, slots=True)
class Leftovers:
    """What is left of programs that are gone: run folders, cgroups, and processes (by host pid)."""

    folders: tuple[str, ...] = ()
    cgroups: tuple[Path, ...] = ()
    pids: tuple[int, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.folders or self.cgroups or self.pids)

    def lines(self) -> list[str]:
        """Return one line for each thing, for people."""
        return [
            *(f"process {pid}" for pid in self.pids),
            *(f"cgroup {folder}" for folder in self.cgroups),
            *(f"folder {folder}" for folder in self.folders),
        ]


def find(base: str | None = None) -> Leftovers:
    """Look for leftovers of this user's programs (root: of root's programs, and everybody's cgroups)."""
    base = base or runfolder.base_folder()
    folders = tuple(runfolder.dead_folders(base))
    pids = tuple(pid for pid, folder in marked_processes() if not _is_alive(pid, folder))
    return Leftovers(folders, tuple(cgroups.find_leftovers()), pids)


def remove(leftovers: Leftovers) -> None:
    """End the processes, then remove cgroups and folders. Raises: OSError, DeadlineExceeded for what will not go."""
    for pid in leftovers.pids:
        kill_marked(pid)
    if leftovers.cgroups:
        cgroups.remove_leftovers()
    for path in leftovers.folders:
        runfolder.remove_folder(path)


def _is_alive(pid: int, folder: str) -> bool:
    """Tell whether a launcher holds ``folder``, as process ``pid`` names it; when in doubt, it does.

    The process may live in another file tree (a sandbox, a chroot), so the lock is looked for in its tree and in ours.
    """
    for root in (f"/proc/{pid}/root", "/"):
        is_held = _is_held(root, f"{folder}/lock")
        if is_held is not None:
            return is_held
    try:
        return os.stat(f"/proc/{pid}/ns/mnt").st_ino != os.stat("/proc/self/ns/mnt").st_ino
    except OSError:
        return True


def _is_held(root: str, path: str) -> bool | None:
    """Tell whether somebody holds the lock file ``path`` below ``root``; None if there is none to be seen."""
    try:
        root_fd = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        # The path is what a process says, so it must not lead out of its root, nor to a device that acts when opened.
        fd = open_in_root(root_fd, path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError:
        return None
    finally:
        os.close(root_fd)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return None
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def marked_processes() -> list[tuple[int, str]]:
    """Return the pid and the launcher's run folder of every process that carries one and whose environment we may read."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit() and (folder := launcher_of(int(entry))):
            found.append((int(entry), folder))
    return found


def launcher_of(pid: int) -> str | None:
    """Return the run folder of the launcher that process ``pid`` carries, if it does."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            environment = file.read()
    except OSError:
        return None  # not ours to read, or gone
    prefix = f"{LAUNCHER_VARIABLE}=".encode()
    return next(
        (os.fsdecode(item[len(prefix) :]) for item in environment.split(b"\0") if item.startswith(prefix)), None
    )


def kill_marked(pid: int) -> None:
    """Kill process ``pid`` if it still carries a launcher's name: the pid may be somebody else's by now."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        if launcher_of(pid) is not None:
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    except ProcessLookupError:
        pass
    finally:
        os.close(pidfd)

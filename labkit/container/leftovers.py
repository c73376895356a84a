"""What a killed program leaves behind, and its removal.

When a program is killed its launcher ends everything; when the launcher is killed the kernel ends its children. Killed both at
once, some things stay: empty cgroups, a run folder, and processes that had no PID namespace of their own and had left
their parent. Each can be told from what belongs to the living: a folder's lock (flock) can be taken, and a
process carries the name of its launcher in its environment.

Leaves out: mounts and interfaces, which live in namespaces and go with the last process in them.
See: flock(2), proc(5) (/proc/PID/environ), pidfd_open(2).
"""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from pathlib import Path

from labkit.container import runfolder
from labkit.isolation import cgroups

__all__ = ["LAUNCHER_VARIABLE", "Leftovers", "find", "marked_processes", "remove"]

#: The environment variable that marks a process without a PID namespace with the name of its launcher.
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
    alive = {os.path.basename(path) for path in runfolder.live_folders(base)}
    pids = tuple(pid for pid, name in marked_processes() if name not in alive)
    return Leftovers(folders, tuple(cgroups.find_leftovers()), pids)


def remove(leftovers: Leftovers) -> None:
    """End the processes, then remove cgroups and folders. Raises: OSError, DeadlineExceeded for what will not go."""
    for pid in leftovers.pids:
        kill_marked(pid)
    for folder in leftovers.cgroups:
        cgroups.remove_tree(folder)
    for path in leftovers.folders:
        runfolder.remove_folder(path)


def marked_processes() -> list[tuple[int, str]]:
    """Return the pid and the launcher's name of every process that carries one and whose environment we may read."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit() and (name := launcher_of(int(entry))):
            found.append((int(entry), name))
    return found


def launcher_of(pid: int) -> str | None:
    """Return the name of the launcher that process ``pid`` carries, if it does."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            environment = file.read()
    except OSError:
        return None  # not ours to read, or gone
    prefix = f"{LAUNCHER_VARIABLE}=".encode()
    return next((item[len(prefix) :].decode() for item in environment.split(b"\0") if item.startswith(prefix)), None)


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

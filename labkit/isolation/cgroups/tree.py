"""Ending and removing whole trees of cgroups, and finding those that a killed program left behind.

rmdir(2) removes a cgroup only when no process is in it and no group is below it; EBUSY says which is not so yet. A process
that was killed still counts until the kernel has taken it off the lists, so removing means: kill, wait, try again,
within a time limit.

Leaves out: waiting for the kernel to free what a removed group is still charged with (it does that by itself).
See: cgroups(7), pidfd_open(2), flock(2).
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

from labkit.errors import DeadlineExceeded
from labkit.isolation.cgroups import files, v1, v2
from labkit.isolation.cgroups.layout import Layout, read_layout
from labkit.linux.fds import Fd

__all__ = ["LEAF_NAME", "PREFIX", "find_leftovers", "kill_members", "remove_tree", "rmdir_all", "wait_empty", "walk"]

#: Every group that labkit makes has a name that begins so.
PREFIX = "labkit-"
#: Where the processes of a delegated v2 group move, so that the group may enable controllers (`parent`).
LEAF_NAME = "labkit-leaf"
_FIRST_PAUSE_S = 0.0002
_LONGEST_PAUSE_S = 0.02


def walk(folder: str) -> list[str]:
    """Return ``folder`` and all groups below it, parents first; groups that vanish meanwhile are left out."""
    found, waiting = [], [folder]
    while waiting:
        current = waiting.pop()
        found.append(current)
        try:
            with os.scandir(current) as entries:
                waiting += [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
        except FileNotFoundError:
            found.pop()
    return found


def kill_members(folder: str) -> list[int]:
    """Send SIGKILL to every process in the tree ``folder``; return those that were there.

    On v2 the kernel does it in one step, and no fork can slip through. On v1, and before Linux 5.14, a fork bomb can outrun
    one pass: callers repeat until nobody is left.
    """
    if os.path.exists(f"{folder}/cgroup.kill"):
        v2.kill(folder)
        return [pid for group in walk(folder) for pid in files.read_pids(f"{group}/cgroup.procs")]
    killed = []
    for group in walk(folder):
        path = f"{group}/cgroup.procs"
        for pid in files.read_pids(path):
            if pid > 1 and pid != os.getpid() and _kill_if_still_in(pid, path):
                killed.append(pid)
        if os.path.exists(f"{group}/freezer.state"):
            v1.thaw(group)  # a frozen process of v1 does not even die
    return killed


def _kill_if_still_in(pid: int, procs_path: str) -> bool:
    """Kill through a pidfd, after a second look: between reading a PID and using it, it may name somebody else."""
    try:
        with Fd(os.pidfd_open(pid)) as pidfd:
            if pid not in files.read_pids(procs_path):
                return False
            signal.pidfd_send_signal(pidfd.number, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def remove_tree(folder: str | Path, *, timeout_s: float = 5.0) -> None:
    """Kill what runs in the tree ``folder`` and remove it; does nothing if it is gone.

    Raises: DeadlineExceeded naming the processes that would not end, PermissionError for somebody else's tree.
    """
    top = str(folder)
    deadline_s = time.monotonic() + timeout_s
    pause_s = _FIRST_PAUSE_S
    while not rmdir_all(top):
        left_s = deadline_s - time.monotonic()
        if left_s <= 0:
            pids = [pid for group in walk(top) for pid in files.read_pids(f"{group}/cgroup.procs")]
            raise DeadlineExceeded(
                f"{top} could not be removed within {timeout_s} s: processes {pids} are still in it."
            )
        if not _wait_for(kill_members(top), min(left_s, 0.25)):
            # Nobody shows, yet EBUSY: the kernel is still taking the last one off; it announces nothing.
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)


def rmdir_all(top: str) -> bool:
    """Remove ``top`` and the groups below it, deepest first; False as soon as one is busy."""
    try:
        os.rmdir(top)  # nearly always a leaf: then this is the only system call
        return True
    except FileNotFoundError:
        return True
    except OSError as error:
        if error.errno not in (errno.EBUSY, errno.ENOTEMPTY):
            raise
    for group in reversed(walk(top)):
        try:
            os.rmdir(group)
        except FileNotFoundError:
            continue
        except OSError as error:
            if error.errno not in (errno.EBUSY, errno.ENOTEMPTY):
                raise
            return False
    return True


def wait_empty(folder: str, *, timeout_s: float) -> None:
    """Wait until no process is left in the v1 tree ``folder``. Raises: DeadlineExceeded."""
    deadline_s = time.monotonic() + timeout_s
    while pids := [pid for group in walk(folder) for pid in files.read_pids(f"{group}/cgroup.procs")]:
        left_s = deadline_s - time.monotonic()
        if left_s <= 0:
            raise DeadlineExceeded(f"{folder} was not empty within {timeout_s} s: processes {pids} are in it.")
        # v1 announces nothing, but the end of a process does; whoever is forked meanwhile is seen by the next look.
        if not _wait_for(pids, min(left_s, 0.25)):
            time.sleep(_FIRST_PAUSE_S)


def _wait_for(pids: list[int], timeout_s: float) -> bool:
    """Wait until one of ``pids`` has ended; False if there was none to wait for."""
    with ExitStack() as opened:
        poll = select.poll()
        count = 0
        for pid in pids[:64]:
            try:
                poll.register(opened.enter_context(Fd(os.pidfd_open(pid))), select.POLLIN)
                count += 1
            except (ProcessLookupError, OSError):
                continue
        return bool(count and poll.poll(timeout_s * 1000))


def find_leftovers(is_alive: Callable[[str], bool] | None = None, *, layout: Layout | None = None) -> list[Path]:
    """Return labkit's groups whose owner is gone, in every hierarchy, outermost only.

    ``is_alive`` is asked with a folder's name; without it a group counts as left over when nobody holds its lock: the program
    that makes one keeps a shared flock(2) on the folder, which the kernel drops when the program ends, however it ends.
    Root finds everybody's, others find their own.
    """
    found = []
    layout = layout or read_layout()
    # Freezer first: a frozen process has to be thawed before it can die in the other hierarchies.
    for hierarchy in sorted(layout.hierarchies, key=lambda h: "freezer" not in h.controllers):
        tops = {top for top in (hierarchy.mount, hierarchy.own) if top is not None}
        folders = {path for top in tops for path in _labkit_folders(top)}
        for path in sorted(folders):
            if _is_ours(path) and not _holds(path, hierarchy.own) and not _alive(path, is_alive):
                found.append(Path(path))
    return found


def _labkit_folders(top: str) -> Iterator[str]:
    """Yield the outermost folders with labkit's prefix below ``top``."""
    waiting = [top]
    while waiting:
        try:
            with os.scandir(waiting.pop()) as entries:
                folders = [(entry.name, entry.path) for entry in entries if entry.is_dir(follow_symlinks=False)]
        except (FileNotFoundError, PermissionError):
            continue
        for name, path in folders:
            if name.startswith(PREFIX):
                yield path
            else:
                waiting.append(path)


def _is_ours(path: str) -> bool:
    try:
        owner = os.stat(path).st_uid
    except FileNotFoundError:
        return False
    # The second test is for "root" of a user namespace, who cannot remove what others made.
    return os.geteuid() in (0, owner) and os.access(os.path.dirname(path), os.W_OK)


def _holds(path: str, own: str | None) -> bool:
    """Tell whether this process itself lives in ``path``: then removing it would be suicide."""
    return own is not None and (own + "/").startswith(path + "/")


def _alive(path: str, is_alive: Callable[[str], bool] | None) -> bool:
    name = os.path.basename(path)
    if name == LEAF_NAME:  # holds other people's processes, who did not ask to be killed
        return bool(files.read_pids(f"{path}/cgroup.procs"))
    return is_alive(name) if is_alive is not None else _is_locked(path)


def _is_locked(path: str) -> bool:
    try:
        with Fd(os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)) as folder:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        return True  # removed meanwhile: nothing is left over
    return False

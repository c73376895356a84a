"""Ending and removing whole trees of cgroups.

rmdir(2) removes a cgroup only when no process is in it and no group is below it; EBUSY says which is not so yet. A process
that was killed still counts until the kernel has taken it off the lists, so removing means: kill, wait, try again,
within a time limit.

Leaves out: waiting for the kernel to free what a removed group is still charged with (it does that by itself).
See: cgroups(7), pidfd_open(2).
"""

from __future__ import annotations

import errno
import os
import select
import signal
import time
from contextlib import ExitStack
from pathlib import Path

from labkit.errors import DeadlineExceeded
from labkit.isolation.cgroups import files, v1, v2
from labkit.linux.fds import Fd

__all__ = ["LEAF_NAME", "PREFIX", "kill_members", "remove_tree", "rmdir_all", "wait_empty", "walk"]

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

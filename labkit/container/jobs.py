"""The launcher's children: how long each may run, when it has ended, and how.

A pidfd in the launcher's epoll set tells of a child's end. Its exit status goes into a pipe to the program, pickled, once all that
the launcher held for it is released.

See: wait4(2), pidfd_open(2), prctl(2) (PR_SET_CHILD_SUBREAPER), epoll(7).
"""

from __future__ import annotations

import os
import pickle
import select
import signal
import time
from dataclasses import dataclass
from typing import Any

from labkit.container import runfolder
from labkit.container.spec import Spec
from labkit.linux.constants import NS

__all__ = ["Job", "Jobs"]


@dataclass(slots=True)
class Job:
    """A child that runs: where its end is reported and when it must be over."""

    pid: int
    pidfd: int
    exit_fd: int
    deadline_s: float | None
    has_pid_namespace: bool
    name: str
    timed_out: bool = False


class Jobs:
    """All children that run, by pidfd, each of which is in the epoll set ``poll``; ``folder`` lists them for ``labkit ps``."""

    def __init__(self, poll: select.epoll, folder: runfolder.RunFolder) -> None:
        self.poll = poll
        self.folder = folder
        self.running: dict[int, Job] = {}
        self._unwritten: dict[str, dict[str, Any]] = {}

    def register(self, name: str, spec: Spec, pid: int, pidfd: int, *, exit_fd: int, hostname: str) -> None:
        """Watch a child that has just become its program; its end is written to a copy of ``exit_fd``."""
        deadline_s = None if spec.time_limit_s is None else time.monotonic() + spec.time_limit_s
        self.running[pidfd] = Job(pid, pidfd, os.dup(exit_fd), deadline_s, spec.has(NS.PID), name)
        self.poll.register(pidfd, select.EPOLLIN)
        entry = {"name": name, "pid": pid, "command": spec.command, "hostname": hostname, "started_s": time.time()}
        self._unwritten[name] = entry

    def timeout_s(self) -> float | None:
        """Return how long the launcher may sleep: until the next deadline, or a moment of quiet to write entries in."""
        if self._unwritten:
            return 0.005
        deadlines = [
            job.deadline_s for job in self.running.values() if job.deadline_s is not None and not job.timed_out
        ]
        return max(0.0, min(deadlines) - time.monotonic()) if deadlines else None

    def enforce_deadlines(self) -> None:
        """Kill every child whose time is over."""
        now = time.monotonic()
        for job in self.running.values():
            if job.deadline_s is not None and now >= job.deadline_s and not job.timed_out:
                job.timed_out = True
                signal.pidfd_send_signal(job.pidfd, signal.SIGKILL)

    def write_entries(self) -> None:
        """Note the new containers for ``labkit ps``; those that have ended meanwhile never needed it."""
        for name, entry in self._unwritten.items():
            self.folder.write_entry(name, entry)
        self._unwritten.clear()

    def reap(self, job: Job) -> None:
        """Collect a child that has ended and write how it ended into its exit pipe."""
        _, status, usage = os.wait4(job.pid, 0)
        self.poll.unregister(job.pidfd)
        del self.running[job.pidfd]
        if not job.has_pid_namespace:
            self.end_orphans()
        report = {
            "status": os.waitstatus_to_exitcode(status),
            "timed_out": job.timed_out,
            "user_s": usage.ru_utime,
            "system_s": usage.ru_stime,
        }
        # What is released is released before the program hears of the end and may look.
        os.close(job.pidfd)
        if self._unwritten.pop(job.name, None) is None:
            self.folder.remove_entry(job.name)
        try:
            os.write(job.exit_fd, pickle.dumps(report))
        except BrokenPipeError:
            pass  # nobody waits any more
        os.close(job.exit_fd)

    def end_orphans(self) -> None:
        """Kill what a program without a PID namespace left behind: its orphans became ours (child subreaper)."""
        if any(not job.has_pid_namespace for job in self.running.values()):
            return  # they may belong to one that still runs; the last one to end takes them along
        known = {job.pid for job in self.running.values()}
        while orphans := [pid for pid in _children() if pid not in known]:
            for pid in orphans:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)

    def end_all(self) -> None:
        """Kill and collect every child."""
        for job in list(self.running.values()):
            signal.pidfd_send_signal(job.pidfd, signal.SIGKILL)
        for job in list(self.running.values()):
            self.reap(job)
        self.end_orphans()


def _children() -> list[int]:
    with open(f"/proc/self/task/{os.getpid()}/children") as file:
        return [int(pid) for pid in file.read().split()]

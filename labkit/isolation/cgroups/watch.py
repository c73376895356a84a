"""Waiting for the next event of a cgroup: a process was killed for memory, a fork refused, the group became empty.

v2 and the pids controller announce a change of their event files to poll(2) as POLLPRI, until the file is read again. v1's
memory controller instead wants an eventfd(2), registered by writing both descriptors to ``cgroup.event_control``.

Leaves out: memory thresholds and pressure triggers.
See: Documentation/admin-guide/cgroup-v2.rst, Documentation/admin-guide/cgroup-v1/memory.rst section 10.
"""

from __future__ import annotations

import os
import select
from collections.abc import Mapping
from contextlib import ExitStack
from types import TracebackType
from typing import Self

from labkit.isolation.cgroups import files
from labkit.linux.fds import Fd

__all__ = ["EventWatch"]

_POLLPRI_FILES = ("cgroup.events", "memory.events", "pids.events")


class EventWatch:
    """Open event files of one group; a context manager. What happens while it is open is not missed."""

    def __init__(self, folders: Mapping[str, str]) -> None:
        self._stack = ExitStack()
        self._poll = select.poll()
        self._files: list[Fd] = []
        self._event_fd = Fd(-1)
        for folder in dict.fromkeys(folders.values()):
            for name in _POLLPRI_FILES:
                self._add_file(f"{folder}/{name}")
        if "memory" in folders and os.path.exists(f"{folders['memory']}/memory.oom_control"):
            self._add_oom(folders["memory"])
        self._rearm()

    def _add_file(self, path: str) -> None:
        try:
            fd = self._stack.enter_context(Fd(os.open(path, os.O_RDONLY | os.O_CLOEXEC)))
        except FileNotFoundError:
            return
        self._files.append(fd)
        self._poll.register(fd, select.POLLPRI)

    def _add_oom(self, folder: str) -> None:
        self._event_fd = self._stack.enter_context(Fd(os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)))
        with Fd(os.open(f"{folder}/memory.oom_control", os.O_RDONLY | os.O_CLOEXEC)) as control:
            files.write_text(f"{folder}/cgroup.event_control", f"{self._event_fd.number} {control.number}")
        self._poll.register(self._event_fd, select.POLLIN)

    def wait(self, timeout_s: float) -> bool:
        """Wait for the next event; False if none came in time. The caller reads the counters to see which."""
        happened = bool(self._poll.poll(max(0.0, timeout_s) * 1000))
        if happened:
            self._rearm()
        return happened

    def _rearm(self) -> None:
        for fd in self._files:
            try:
                os.pread(fd.number, 4096, 0)
            except OSError:  # ENODEV: the group was deleted, and that is an event, too
                self._poll.modify(fd, 0)
        if self._event_fd.number >= 0:
            try:
                os.eventfd_read(self._event_fd.number)
            except BlockingIOError:
                pass

    def close(self) -> None:
        """Close the files; safe to call twice."""
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

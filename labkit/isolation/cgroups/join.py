"""The quick way into a cgroup: a child that is born there, or walks in by itself.

On v2 clone3(2) with CLONE_INTO_CGROUP starts a child inside the group. On v1 the child writes ``0``, which means the writer, to
``tasks`` of each hierarchy: that form alone needs no lock that waits for an RCU grace period, while writing somebody
else's PID to ``cgroup.procs`` takes milliseconds. Whoever opened the files is asked for permission, not the child.

See: clone(2), cgroups(7).
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from types import TracebackType
from typing import Self

__all__ = ["JoinFds"]


class JoinFds:
    """Descriptors through which a new process enters the group; a context manager that closes them."""

    __slots__ = ("task_fds", "v2_fd")

    def __init__(self, v2_fd: int = -1, task_fds: tuple[int, ...] = ()) -> None:
        self.v2_fd = v2_fd
        self.task_fds = task_fds

    @classmethod
    def open(cls, v2_folder: str | None, v1_folders: Iterable[str]) -> Self:
        """Open the folder of the v2 tree, if there is one, and ``tasks`` of each v1 hierarchy."""
        fds = cls()
        try:
            if v2_folder is not None:
                fds.v2_fd = os.open(v2_folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            for folder in v1_folders:
                fds.task_fds += (os.open(f"{folder}/tasks", os.O_WRONLY | os.O_CLOEXEC),)
        except OSError:
            fds.close()
            raise
        return fds

    @property
    def numbers(self) -> tuple[int, ...]:
        """All descriptors, that of v2 first if there is one: what has to be sent to a launcher."""
        return self.task_fds if self.v2_fd < 0 else (self.v2_fd, *self.task_fds)

    def close(self) -> None:
        """Close all descriptors; safe to call twice."""
        numbers, self.v2_fd, self.task_fds = self.numbers, -1, ()
        for fd in numbers:
            os.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

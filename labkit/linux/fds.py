"""File descriptors with one owner each.

A descriptor is a number that the kernel reuses at once: closing it twice may close somebody else's file. So each
one sits in an `Fd`, which knows whether it is still open; after `close` the number becomes -1.

See: open(2), close(2), unix(7) (SCM_RIGHTS).
"""

from __future__ import annotations

import fcntl
import os
import resource
from enum import IntEnum, auto
from types import TracebackType

__all__ = ["Fd", "Place", "pipe", "put_high"]


def _first_place() -> int:
    return max(32, min(1024, resource.getrlimit(resource.RLIMIT_NOFILE)[0]) - 64)


class Place(IntEnum):
    """Descriptor numbers at the top of what RLIMIT_NOFILE allows, for plans that must name a descriptor before it is there.

    The kernel hands out the lowest free number, so these are free until a thousand files are open.
    """

    SOCKET = _first_place()
    TERMINAL = auto()
    STREAM_0 = auto()
    STREAM_1 = auto()
    STREAM_2 = auto()
    EVENT = auto()
    #: From here on whatever `put_high` is given.
    OTHERS = auto()


def put_high(fd: int) -> int:
    """Move ``fd`` to the lowest free number from `Place.OTHERS` on, and return that: the same one each time, mostly.

    Raises: OSError with EMFILE or EINVAL when RLIMIT_NOFILE leaves no room.
    """
    high = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, int(Place.OTHERS))
    os.close(fd)
    return high


class Fd:
    """Owner of one descriptor; a context manager; safe to close twice."""

    __slots__ = ("number",)

    def __init__(self, number: int) -> None:
        self.number = number

    def fileno(self) -> int:
        """Return the descriptor, for select(2) and ``os`` functions; -1 once closed."""
        return self.number

    def detach(self) -> int:
        """Give the descriptor away; the caller is its owner from now on."""
        number, self.number = self.number, -1
        return number

    def close(self) -> None:
        """Close the descriptor if it is still open."""
        number, self.number = self.number, -1
        if number >= 0:
            os.close(number)

    def __enter__(self) -> Fd:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Fd({self.number})"


def pipe() -> tuple[Fd, Fd]:
    """Return the read end and the write end of a new close-on-exec pipe. See: pipe(2)."""
    read_fd, write_fd = os.pipe2(os.O_CLOEXEC)
    return Fd(read_fd), Fd(write_fd)


def main() -> int:
    """Show that the kernel reuses a number at once, and that a closed `Fd` no longer names it."""
    first, other = pipe()
    number = first.fileno()
    first.close()
    again, third = pipe()
    print(f"descriptor {number} was closed, and the next pipe got {again.fileno()}: the same number, another pipe")
    first.close()  # with the bare number this would have closed the new pipe
    print(f"the closed one is {first}, closing it twice left {again} open")
    for fd in (other, again, third):
        fd.close()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

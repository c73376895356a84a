"""System V shared memory: pieces of memory with a number, which every process of one IPC namespace can name.

shmget(2) makes a segment and gives its number, shmat(2) maps it. A segment that is marked for removal (IPC_RMID) keeps its number
until the last process that has it mapped lets go, so one that is marked at once is never left behind.

Leaves out: semaphores, message queues, POSIX shared memory (files in /dev/shm).
See: sysvipc(7), shmget(2), shmctl(2), proc(5) (/proc/sysvipc/shm).
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["segments", "shared_segment"]

_IPC_PRIVATE, _IPC_CREAT, _IPC_RMID = 0, 0o1000, 0  # linux/ipc.h

_libc = ctypes.CDLL(None, use_errno=True)
_shmget = _libc.shmget
_shmget.argtypes, _shmget.restype = (ctypes.c_int, ctypes.c_size_t, ctypes.c_int), ctypes.c_int
_shmat = _libc.shmat
_shmat.argtypes, _shmat.restype = (ctypes.c_int, ctypes.c_void_p, ctypes.c_int), ctypes.c_void_p
_shmdt = _libc.shmdt
_shmdt.argtypes, _shmdt.restype = (ctypes.c_void_p,), ctypes.c_int
_shmctl = _libc.shmctl
_shmctl.argtypes, _shmctl.restype = (ctypes.c_int, ctypes.c_int, ctypes.c_void_p), ctypes.c_int

# ABI: shmat(2) answers (void *) -1 for an error.
_FAILED = ctypes.c_void_p(-1).value


@contextmanager
def shared_segment(size_bytes: int) -> Iterator[int]:
    """Keep a segment of ``size_bytes`` meanwhile and give its number; it goes with this process, whatever happens.

    Raises: OSError with EINVAL for a size of 0, ENOSPC when the system's number of segments is used up.
    """
    number = _shmget(_IPC_PRIVATE, size_bytes, _IPC_CREAT | 0o600)
    if number < 0:
        raise _error(f"shmget(IPC_PRIVATE, {size_bytes}, IPC_CREAT)")
    address = _shmat(number, None, 0)
    failed = _error(f"shmat({number})") if address == _FAILED else None
    _shmctl(number, _IPC_RMID, None)
    if failed is not None:
        raise failed
    try:
        yield int(number)
    finally:
        _shmdt(address)


def segments() -> dict[int, int]:
    """Return number and size in bytes of every segment in the caller's IPC namespace. Witness: ``ipcs -m``."""
    with open("/proc/sysvipc/shm") as file:
        header, *rows = (line.split() for line in file)
    number, size = header.index("shmid"), header.index("size")
    return {int(row[number]): int(row[size]) for row in rows}


def _error(call: str) -> OSError:
    errno = ctypes.get_errno()
    return OSError(errno, f"{call}: {os.strerror(errno)}")


def main() -> int:
    """Make a segment of shared memory and find it in the list of this IPC namespace."""
    with shared_segment(4096) as number:
        print(f"shmget made segment {number}; /proc/sysvipc/shm lists {segments()}")
    print(f"marked for removal, it went with the last process that had it: {number in segments()}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

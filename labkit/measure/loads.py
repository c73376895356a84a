"""The loads of the overhead experiment, as they run inside: each does a fixed amount of one kind of work and says how long it took.

The clock is read inside, around the work alone, so that starting Python and the container is not part of it.

See: `labkit.measure.overhead`.
"""

from __future__ import annotations

import json
import mmap
import os
from collections.abc import Callable

from labkit.measure.clock import time_ms
from labkit.measure.inner_python import tell

__all__ = ["WORK", "main"]

_ADDITIONS, _CALLS, _MEMORY_BYTES, _PROCESSES = 600_000, 100_000, 32 << 20, 40


def _compute() -> None:
    total = 0
    for number in range(_ADDITIONS):
        total += number


def _call() -> None:
    ask = os.getppid  # the kernel must be asked: a parent can change
    for _ in range(_CALLS):
        ask()


def _touch() -> None:
    with mmap.mmap(-1, _MEMORY_BYTES) as pages:
        for offset in range(0, _MEMORY_BYTES, mmap.PAGESIZE):
            pages[offset] = 1


def _spawn() -> None:
    for _ in range(_PROCESSES):
        os.waitpid(os.posix_spawn("/bin/true", ["true"], {}), 0)


WORK: dict[str, Callable[[], None]] = {"cpu": _compute, "syscalls": _call, "memory": _touch, "processes": _spawn}


def main(request_text: str) -> None:
    """Do each load once and tell the times in milliseconds."""
    names = json.loads(request_text)["loads"]
    tell({name: time_ms(WORK[name]) for name in names})

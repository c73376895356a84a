"""Hogs: programs that take as much of one thing as they are given, and no more than it says here.

A limit shows only when something leans against it. Each hog is one line of shell or Python, so that a lesson can print it, and each
is bounded by itself as well: a hog that is started without limits stops growing at the figure in its name, and
whoever starts it gives it a time limit.

Leaves out: disk hogs (a limit on I/O differs too much from machine to machine); hogs of kernel memory.
See: stress-ng(1), which has three hundred more.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

from labkit.units import MiB

__all__ = ["Hog", "cpu_hog", "fork_bomb", "memory_hog", "process_hog"]

_MEMORY = """import time
kept = []
for _ in range({blocks}):
    kept.append(bytearray({block_bytes}))  # bytearray writes zeros: the pages are really there
    time.sleep({pause_s})
time.sleep({hold_s})
"""
#: The classic, with a counter: each call starts two more, six deep, which is 126 processes at most.
_BOMB = 'bomb() { [ "$1" -le 0 ] || { bomb $(($1 - 1)) & bomb $(($1 - 1)) & sleep 1; }; }; bomb 6 2>/dev/null; wait'
_PROCESSES = "i=0; while [ $i -lt {count} ]; do sleep {hold_s} & i=$((i+1)); sleep {pause_s}; done; wait"


@dataclass(frozen=True, slots=True)
class Hog:
    """A program, what it takes (``cpu``, ``memory``, ``pids``), and how much of it at most."""

    takes: str
    command: tuple[str, ...]
    most: str


def cpu_hog() -> Hog:
    """Return an endless loop: one CPU, as long as it is let."""
    return Hog("cpu", ("sh", "-c", "while :; do :; done"), "one CPU")


def memory_hog(most_bytes: int = 192 * MiB, *, bytes_per_s: int = 64 * MiB, hold_s: float = 1.0) -> Hog:
    """Return a Python program that takes memory evenly, up to ``most_bytes``, keeps it for ``hold_s``, and ends."""
    block_bytes = 2 * MiB
    blocks, pause_s = max(1, most_bytes // block_bytes), block_bytes / bytes_per_s
    text = _MEMORY.format(blocks=blocks, block_bytes=block_bytes, pause_s=round(pause_s, 4), hold_s=hold_s)
    # -I -S: the interpreter alone, so that what grows is what the program takes.
    return Hog("memory", (sys.executable, "-I", "-S", "-c", text), f"{blocks * block_bytes // MiB} MiB")


def process_hog(count: int = 60, *, per_s: float = 20.0, hold_s: float = 10.0) -> Hog:
    """Return a shell that starts ``count`` sleeping processes one after another; a refused fork ends it."""
    text = _PROCESSES.format(count=count, hold_s=hold_s, pause_s=round(1 / per_s, 3))
    return Hog("pids", ("sh", "-c", text), f"{count} processes")


def fork_bomb() -> Hog:
    """Return a fork bomb that counts down: without a limit it ends by itself at 126 processes, after a few seconds."""
    return Hog("pids", ("sh", "-c", _BOMB), "126 processes")

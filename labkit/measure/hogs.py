"""Hogs: programs that take as much of one thing as they are given, and no more than it says here; and a pen to keep them in.

A limit shows only when something leans against it. Each hog is a few lines of shell or Python that a lesson can print, and each is
bounded by itself as well: started without limits, it stops at the figure that `Hog.most` says. The `HogPen` is a container
in whose cgroup hogs are started and stopped by name while its limits are changed.

Leaves out: disk hogs (a limit on I/O differs too much from machine to machine); hogs of kernel memory.
See: stress-ng(1), which has three hundred more.
"""

from __future__ import annotations

import signal
import sys
import threading
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from labkit.container.container import Container
from labkit.container.process import Process
from labkit.errors import InvalidSpec, InvalidState
from labkit.isolation.cgroups import Cgroup, Limits
from labkit.units import MiB

__all__ = ["HOGS", "Hog", "HogPen", "cpu_hog", "fork_bomb", "memory_hog", "process_hog"]

_MEMORY = """import time
for _ in range({rounds}):
    kept = []
    for _ in range({blocks}):
        kept.append(bytearray({block_bytes}))  # bytearray writes zeros: the pages are really there
        time.sleep({pause_s})
    time.sleep({hold_s})
"""
_PROCESSES = """import os, signal, time
signal.signal(signal.SIGTERM, lambda *_: os.killpg(0, signal.SIGKILL))
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
made = 0
while made < {count}:
    try:
        if os.fork() == 0:
            time.sleep({hold_s})
            os._exit(0)
        made += 1
    except BlockingIOError:  # EAGAIN: the kernel makes no further process
        pass
    time.sleep({pause_s})
time.sleep({hold_s})
"""
#: The classic, with a counter: each call starts two more, six deep.
_BOMB = 'bomb() { [ "$1" -le 0 ] || { bomb $(($1 - 1)) & bomb $(($1 - 1)) & sleep 1; }; }; bomb 6 2>/dev/null; wait'
_PEN_LIFE_S, _HOG_LIFE_S = 600.0, 60.0
#: PID 1 of a pen sleeps. Ignoring SIGCHLD (which a shell cannot hand on) makes the kernel collect the orphans that fall to it, or
#: they would stay in pids.max as zombies.
_SLEEPER = f"""import os, signal
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
os.execvp("sleep", ["sleep", "{_PEN_LIFE_S:.0f}"])
"""


@dataclass(frozen=True, slots=True)
class Hog:
    """A program, what it takes (``cpu``, ``memory``, ``pids``), and how much of it at most."""

    takes: str
    command: tuple[str, ...]
    most: str


def cpu_hog() -> Hog:
    """Return an endless loop: one CPU, as long as it is let."""
    return Hog("cpu", ("sh", "-c", "while :; do :; done"), "one CPU")


def memory_hog(
    most_bytes: int = 192 * MiB, *, bytes_per_s: int = 64 * MiB, hold_s: float = 1.0, rounds: int = 1
) -> Hog:
    """Return a program that takes memory evenly up to ``most_bytes``, keeps it for ``hold_s``, and gives it back."""
    block_bytes = 2 * MiB
    blocks, pause_s = max(1, most_bytes // block_bytes), block_bytes / bytes_per_s
    text = _MEMORY.format(
        rounds=rounds, blocks=blocks, block_bytes=block_bytes, pause_s=round(pause_s, 4), hold_s=hold_s
    )
    return Hog("memory", _python(text), f"{blocks * block_bytes // MiB} MiB")


def process_hog(count: int = 60, *, per_s: float = 10.0, hold_s: float = 5.0) -> Hog:
    """Return a program that makes ``count`` processes one after another, each of which sleeps ``hold_s``.

    Refused a process, it tries again. SIGTERM ends it with all its children.
    """
    text = _PROCESSES.format(count=count, hold_s=hold_s, pause_s=round(1 / per_s, 3))
    return Hog("pids", _python(text), f"{count} processes")


def fork_bomb() -> Hog:
    """Return a fork bomb that counts down: without a limit it ends by itself, with at most 190 processes, after seconds."""
    return Hog("pids", ("sh", "-c", _BOMB), "190 processes")


class HogPen:
    """A container with ``limits`` in which hogs run side by side; a context manager. Nothing in it outlives ten minutes."""

    def __init__(self, limits: Limits) -> None:
        self._container = Container(_python(_SLEEPER), image_like_host=True, limits=limits, time_limit_s=_PEN_LIFE_S)
        self._running: dict[str, Process] = {}
        self._lock = threading.Lock()  # a live view looks from one thread and begins from another

    def start(self) -> None:
        """Make the container. Raises: FeatureMissing where a limit cannot be set, SetupError."""
        self._container.start()

    @property
    def cgroup(self) -> Cgroup:
        """The group that holds the hogs. Raises: InvalidState before `start`."""
        if self._container.cgroup is None:
            raise InvalidState("The pen has no cgroup yet: call start() first.")
        return self._container.cgroup

    @property
    def pid(self) -> int:
        """The PID of the container's first process on the host."""
        return self._container.pid

    def begin(self, name: str) -> None:
        """Start the hog called ``name`` (one of `HOGS`), unless it runs; it ends after a minute. Raises: SetupError."""
        if name not in HOGS:
            raise InvalidSpec(f"There is no hog {name!r}: there are {', '.join(HOGS)}.")
        with self._lock:
            if name not in self._running:
                command = HOGS[name].command
                self._running[name] = self._container.exec(command, streams=("null",) * 3, time_limit_s=_HOG_LIFE_S)

    def end(self, name: str) -> None:
        """End the hog called ``name`` with its children; nothing happens if it does not run."""
        with self._lock:
            process = self._running.pop(name, None)
        if process is not None:
            process.kill(signal.SIGTERM)
            process.wait(2.0)
            process.close()

    def collect(self) -> dict[str, str]:
        """Return the hogs that ended by themselves since the last call, and how: ``{"memory hog": "killed by SIGKILL"}``."""
        with self._lock:
            ended = {name: process for name, process in self._running.items() if not process.running}
            for name in ended:
                del self._running[name]
        reasons = {name: process.wait(0).reason for name, process in ended.items()}
        for process in ended.values():
            process.close()
        return reasons

    @property
    def running(self) -> tuple[str, ...]:
        """The names of the hogs that run."""
        return tuple(self._running)

    def close(self) -> None:
        """End all hogs and the container, and remove its cgroup; safe to call twice."""
        self._container.close()
        with self._lock:
            for process in self._running.values():
                process.close()
            self._running.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _python(text: str) -> tuple[str, ...]:
    # -I -S: the interpreter alone, so that what grows is what the program takes.
    return (sys.executable, "-I", "-S", "-c", text)


#: What a pen can start, by the name on its button. (Made last: it needs the functions above.)
HOGS: dict[str, Hog] = {
    "CPU hog": cpu_hog(),
    "memory hog": memory_hog(rounds=30),
    "process hog": process_hog(count=400),
}

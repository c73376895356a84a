"""A program that asks for memory and touches some of it, on request: what its size and its resident set do.

It is a process of its own, so that nothing else moves its numbers, and it ends when its maker closes the line to it, or ends. A request is a
line: ``asked touched`` in bytes. Asking is mmap(2), touching a byte written into each page, and giving back madvise(2) and munmap(2).

Leaves out: files that are mapped; huge pages, which would make many small pages resident at once.
See: mmap(2), madvise(2), proc_pid_status(5) (VmSize, VmRSS), getrusage(2) (page faults).
"""

from __future__ import annotations

import subprocess
import sys
import threading
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from labkit.errors import InvalidSpec, InvalidState
from labkit.linux.proc import read_text, sizes_bytes
from labkit.measure.record import Result
from labkit.units import MiB

__all__ = ["MOST_ASKED_BYTES", "MOST_TOUCHED_BYTES", "Toucher", "Touched"]

#: Asking costs nothing, so the bound is only for show; touching takes real memory.
MOST_ASKED_BYTES, MOST_TOUCHED_BYTES = 1024 * MiB, 256 * MiB
_PROGRAM = """import mmap, sys
page, area, touched = mmap.PAGESIZE, None, 0
for line in sys.stdin:
    asked, wanted = map(int, line.split())
    if area is None or len(area) != max(page, asked):
        if area is not None: area.close()
        area, touched = mmap.mmap(-1, max(page, asked)), 0
        area.madvise(mmap.MADV_NOHUGEPAGE)
    if wanted < touched:
        area.madvise(mmap.MADV_DONTNEED, wanted, len(area) - wanted)
    for at in range(touched, wanted, page): area[at] = 1
    touched = wanted
    print(touched, flush=True)
"""
_MINOR_FAULTS = 9  # of the fields after the name in /proc/PID/stat; proc_pid_stat(5)


@dataclass(frozen=True, slots=True)
class Touched(Result):
    """What was asked for and touched, and what the kernel says of the process: size, resident set, page faults so far."""

    asked_bytes: int
    touched_bytes: int
    size_bytes: int
    resident_bytes: int
    page_faults: int


class Toucher:
    """The program; a context manager. Requests come from one thread at a time."""

    def __init__(self) -> None:
        # In a session of its own: a notebook kernel that shuts down kills the processes of its group and waits, for longer than it
        # is given, until they are collected. This one ends by itself, at the end of its input.
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _PROGRAM],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self._asked_bytes = self._touched_bytes = 0
        self._lock = threading.Lock()

    @property
    def pid(self) -> int:
        """The pid of the program."""
        return self._process.pid

    def ask(self, asked_bytes: int, touched_bytes: int) -> None:
        """Let it ask for ``asked_bytes`` and touch the first ``touched_bytes`` of them, or all that there is.

        Raises: InvalidSpec for more than the bounds, InvalidState once it has ended.
        """
        if not 0 <= asked_bytes <= MOST_ASKED_BYTES or not 0 <= touched_bytes <= MOST_TOUCHED_BYTES:
            raise InvalidSpec(
                f"{asked_bytes} and {touched_bytes} bytes: at most {MOST_ASKED_BYTES} are asked for, and "
                f"{MOST_TOUCHED_BYTES} touched."
            )
        touched_bytes = min(asked_bytes, touched_bytes)
        with self._lock:
            stdin, stdout = self._process.stdin, self._process.stdout
            if stdin is None or stdout is None or stdin.closed:
                raise InvalidState("The program that touches memory has ended.")
            try:
                stdin.write(f"{asked_bytes} {touched_bytes}\n")
                stdin.flush()
                answered = stdout.readline()
            except BrokenPipeError:
                answered = ""
            if not answered:
                raise InvalidState("The program that touches memory has ended: somebody killed it, or memory ran out.")
            self._asked_bytes, self._touched_bytes = asked_bytes, touched_bytes

    def take(self) -> Touched:
        """Return its numbers now. Raises: InvalidState once it has ended."""
        try:
            sizes = sizes_bytes(read_text(f"/proc/{self.pid}/status"))
            fields = read_text(f"/proc/{self.pid}/stat").rpartition(")")[2].split()
            numbers = sizes["VmSize"], sizes["VmRSS"], int(fields[_MINOR_FAULTS - 2])
        except (OSError, KeyError) as error:
            raise InvalidState("The program that touches memory has ended.") from error
        return Touched(self._asked_bytes, self._touched_bytes, *numbers)

    def close(self) -> None:
        """End it; safe to call twice."""
        with self._lock:
            for stream in (self._process.stdin, self._process.stdout):
                if stream is not None:
                    stream.close()
            self._process.kill()
            self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

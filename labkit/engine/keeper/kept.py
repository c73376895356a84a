"""A kept process: a container's program, or a further one in it (exec), with its streams.

Before its start it may already have sessions: ``docker run`` attaches first, so that it misses nothing. From the start on, output goes
to the log and to every session. Input comes from the sessions that may speak. At its end the last output is read, the
sessions are finished, and whoever asked is told.

See: `labkit.engine.keeper.session`, pty(7), pidfd_open(2).
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import termios
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from labkit.container.process import Process
from labkit.engine.keeper.logfile import LogFile
from labkit.engine.keeper.loop import READ, WRITE, Loop
from labkit.engine.keeper.session import Session
from labkit.errors import InvalidState, LabkitError
from labkit.isolation.cgroups import Cgroup, limits_met

__all__ = ["Ended", "Kept"]

_PIECE_BYTES = 64 << 10
_MOST_INPUT = 256 << 10
_LOST = 137  # nobody saw its end: the launcher was killed, and it with it


@dataclass(frozen=True, slots=True)
class Ended:
    """How a process ended, and when."""

    code: int
    oom_killed: bool
    finished_ns: int


class Kept:
    """One process. All methods run in the loop's thread."""

    def __init__(self, loop: Loop, key: str) -> None:
        self.loop, self.key = loop, key
        self.sessions: list[Session] = []
        self.process: Process | None = None
        self.cgroup: Cgroup | None = None
        self.ended: Ended | None = None
        self.terminal = self.is_exec = False
        self.started_ns = 0
        self.watchers: list[Callable[[], None]] = []
        self._log: LogFile | None = None
        self._outputs: dict[int, int] = {}  # descriptor: stream
        self._paused = False
        self._input = bytearray()
        self._input_fd = -1
        self._input_ends = self._input_was_registered = self._stdin_once = False
        self._on_end: Callable[[Kept], None] = lambda _: None

    def begin(
        self, process: Process, cgroup: Cgroup | None, *, log: LogFile | None, stdin_once: bool, started_ns: int,
        on_end: Callable[[Kept], None],
    ) -> None:  # fmt: skip
        """Take over the streams of ``process``, which has just been started."""
        self.process, self.cgroup, self._log, self._on_end = process, cgroup, log, on_end
        self.started_ns, self._stdin_once = started_ns, stdin_once
        if process.terminal is not None:
            fd = process.terminal.fileno()
            self._outputs[fd] = 1
            self._input_fd = fd
        for stream, file in ((1, process.stdout), (2, process.stderr)):
            if file is not None:
                self._outputs[file.fileno()] = stream
        if process.stdin is not None:
            self._input_fd = process.stdin.fileno()
            os.set_blocking(self._input_fd, False)
        for fd in self._outputs:
            os.set_blocking(fd, False)
            self.loop.add(fd, READ, lambda events, fd=fd: self._output_ready(fd, events))  # type: ignore[misc]
        self.loop.add(process.pidfd, READ, lambda _: self._has_ended())
        if self._input:
            self._push_input()

    def attach(self, session: Session) -> None:
        """Add a client, now or before the start."""
        session.kept, session.raw = self, self.terminal
        self.sessions.append(session)

    def detach(self, session: Session) -> None:
        """Forget a client that has gone; if it was the one to speak, input may end with it."""
        if session in self.sessions:
            self.sessions.remove(session)
            self.go_on()

    # -- output -------------------------------------------------------------------------------------------------------

    def go_on(self) -> None:
        """Read output again if every client has room for it."""
        if self._paused and not any(session.is_full for session in self.sessions):
            self._paused = False
            for fd in self._outputs:
                self._set_output_events(fd)

    def _set_output_events(self, fd: int) -> None:
        wants_write = fd == self._input_fd and bool(self._input)
        self.loop.change(fd, (0 if self._paused else READ) | (WRITE if wants_write else 0))

    def _output_ready(self, fd: int, events: int) -> None:
        if events & WRITE and fd == self._input_fd:
            self._push_input()
        if events & ~WRITE and fd in self._outputs and not self._read(fd):
            self._drop_output(fd)

    def _read(self, fd: int) -> bool:
        """Read one piece; return False at the end of the stream."""
        try:
            data = os.read(fd, _PIECE_BYTES)
        except BlockingIOError:
            return True
        except OSError as error:
            if error.errno != errno.EIO:  # what a terminal says when its other side is gone
                raise
            data = b""
        if not data:
            return False
        self._spread(self._outputs[fd], data)
        return True

    def _spread(self, stream: int, data: bytes) -> None:
        if self._log is not None:
            try:
                self._log.write(stream, data)
            except OSError:
                self._log = None  # a full disk costs the log, not the container
        for session in list(self.sessions):
            session.offer(stream, data)
        for watcher in list(self.watchers):
            watcher()
        if any(session.is_full for session in self.sessions):
            self._paused = True
            for fd in self._outputs:
                self._set_output_events(fd)

    def _drop_output(self, fd: int) -> None:
        del self._outputs[fd]
        self.loop.remove(fd)

    # -- input --------------------------------------------------------------------------------------------------------

    @property
    def input_is_full(self) -> bool:
        """True while the program has not read what it was given: clients must wait."""
        return len(self._input) >= _MOST_INPUT

    def feed(self, data: bytes) -> None:
        """Give the program input; it waits here until the program starts and reads."""
        if self.ended is None and not self._input_ends:
            self._input += data
            self._push_input()

    def end_input(self) -> None:
        """Close standard input once all of it has been passed on, if the container was made so (StdinOnce)."""
        if (self._stdin_once or self.process is None) and not self.terminal:
            self._input_ends = True
            self._push_input()

    def _push_input(self) -> None:
        if self._input_fd < 0 or self.process is None:
            return
        try:
            while self._input:
                written = os.write(self._input_fd, self._input[:_PIECE_BYTES])
                del self._input[:written]
        except BlockingIOError:
            pass
        except OSError:
            self._input.clear()  # the program does not want it
        self._wait_for_room()
        if not self._input and self._input_ends:
            self._close_input()
        if not self.input_is_full:
            for session in self.sessions:
                session.want_input(wanted=not self._input_ends)

    def _wait_for_room(self) -> None:
        """Be called again when a program that is slow to read has read some."""
        if self._input_fd in self._outputs:
            self._set_output_events(self._input_fd)
        elif self._input and not self._input_was_registered:
            self.loop.add(self._input_fd, WRITE, lambda _: self._push_input())
            self._input_was_registered = True
        elif not self._input and self._input_was_registered:
            self.loop.remove(self._input_fd)
            self._input_was_registered = False

    def _close_input(self) -> None:
        if self.process is not None and self.process.stdin is not None and self._input_fd >= 0:
            self.loop.remove(self._input_fd)
            self._input_was_registered = False
            self.process.stdin.close()
            self._input_fd = -1

    def resize(self, rows: int, columns: int) -> None:
        """Give the program's terminal a size. Raises: InvalidState without one."""
        if self.process is None or self.process.terminal is None or self.ended is not None:
            raise InvalidState(f"{self.key} has no terminal")
        # ABI: struct winsize: rows, columns, and two that nobody uses.
        size = struct.pack("<4H", rows & 0xFFFF, columns & 0xFFFF, 0, 0)
        fcntl.ioctl(self.process.terminal.fileno(), termios.TIOCSWINSZ, size)

    # -- end ----------------------------------------------------------------------------------------------------------

    def _has_ended(self) -> None:
        process = self.process
        if process is None:
            return
        self.loop.remove(process.pidfd)
        for fd in list(self._outputs):
            with suppress(OSError):
                while self._has_more(fd):
                    pass
            self._drop_output(fd)
        self.ended = Ended(self._exit_code(process), self._was_oom_killed(), time.time_ns())
        self._input_fd = -1
        self.loop.remove(process.stdin.fileno() if process.stdin and not process.stdin.closed else -1)
        process.close()
        if self._log is not None:
            with suppress(OSError):
                self._log.close()
            self._log = None
        if self.cgroup is not None:
            with suppress(LabkitError, OSError):
                self.cgroup.delete()
        self._on_end(self)
        for session in list(self.sessions):
            session.finish()
        for watcher in list(self.watchers):
            watcher()

    def _has_more(self, fd: int) -> bool:
        """Read what a process that has ended left in its pipe; what its children still may write is nobody's."""
        try:
            data = os.read(fd, _PIECE_BYTES)
        except BlockingIOError:
            return False
        if data:
            self._spread(self._outputs[fd], data)
        return bool(data)

    def _exit_code(self, process: Process) -> int:
        try:
            return process.wait(5.0).code
        except LabkitError:
            return _LOST

    def _was_oom_killed(self) -> bool:
        if self.cgroup is None:
            return False
        try:
            return limits_met(self.cgroup).oom_kills > 0
        except OSError:
            return False

"""A child of the launcher, seen from the program: its streams, signals and end.

A pidfd refers to one process for ever, unlike a pid, which the kernel hands out again: so a signal through it can never hit
a stranger, and it becomes readable when the process ends. The exit status itself arrives through a pipe from the launcher,
because only a parent may wait for a child.

Leaves out: job control; stopping a terminal's foreground group.
See: pidfd_open(2), pidfd_send_signal(2), pty(7).
"""

from __future__ import annotations

import os
import pickle
import select
import selectors
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import IO, Any, Literal

from labkit.container.client import launcher
from labkit.container.spec import Spec
from labkit.errors import DeadlineExceeded, InvalidState
from labkit.isolation.cgroups import JoinFds
from labkit.linux.fds import Fd, pipe

__all__ = ["Completed", "Exit", "Process", "Stream", "Streams"]

#: A standard stream of the child: a new pipe, nothing (/dev/null), or an open descriptor of the program's.
Stream = Literal["pipe", "null"] | int
#: Standard input, output and error.
Streams = tuple[Stream, Stream, Stream]
#: How much of each output stream `Process.communicate` keeps.
MOST_OUTPUT_BYTES = 16 << 20


@dataclass(frozen=True, slots=True)
class Exit:
    """How a process ended and what it used. ``code`` is what a shell would show: 128 + N for signal N."""

    code: int
    signal: int | None
    elapsed_s: float
    user_s: float
    system_s: float
    timed_out: bool = False
    oom_killed: bool = False
    pids_limit_hits: int = 0
    throttled_usec: int = 0

    @property
    def ok(self) -> bool:
        """True if the program returned 0."""
        return self.code == 0

    @property
    def reason(self) -> str:
        """The end in words, most telling fact first: ``timed out``, ``oom_killed``, ``pids limit``, ``killed by SIGTERM``."""
        facts = [
            word
            for word, true in (
                ("timed out", self.timed_out),
                ("oom_killed", self.oom_killed),
                ("pids limit", self.pids_limit_hits > 0),
                ("throttled", self.throttled_usec > 0),
            )
            if true
        ]
        if self.signal is not None:
            facts.append(f"killed by {signal.Signals(self.signal).name}")
        else:
            facts.append(f"exit status {self.code}")
        return ", ".join(facts)


@dataclass(frozen=True, slots=True)
class Completed:
    """A finished run: its end, and what it wrote (the first 16 MiB of each stream)."""

    exit: Exit
    stdout: bytes
    stderr: bytes

    @property
    def text(self) -> str:
        """Standard output as text, undecodable bytes replaced."""
        return self.stdout.decode(errors="replace")


class Process:
    """One child: made by `start`, collected by `wait`, released by `close`. A context manager."""

    def __init__(self, operation: str, name: str, spec: Spec, *, streams: Streams) -> None:
        self.name = name
        self._request: dict[str, Any] = {"op": operation, "name": name, "spec": spec}
        self._streams = streams
        self._exit_pipe = Fd(-1)
        self._pidfd = Fd(-1)
        self._started_s = 0.0
        self._exit: Exit | None = None
        self.pid = -1
        self.notes: tuple[str, ...] = ()
        self.stdin: IO[bytes] | None = None
        self.stdout: IO[bytes] | None = None
        self.stderr: IO[bytes] | None = None
        self.terminal: IO[bytes] | None = None

    def prepare(self) -> None:
        """Let the launcher begin, while the caller makes the cgroup. `start` must follow."""
        launcher().prepare(self.name, self._request["spec"])

    def forget(self) -> None:
        """Let the launcher give up what `prepare` began; nothing happens after `start`."""
        launcher().forget(self.name)

    def start(
        self, *, join: JoinFds | None = None, target: tuple[int, int] | None = None,
        between: Callable[[int, int], None] | None = None,
    ) -> None:  # fmt: skip
        """Have the launcher start the program; return when it runs. Raises: SetupError naming the step that failed.

        ``between`` as in `labkit.container.client.LauncherClient.spawn`.
        """
        if self.pid != -1:
            raise InvalidState(f"{self.name} was started before: make a new one for another run.")
        self._started_s = time.monotonic()
        exit_r, exit_w = pipe()
        for_child = [exit_w]
        try:
            stdio = [self._open_stream(number, for_child) for number in range(3)]
            if target is not None:
                self._request["target_pid"] = target[0]
            fds = [*([] if target is None else [target[1]]), *stdio, exit_w.number, *_cgroup_fds(join)]
            self._request["has_cgroup2"] = join is not None and join.v2_fd >= 0
            answer = launcher().spawn(self._request, fds, between=between)
        except BaseException:
            exit_r.close()
            self._close_streams()
            raise
        finally:
            for fd in for_child:
                fd.close()
        self.pid, self._pidfd, self._exit_pipe = answer.pid, Fd(answer.pidfd), exit_r
        self.notes = answer.notes
        if answer.tty_fd >= 0:
            self.terminal = open(answer.tty_fd, "r+b", buffering=0)

    def _open_stream(self, number: int, for_child: list[Fd]) -> int:
        wanted = self._streams[number]
        if isinstance(wanted, int):
            return wanted
        if wanted == "null" or self._request["spec"].terminal:
            flags = os.O_RDONLY if number == 0 else os.O_WRONLY
            for_child.append(Fd(os.open(os.devnull, flags | os.O_CLOEXEC)))
            return for_child[-1].number
        read_end, write_end = pipe()
        theirs, ours, mode = (read_end, write_end, "wb") if number == 0 else (write_end, read_end, "rb")
        for_child.append(theirs)
        setattr(self, ("stdin", "stdout", "stderr")[number], open(ours.detach(), mode, buffering=0))
        return theirs.number

    @property
    def pidfd(self) -> int:
        """The descriptor that refers to the process; -1 before `start` and after `close`."""
        return self._pidfd.number

    @property
    def running(self) -> bool:
        """True from `start` until the process has ended."""
        return self.pid != -1 and self._exit is None and self._exit_pipe.number >= 0 and not self._ended(0)

    def _ended(self, timeout_s: float | None) -> bool:
        return _is_readable(self._exit_pipe, timeout_s)

    def has_ended(self, timeout_s: float | None) -> bool:
        """Wait at most ``timeout_s`` for the end; it comes before the exit status, for which the launcher must collect it first."""
        return self._exit is not None or (self._pidfd.number >= 0 and _is_readable(self._pidfd, timeout_s))

    def wait(self, timeout_s: float | None = None) -> Exit:
        """Return how the process ended; use `communicate` instead if it may write more than a pipe holds (64 KiB).

        Raises: DeadlineExceeded when it still runs after ``timeout_s`` (it goes on running), InvalidState before `start`.
        """
        if self._exit is None:
            if self.pid == -1:
                raise InvalidState(f"{self.name} has not been started: call start() first.")
            if not self._ended(timeout_s):
                raise DeadlineExceeded(f"{self.name} still runs after {timeout_s} s: kill() ends it.")
            self._exit = self._read_exit()
        return self._exit

    def _read_exit(self) -> Exit:
        elapsed_s = time.monotonic() - self._started_s
        data = os.read(self._exit_pipe.number, 4096)
        if not data:
            raise InvalidState("The launcher was killed, and its children with it; how they ended is not known.")
        report = pickle.loads(data)
        status = int(report["status"])
        return Exit(
            code=status if status >= 0 else 128 - status,
            signal=-status if status < 0 else None,
            elapsed_s=elapsed_s,
            user_s=report["user_s"],
            system_s=report["system_s"],
            timed_out=report["timed_out"],
        )

    def kill(self, signal_number: int = signal.SIGKILL) -> None:
        """Send a signal to the process; nothing happens if it has ended."""
        if self._pidfd.number >= 0:
            try:
                signal.pidfd_send_signal(self._pidfd.number, signal_number)
            except ProcessLookupError:
                pass  # ended and collected in between

    def communicate(self, data: bytes = b"", *, timeout_s: float | None = None) -> Completed:
        """Write ``data`` to standard input, read both outputs to their end, and wait.

        Raises: DeadlineExceeded after ``timeout_s``; what was read so far is lost, the process goes on.
        """
        deadline_s = None if timeout_s is None else time.monotonic() + timeout_s
        outputs: dict[Any, bytearray] = {
            file: bytearray() for file in (self.stdout, self.stderr, self.terminal) if file
        }
        with selectors.DefaultSelector() as selector:
            for file in outputs:
                selector.register(file, selectors.EVENT_READ)
            pending = memoryview(data)
            if self.stdin and data:
                os.set_blocking(self.stdin.fileno(), False)
                selector.register(self.stdin, selectors.EVENT_WRITE)
            elif self.stdin:
                self.stdin.close()
            while selector.get_map():
                remaining_s = None if deadline_s is None else deadline_s - time.monotonic()
                if remaining_s is not None and remaining_s <= 0:
                    raise DeadlineExceeded(f"{self.name} still runs after {timeout_s} s: kill() ends it.")
                for key, _ in selector.select(remaining_s):
                    if key.fileobj is self.stdin:
                        pending = _write_some(self.stdin, pending, selector)
                    else:
                        _read_some(key.fileobj, outputs[key.fileobj], selector)
        remaining_s = None if deadline_s is None else max(0.0, deadline_s - time.monotonic())
        exit_ = self.wait(remaining_s)
        stdout = outputs.get(self.stdout) or outputs.get(self.terminal) or b""
        return Completed(exit_, bytes(stdout), bytes(outputs.get(self.stderr) or b""))

    def close(self) -> None:
        """Kill the process if it still runs, collect it, and release every descriptor; safe to call twice."""
        if self.pid != -1 and self._exit is None and self._exit_pipe.number >= 0:
            self.kill()
            self._ended(None)
        self._close_streams()
        self._pidfd.close()
        self._exit_pipe.close()

    def _close_streams(self) -> None:
        for file in (self.stdin, self.stdout, self.stderr, self.terminal):
            if file is not None:
                file.close()

    def __enter__(self) -> Process:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _is_readable(fd: Fd, timeout_s: float | None) -> bool:
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(None if timeout_s is None else max(0, timeout_s * 1000)))


def _cgroup_fds(join: JoinFds | None) -> list[int]:
    if join is None:
        return []
    return [*([join.v2_fd] if join.v2_fd >= 0 else []), *join.task_fds]


def _write_some(stdin: Any, pending: memoryview, selector: selectors.BaseSelector) -> memoryview:
    try:
        pending = pending[os.write(stdin.fileno(), pending[: 1 << 16]) :]
    except BrokenPipeError:
        pending = pending[:0]  # the program does not want the rest
    if not pending:
        selector.unregister(stdin)
        stdin.close()
    return pending


def _read_some(file: Any, kept: bytearray, selector: selectors.BaseSelector) -> None:
    try:
        data = os.read(file.fileno(), 1 << 16)
    except OSError:
        data = b""  # a terminal answers EIO when its other side is gone
    if data:
        kept += data[: max(0, MOST_OUTPUT_BYTES - len(kept))]
    else:
        selector.unregister(file)

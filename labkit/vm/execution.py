"""A command in the guest: started, fed, read and killed by system calls that the host chooses.

Two round trips carry a short command: one makes the pipes, the next starts the process, waits for it a moment, collects its
status and reads what it wrote. A longer one is asked again and again: ppoll(2) in the guest wakes up when the command writes,
reads or ends. The time limit is the host's: when it has passed, the process and its group are killed.

The child becomes the leader of a session of its own, without a terminal; its standard streams are pipes.

Leaves out: terminals; processes that leave their group survive a time limit; more than 16 MiB of output are dropped.
See: vfork(2), pipe(2), ppoll(2), pidfd_open(2), wait(2).
"""

from __future__ import annotations

import errno
import os
import signal
import struct
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

from labkit.errors import DeadlineExceeded, GuestError, InvalidSpec, SetupError
from labkit.vm.calls import Answer, CallList, Note, Slot
from labkit.vm.port import Port

__all__ = ["ENVIRONMENT", "Execution", "GuestResult", "Streams"]

ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", "HOME": "/root", "LANG": "C.UTF-8"}
MOST_OUTPUT_BYTES = 16 << 20
_CHUNK_BYTES = 64 << 10  # what a pipe holds
# linux/sched.h, fcntl.h, poll.h, linux/wait.h: the same on x86-64 and arm64
_CLONE_VM, _CLONE_VFORK, _CLONE_PIDFD = 0x100, 0x4000, 0x1000
_O_NONBLOCK, _O_CLOEXEC, _F_SETFL, _AT_FDCWD = 0o4000, 0o2000000, 4, -100
_POLLIN, _POLLOUT, _WNOHANG = 1, 4, 1
#: How long the guest waits for news before it answers, first and later: after an answer other threads get their turn.
_FIRST_WAIT_S, _WAIT_S = 0.02, 0.05
_KILL_GRACE_S = 2.0
#: How long after a command's time limit the guest may take to say that it is still running: longer, and the guest hangs.
_ANSWER_GRACE_S = 1.0


@dataclass(frozen=True, slots=True)
class GuestResult:
    """A command that has ended: ``status`` is what a shell would show, 128 + N for signal N; output byte for byte."""

    status: int
    stdout: bytes
    stderr: bytes
    elapsed_s: float

    @property
    def text(self) -> str:
        """Standard output as text, undecodable bytes replaced."""
        return self.stdout.decode(errors="replace")


@dataclass(frozen=True, slots=True)
class Streams:
    """A command's streams as they flow: ``read`` gives more standard input (nothing yet: no bytes; its end: None), and
    ``write`` gets what the command writes to its descriptor 1 or 2, in place of the result.
    """

    read: Callable[[], bytes | None]
    write: Callable[[int, bytes], object]


@dataclass(slots=True)
class _Output:
    """A stream that the command writes to: the guest's descriptor (-1: it has ended), and what has come so far."""

    fd: int = -1
    content: bytearray = field(default_factory=bytearray)
    is_drained: bool = False
    sink: Callable[[bytes], object] | None = None

    def take(self, count: int, data: bytes) -> None:
        """Note an answer of read(2): less than was asked for means that nothing more was there."""
        if self.sink is not None and data:
            self.sink(data)
        elif self.sink is None:
            self.content += data[: MOST_OUTPUT_BYTES - len(self.content)]
        self.is_drained = count < _CHUNK_BYTES
        if count <= 0 and count != -errno.EAGAIN:
            self.fd = -1


class Execution:
    """One command under way; `run` does all of it. Used once."""

    def __init__(
        self, port: Port, machine: str, command: Sequence[str], *, stdin: bytes, cwd: str, env: Mapping[str, str],
        streams: Streams | None = None,
    ) -> None:  # fmt: skip
        if not command:
            raise InvalidSpec("There is no command to run: give at least a program's name.")
        self._port, self._machine = port, machine
        self._command, self._cwd = tuple(command), cwd
        self._environment = ENVIRONMENT | dict(env)
        self._stdin, self._stdin_fd = memoryview(stdin), -1
        self._more = None if streams is None else streams.read
        sinks = [None if streams is None else partial(streams.write, number) for number in (1, 2)]
        self._outputs = (_Output(sink=sinks[0]), _Output(sink=sinks[1]))
        self._pid = self._pidfd = -1
        self._opened: list[int] = []

    def run(self, timeout_s: float) -> GuestResult:
        """Start the command and wait for its end.

        Raises: DeadlineExceeded after ``timeout_s`` (the command has been killed), GuestError if the guest is gone or hangs,
        SetupError if there is no such program or folder.
        """
        started_s = time.monotonic()
        deadline_s = started_s + timeout_s
        try:
            self._start(deadline_s)
            while not self._is_over():
                if time.monotonic() >= deadline_s:
                    raise DeadlineExceeded(
                        f"{self._command[0]} took longer than {timeout_s:g} s in the guest and was killed: give it more time."
                    )
                self._go_on(deadline_s)
        except BaseException as error:
            self._port.chores += self._opened
            self._port.waited_for.discard(self._pid)
            if not isinstance(error, GuestError):
                self._kill()
            raise
        self._port.chores += self._opened
        status = self._port.ended.pop(self._pid)
        out, err = (bytes(output.content) for output in self._outputs)
        return GuestResult(_shell_status(status), out, err, time.monotonic() - started_s)

    def _is_over(self) -> bool:
        # The status is asked for before the streams are read: whatever the process wrote was there to be read.
        return self._pid in self._port.ended and all(output.is_drained or output.fd < 0 for output in self._outputs)

    def _start(self, deadline_s: float) -> None:
        """Make the pipes and the process. The lock: nobody else may collect the process before its pid is known."""
        with self._port.lock:
            ends = self._make_pipes(deadline_s)
            self._opened = list(ends)
            calls = CallList(self._machine)
            pollfd = calls.note(struct.pack("<ihh", -1, _POLLIN, 0))
            flags = _CLONE_VM | _CLONE_VFORK | _CLONE_PIDFD | signal.SIGCHLD
            clone = calls.call("clone", flags, 0, pollfd)  # the kernel writes the pidfd into the pollfd
            tries = self._add_child(calls, ends)
            calls.skip_from(clone)
            for fd in (ends[0], ends[3], ends[5]):
                calls.call("close", fd)
            for fd in (ends[1], ends[2], ends[4]):
                calls.call("fcntl", fd, _F_SETFL, _O_NONBLOCK)
            self._stdin_fd = ends[1]
            self._outputs[0].fd, self._outputs[1].fd = ends[2], ends[4]
            answer = self._exchange(calls, [pollfd], _FIRST_WAIT_S, deadline_s, new=clone)
            self._pidfd = struct.unpack_from("<i", answer.note(pollfd))[0]
            self._opened = [fd for fd in (self._stdin_fd, ends[2], ends[4], self._pidfd) if fd >= 0]
            self._raise_if_refused(answer, tries)

    def _make_pipes(self, deadline_s: float) -> tuple[int, ...]:
        """Return the read and write ends of three pipes. Raises: GuestError when the guest has no descriptors left."""
        calls = CallList(self._machine)
        notes = [calls.note(8) for _ in range(3)]
        made = [calls.call("pipe2", note, _O_CLOEXEC) for note in notes]
        answer = self._port.exchange(calls, deadline_s)
        if any(answer[slot] < 0 for slot in made):
            raise GuestError(f"The guest could not make pipes: {os.strerror(-min(answer[slot] for slot in made))}.")
        return struct.unpack("<6i", b"".join(answer.note(note) for note in notes))

    def _add_child(self, calls: CallList, ends: Sequence[int]) -> list[Note]:
        """Add what the child does; return where the refusals of chdir and of each execve will stand."""
        calls.call("setsid")
        # An agent that is not init ignores SIGPIPE, and what is ignored stays so through execve.
        calls.call("rt_sigaction", signal.SIGPIPE, bytes(32), None, 8)
        for target, fd in enumerate((ends[0], ends[3], ends[5])):
            calls.call("dup3", fd, target, 0)
        refusals = [calls.note(8)]
        moved = calls.call("chdir", self._cwd)
        calls.keep(moved, refusals[0])
        environment = tuple(f"{name}={value}" for name, value in self._environment.items())
        for path in self._candidates():
            refusals.append(calls.note(8))
            calls.keep(calls.call("execve", path, self._command, environment), refusals[-1])
        calls.skip_from(moved)
        calls.call("exit_group", 127)
        return refusals

    def _candidates(self) -> list[str]:
        name = self._command[0]
        if "/" in name:
            return [name]
        return [f"{folder}/{name}" for folder in self._environment.get("PATH", "").split(":") if folder]

    def _raise_if_refused(self, answer: Answer, refusals: Sequence[Note]) -> None:
        """Raises: SetupError if the child ended without having become the program."""
        chdir, *tries = (-struct.unpack("<q", answer.note(note))[0] for note in refusals)
        if chdir:
            raise SetupError(f"The guest has no folder {self._cwd}: {os.strerror(chdir)}.", step="chdir", errno=chdir)
        if all(tries):
            # "Not allowed" tells more than "not there", and of several folders only one may say it.
            number = next((one for one in tries if one != errno.ENOENT), errno.ENOENT)
            raise SetupError(
                f"The guest could not run {self._command[0]!r}: {os.strerror(number)}.", step="execve", errno=number
            )

    def _go_on(self, deadline_s: float) -> None:
        """Wait in the guest until the command wants something, and do it."""
        calls = CallList(self._machine)
        watched = [(self._pidfd, _POLLIN)] if self._pid not in self._port.ended else []
        watched += [(output.fd, _POLLIN) for output in self._outputs if output.fd >= 0]
        if self._stdin_fd >= 0 and self._stdin:
            watched.append((self._stdin_fd, _POLLOUT))
        wait_s = min(_WAIT_S, max(0.0, deadline_s - time.monotonic()))
        pollfds = [calls.note(b"".join(struct.pack("<ihh", fd, events, 0) for fd, events in watched))]
        self._exchange(calls, pollfds, wait_s if self._pid not in self._port.ended else 0.0, deadline_s)

    def _exchange(
        self, calls: CallList, pollfds: Sequence[Note], wait_s: float, deadline_s: float, *, new: Slot | None = None
    ) -> Answer:
        """Add feeding, waiting, collecting and reading to ``calls``; let the guest make them; note what came of it."""
        fed = self._add_feeding(calls)
        (watched,) = pollfds
        calls.call("ppoll", watched, watched.size // 8, struct.pack("<qq", 0, int(wait_s * 1e9)), None, 8)
        status = calls.note(8)
        collected = calls.call("wait4", -1, status, _WNOHANG, None)
        reads = [(output, calls.read(output.fd, _CHUNK_BYTES)) for output in self._outputs if output.fd >= 0]
        with self._port.lock:
            answer = self._port.exchange(calls, deadline_s + _ANSWER_GRACE_S)
            if new is not None:
                self._pid = answer[new]
                if self._pid < 0:
                    raise GuestError(f"The guest could not make a process: {os.strerror(-self._pid)}.")
                self._port.waited_for.add(self._pid)
            self._port.note_end(answer[collected], struct.unpack_from("<i", answer.note(status))[0])
        for output, slot in reads:
            output.take(answer[slot], answer.data(slot))
        if fed is not None:
            self._fed(answer[fed])
        return answer

    def _add_feeding(self, calls: CallList) -> Slot | None:
        """Add a write to the command's standard input, or its end of file when everything is written."""
        if self._stdin_fd < 0:
            return None
        if not self._stdin and self._more is not None:
            data = self._more()
            self._stdin = memoryview(data or b"")
            if data is None:
                self._more = None
        if not self._stdin and self._more is not None:
            return None
        if not self._stdin:
            calls.call("close", self._stdin_fd)
            self._opened = [fd for fd in self._opened if fd != self._stdin_fd]
            self._stdin_fd = -1
            return None
        chunk = bytes(self._stdin[:_CHUNK_BYTES])
        return calls.call("write", self._stdin_fd, chunk, len(chunk))

    def _fed(self, count: int) -> None:
        if count >= 0:
            self._stdin = self._stdin[count:]
        elif count != -errno.EAGAIN:
            self._stdin, self._more = self._stdin[:0], None  # it does not want the rest: EPIPE

    def _kill(self) -> None:
        """Kill the command's group and collect it, as far as the guest still answers."""
        if self._pid <= 0 or self._port.ended.pop(self._pid, None) is not None:
            return
        calls = CallList(self._machine)
        calls.call("kill", -self._pid, signal.SIGKILL)
        pollfd = calls.note(struct.pack("<ihh", self._pidfd, _POLLIN, 0))
        calls.call("ppoll", pollfd, 1, struct.pack("<qq", 1, 0), None, 8)
        calls.call("wait4", self._pid, None, _WNOHANG, None)
        with suppress(GuestError):
            self._port.exchange(calls, time.monotonic() + _KILL_GRACE_S)


def _shell_status(status: int) -> int:
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code

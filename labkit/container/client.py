"""The program's side of the launcher: start it on first use, send it one message a container.

One launcher serves one Python process. It is made when the first container is, and goes when the process goes (or
`shutdown` is called). After a fork of the program the child starts a launcher of its own.

Leaves out: sharing a launcher between processes.
See: `labkit.container.launcher` for the messages; unix(7).
"""

from __future__ import annotations

import atexit
import os
import pickle
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from labkit.container import runfolder
from labkit.container.messages import MESSAGE_BYTES
from labkit.container.spec import Spec
from labkit.errors import FeatureMissing, InvalidSpec, InvalidState, SetupError
from labkit.isolation.cgroups import default_parent
from labkit.linux.fds import Fd

__all__ = ["Answer", "LauncherClient", "launcher", "shutdown"]

_ANSWER_TIMEOUT_S = 15.0
_ANSWER_TIMEOUT = struct.pack("@ll", int(_ANSWER_TIMEOUT_S), 0)  # ABI: struct timeval, two longs
_ANSWER_BYTES = 4096
_BOOT = "import sys; sys.path.insert(0, sys.argv[1]); from labkit.container.resident import main; main(*sys.argv[2:])"


@dataclass(frozen=True, slots=True)
class Answer:
    """A child that runs: its pid as the host sees it, its pidfd, the master side of its terminal (-1: none), and notes."""

    pid: int
    pidfd: int
    tty_fd: int
    notes: tuple[str, ...] = ()


class LauncherClient:
    """A running launcher. Made by `launcher`; usable from several threads."""

    def __init__(self) -> None:
        self.name = f"labkit-{os.getpid()}-{os.urandom(3).hex()}"
        self.owner_pid = os.getpid()
        self._lock = threading.Lock()
        #: Whether the last container was born into a cgroup v2: then the next one will be, too, and cannot be cloned before.
        self._uses_cgroup2 = False
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2 * MESSAGE_BYTES)
        # By the kernel itself: `settimeout` would make Python ask poll(2) before each message.
        for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            ours.setsockopt(socket.SOL_SOCKET, option, _ANSWER_TIMEOUT)
        self._control = ours
        # The launcher listens to this and not to the socket. A message wakes its reader on the writer's own CPU, on the
        # assumption that the writer waits for the answer (wake_up_interruptible_sync_poll in net/core/sock.c); but here the
        # program makes a cgroup meanwhile, and the launcher has a clone to do.
        self._bell = Fd(os.eventfd(0, os.EFD_CLOEXEC))
        # The cgroups of this program have one parent; the launcher must know it to remove them when the program is killed.
        names = [runfolder.base_folder(), self.name, default_parent(self.name).name]
        with theirs, Fd(os.pidfd_open(os.getpid())) as own_pidfd:
            fds = [theirs.fileno(), own_pidfd.number, self._bell.number]
            self.process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _BOOT, str(Path(__file__).resolve().parents[2]), *map(str, fds), *names],
                pass_fds=fds, stdin=subprocess.DEVNULL, cwd="/",
                env={name: os.environ[name] for name in ("PATH", "LABKIT_CHILD") if name in os.environ},
            )  # fmt: skip
        try:
            greeting, _ = self._receive()
        except BaseException:
            ours.close()
            self._bell.close()
            self.process.wait(timeout=_ANSWER_TIMEOUT_S)
            raise
        self.folder = str(greeting["folder"])

    @property
    def alive(self) -> bool:
        """True while the launcher's process runs."""
        return self.process.poll() is None

    def prepare(self, name: str, spec: Spec) -> None:
        """Let the launcher begin with what needs only the spec; `spawn` for the same name follows. Returns at once."""
        with self._lock:
            self._prepare(name, spec)

    def _prepare(self, name: str, spec: Spec) -> None:
        # Without its name every container of a kind has the same spec, and the launcher knows it already.
        pickled = pickle.dumps(replace(spec, hostname=""))
        request = {"op": "prepare", "name": name, "spec": pickled, "hostname": spec.hostname}
        self._send(pickle.dumps(request | {"clone_now": not self._uses_cgroup2}), [])

    def forget(self, name: str) -> None:
        """Give up what was prepared: `spawn` will not follow."""
        with self._lock, suppress(InvalidState):
            self._send(pickle.dumps({"op": "forget", "name": name}), [])

    def _send(self, message: bytes, fds: Sequence[int]) -> None:
        if len(message) > MESSAGE_BYTES:
            raise InvalidSpec(
                f"The command and its environment take {len(message)} bytes; at most {MESSAGE_BYTES} fit: shorten them."
            )
        try:
            socket.send_fds(self._control, [message], list(fds))
            os.eventfd_write(self._bell.number, 1)
        except BrokenPipeError:
            raise InvalidState("The launcher has ended: run the cell again, and labkit starts a new one.") from None

    def spawn(
        self, request: dict[str, Any], fds: Sequence[int], *, between: Callable[[int, int], None] | None = None
    ) -> Answer:
        """Ask for a child; return once its program runs.

        ``between`` is called with its pid and a descriptor of its network namespace when its namespaces are there and it
        has not done anything yet: the moment to give it network interfaces.
        Raises: SetupError (or FeatureMissing, when a rule of the machine is known to be the cause) naming the step.
        """
        self._uses_cgroup2 = request["op"] == "spawn" and request["has_cgroup2"]
        sent = {key: value for key, value in request.items() if key != "spec" or request["op"] != "spawn"}
        message = pickle.dumps(sent if between is None else sent | {"hold": True})
        with self._lock:
            answer, received = self._ask(message, fds, between)
            if "again" in answer:
                # Another thread's container came in between, and the launcher has forgotten this one.
                self._prepare(request["name"], request["spec"])
                answer, received = self._ask(message, fds, between)
        tty_fd = received[1] if len(received) > 1 else -1
        return Answer(int(answer["pid"]), received[0], tty_fd, answer.get("notes", ()))

    def _ask(
        self, message: bytes, fds: Sequence[int], between: Callable[[int, int], None] | None
    ) -> tuple[dict[str, Any], list[int]]:
        self._send(message, fds)
        answer, received = self._receive()
        if between is None or "held" not in answer:
            return answer, received
        try:
            between(int(answer["held"]), received[0])
        except BaseException as error:
            self._send(pickle.dumps({"op": "stop", "message": str(error)}), [])
            with suppress(SetupError):
                self._receive()
            raise
        finally:
            os.close(received[0])
        self._send(pickle.dumps({"op": "go"}), [])
        return self._receive()

    def _receive(self) -> tuple[dict[str, Any], list[int]]:
        try:
            message, fds, _, _ = socket.recv_fds(self._control, _ANSWER_BYTES, 2, socket.MSG_CMSG_CLOEXEC)
        except ConnectionResetError:
            message, fds = b"", []  # it was killed with a request unread
        except BlockingIOError:
            raise InvalidState(
                f"The launcher did not answer within {_ANSWER_TIMEOUT_S:.0f} s: the machine is too busy, or the launcher stopped."
            ) from None
        if not message:
            raise InvalidState("The launcher ended without an answer; run the cell again, and labkit starts a new one.")
        answer = pickle.loads(message)
        if "refused" in answer:
            raise answer["refused"]
        if "error" in answer:
            raise _error_from(answer["error"])
        return answer, fds

    def close(self) -> None:
        """End the launcher and everything it started; safe to call twice."""
        if self.owner_pid == os.getpid() and self._control.fileno() >= 0:
            with suppress(BrokenPipeError):
                self._control.send(pickle.dumps({"op": "end"}))
                os.eventfd_write(self._bell.number, 1)
        self._control.close()
        self._bell.close()
        if self.owner_pid == os.getpid():
            self.process.wait(timeout=_ANSWER_TIMEOUT_S)


def _error_from(report: dict[str, Any]) -> SetupError | FeatureMissing:
    step, number, reason = report["step"], int(report["errno"]), report["message"]
    if step == "start the launcher":
        return FeatureMissing(
            f"labkit could not start its launcher: {reason}.",
            remedy="Run `labkit doctor`: it names the rule that refuses and what to do.",
        )
    return SetupError(f"labkit could not {step}: {reason}. Nothing is left of it.", step=step, errno=number)


_current: LauncherClient | None = None
_current_lock = threading.Lock()


def launcher() -> LauncherClient:
    """Return this process's launcher, starting it if there is none (or if it died, or belongs to the parent of a fork)."""
    global _current
    with _current_lock:
        if _current is None or _current.owner_pid != os.getpid() or not _current.alive:
            if _current is not None:
                atexit.unregister(_current.close)
                _current.close()
            _current = LauncherClient()
            atexit.register(_current.close)
        return _current


def shutdown() -> None:
    """End this process's launcher, with every container it started; the next container starts a new one."""
    global _current
    with _current_lock:
        if _current is not None:
            atexit.unregister(_current.close)
            _current.close()
        _current = None
    default_parent().close()

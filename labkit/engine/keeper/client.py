"""The engine's side of the keeper: start one, find the one that a killed engine left, ask it.

See: `labkit.engine.keeper.protocol`, `labkit.engine.keeper.main`.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labkit.engine.keeper import lock
from labkit.engine.keeper.protocol import connect, receive, send
from labkit.errors import InvalidState

if TYPE_CHECKING:
    from labkit.container.spec import Spec
    from labkit.engine.keeper.logfile import LogPlace
    from labkit.isolation.cgroups import Limits

__all__ = ["KeeperClient", "Started"]

log = logging.getLogger(__name__)

_BOOT = "import sys; sys.path.insert(0, sys.argv[1]); from labkit.engine.keeper.main import main; main(*sys.argv[2:])"
_READY_MS = 10_000
_LEAVE_S = 10.0
_AT_ONCE_S = 3.0
_LOOK_S = 0.02


@dataclass(frozen=True, slots=True)
class Started:
    """A program that runs: pid as the engine sees it, start, the folders of its cgroup by controller, notes."""

    pid: int
    started_ns: int
    folders: dict[str, str]
    notes: tuple[str, ...]


class KeeperClient:
    """The keeper of one state folder; usable from several threads."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self._ready_fd = -1
        self._lock = threading.Lock()

    def begin(self) -> None:
        """Start a keeper unless one answers, and do not wait for it: `ensure` does. Both may be called by several threads."""
        with self._lock:
            if self._ready_fd < 0 and not self._answers():
                self._start()

    def ensure(self) -> None:
        """Have a keeper that answers. Raises: InvalidState if it does not come up."""
        with self._lock:
            if self._ready_fd < 0 and not self._answers():
                self._start()
            if self._ready_fd >= 0:
                self._wait_until_ready()

    def _answers(self) -> bool:
        """Tell whether there is a keeper. To connect is not enough: one that is being killed still has its socket."""
        try:
            with connect(self._folder) as conn:
                send(conn, {"op": "list"})
                return "processes" in receive(conn)[0]
        except TimeoutError:
            raise  # busy is not dead, and to end it would end every container
        except OSError:
            return False

    def _start(self) -> None:
        """Start a keeper; one that lives and does not answer is either on its way (then it is used), or broken (then it ends)."""
        deadline_s = time.monotonic() + _LEAVE_S
        while not lock.wait_until_free(self._folder, 0.0) and time.monotonic() < deadline_s:
            if self._answers():
                return
            time.sleep(_LOOK_S)
        self._end_any(signal.SIGTERM)
        ready_r, ready_w = os.pipe()
        package_parent = str(Path(__file__).resolve().parents[3])
        command = [sys.executable, "-I", "-S", "-c", _BOOT, package_parent, self._folder, str(ready_w)]
        with open(f"{self._folder}/keeper.log", "ab") as errors:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=errors, stderr=errors, pass_fds=(ready_w,),
                start_new_session=True, cwd="/",
            )  # fmt: skip
        os.close(ready_w)
        self._ready_fd = ready_r

    def _wait_until_ready(self) -> None:
        ready_fd, self._ready_fd = self._ready_fd, -1
        try:
            poll = select.poll()
            poll.register(ready_fd, select.POLLIN)
            if not poll.poll(_READY_MS) or not os.read(ready_fd, 1):
                raise InvalidState(f"The keeper of containers did not start; {self._folder}/keeper.log may say why.")
        finally:
            os.close(ready_fd)

    @contextmanager
    def _asking(self, request: dict[str, Any], fds: Iterable[int] = ()) -> Iterator[socket.socket]:
        try:
            conn = connect(self._folder)
        except OSError:
            self.ensure()
            conn = connect(self._folder)
        with conn:
            send(conn, request, list(fds))
            yield conn

    def _ask(self, request: dict[str, Any], fds: Iterable[int] = ()) -> dict[str, Any]:
        with self._asking(request, fds) as conn:
            return _checked(receive(conn)[0])

    def start(
        self, key: str, spec: Spec, *, limits: Limits, log_place: LogPlace | None, open_stdin: bool, stdin_once: bool,
        exit_path: str, between: Callable[[int, int], None] | None = None,
    ) -> Started:  # fmt: skip
        """Start a container's program; ``between`` gives it a network (pid, network namespace) before it runs.

        Raises: SetupError naming the step that was refused, FeatureMissing, InvalidState.
        """
        request = {
            "op": "start", "id": key, "spec": spec, "limits": limits, "log": log_place, "open_stdin": open_stdin,
            "stdin_once": stdin_once, "terminal": spec.terminal, "exit_path": exit_path, "hold": between is not None,
        }  # fmt: skip
        with self._asking(request) as conn:
            answer, fds = receive(conn)
            if "held" in answer and between is not None:
                self._while_held(conn, answer["held"], fds, between)
                answer, _ = receive(conn)
            return _started(_checked(answer))

    def _while_held(
        self, conn: socket.socket, pid: int, fds: list[int], between: Callable[[int, int], None]
    ) -> None:  # fmt: skip
        try:
            between(pid, fds[0])
        except BaseException as error:
            send(conn, {"op": "stop", "message": str(error)})
            receive(conn)
            raise
        finally:
            os.close(fds[0])
        send(conn, {"op": "go"})

    def exec(self, key: str, container: str, spec: Spec, *, open_stdin: bool) -> Started:
        """Start a further program in a running container. Raises: InvalidState, SetupError."""
        request = {
            "op": "exec", "id": key, "container": container, "spec": spec, "log": None, "open_stdin": open_stdin,
            "stdin_once": True, "terminal": spec.terminal, "exit_path": "",
        }  # fmt: skip
        return _started(self._ask(request))

    def attach(
        self, key: str, *, streams: Iterable[int], stdin: bool, terminal: bool, running: bool = False
    ) -> socket.socket:
        """Return a socket on which the process's output comes, framed, and on which its input is taken.

        It may be asked for before the process is started, unless ``running``. Raises: InvalidState.
        """
        ours, theirs = socket.socketpair()
        request = {
            "op": "attach", "id": key, "streams": tuple(streams), "stdin": stdin, "terminal": terminal, "running": running,
        }  # fmt: skip
        try:
            with theirs:
                self._ask(request, [theirs.fileno()])
        except BaseException:
            ours.close()
            raise
        return ours

    def signal(self, key: str, number: int) -> None:
        """Send a signal to the process. Raises: InvalidState if it does not run."""
        self._ask({"op": "signal", "id": key, "number": number})

    def resize(self, key: str, rows: int, columns: int) -> None:
        """Give its terminal a size. Raises: InvalidState."""
        self._ask({"op": "resize", "id": key, "rows": rows, "columns": columns})

    def freeze(self, key: str, *, on: bool) -> None:
        """Stop every process of a container where it is, or let them go on."""
        self._ask({"op": "freeze", "id": key, "on": on})

    def set_limits(self, key: str, limits: Limits) -> None:
        """Change the limits of a running container. Raises: InvalidState, FeatureMissing."""
        self._ask({"op": "limits", "id": key, "limits": limits})

    def forget(self, key: str) -> None:
        """Let go of a process that has ended, or of clients that wait for one that will not start."""
        self._ask({"op": "forget", "id": key})

    def processes(self) -> dict[str, dict[str, Any]]:
        """Return every process that is kept: ``pid`` (0: ended), ``started_ns``, ``ended``, ``folders``."""
        return dict(self._ask({"op": "list"})["processes"])

    def watch(self, key: str) -> socket.socket:
        """Return a socket that becomes readable when the log has grown, and ends with the process."""
        conn = connect(self._folder)
        send(conn, {"op": "watch", "id": key})
        return conn

    def ends(self) -> Iterator[dict[str, Any]]:
        """Yield the end of each process as it happens, first a greeting; returns when the keeper goes away."""
        with connect(self._folder) as conn:
            conn.settimeout(None)
            send(conn, {"op": "subscribe"})
            while True:
                try:
                    message, _ = receive(conn)
                except OSError:
                    return
                if not message:
                    return
                yield message

    def leave(self) -> None:
        """End the keeper and every container that still runs; wait until it is gone."""
        with suppress(OSError), connect(self._folder) as conn:
            send(conn, {"op": "leave"})
            receive(conn)
        lock.wait_until_free(self._folder, _LEAVE_S)
        self._end_any(signal.SIGTERM)

    def _end_any(self, number: int) -> None:
        """End whichever keeper lives, with the signal first, then for sure. It may be the child of an engine that was killed."""
        with suppress(FileNotFoundError):
            lock.end_holder(self._folder, (number, signal.SIGKILL), _LEAVE_S)
        process, self._process = self._process, None
        if process is None:
            return
        # Somebody may have removed its lock with the whole folder: then only its parent finds it.
        for end in (None, process.terminate, process.kill):
            if end is not None:
                end()
            with suppress(subprocess.TimeoutExpired):
                process.wait(_AT_ONCE_S)
                return

    def release(self) -> None:
        """Wait for a keeper that goes by itself (it has nothing to keep); one that goes on stays."""
        if self._process is not None:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(0.0)


def _checked(answer: dict[str, Any]) -> dict[str, Any]:
    error = answer.get("error")
    if isinstance(error, Exception):
        raise error
    return answer


def _started(answer: dict[str, Any]) -> Started:
    if "pid" not in answer:
        raise InvalidState("The keeper went away while it started a program.")
    return Started(answer["pid"], answer["started_ns"], answer["folders"], tuple(answer["notes"]))

"""Execs: further programs in running containers. Each is made, started once, asked about, and forgotten after a while.

See: docker-exec(1); Docker Engine API, "Exec"; setns(2).
"""

from __future__ import annotations

import secrets
import signal
import socket
import threading
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from labkit.engine.keeper.client import KeeperClient
from labkit.engine.objects.events import Events
from labkit.engine.objects.launch import hostname_of, make_spec
from labkit.engine.objects.record import Container
from labkit.engine.objects.starting import docker_words
from labkit.engine.spec.fields import FLAG, TEXT, TEXTS, WORDS, checked
from labkit.engine.wire.errors import BadParameter, Conflict, NotFound
from labkit.errors import LabkitError, SetupError
from labkit.isolation.capabilities import names_of, parse_capabilities

__all__ = ["Exec", "Execs"]

_TABLE = {
    "User": TEXT, "Privileged": FLAG, "Tty": FLAG, "AttachStdin": FLAG, "AttachStdout": FLAG, "AttachStderr": FLAG,
    "Detach": FLAG, "DetachKeys": TEXT, "Env": TEXTS, "WorkingDir": TEXT, "Cmd": WORDS,
}  # fmt: skip
#: The exit status of an exec whose program could not be started, as Docker has it.
_NOT_STARTED = 126
_KEPT_S = 300.0
_STARTING_S = 10.0
_MOST_FOR_EACH = 500


@dataclass(slots=True)
class Exec:
    """One further program. ``exit_code`` is None until it has ended."""

    id: str
    container: Container
    request: dict[str, Any]
    pid: int = 0
    started: bool = False
    exit_code: int | None = None
    ended_s: float = 0.0
    changed: threading.Condition = field(default_factory=threading.Condition)

    @property
    def is_running(self) -> bool:
        """True from its start to its end."""
        return self.started and self.exit_code is None

    def wait(self, timeout_s: float) -> int | None:
        """Wait for the end; return the exit status, None if it still runs after ``timeout_s``."""
        with self.changed:
            self.changed.wait_for(lambda: self.exit_code is not None, timeout_s)
        return self.exit_code


class Execs:
    """Every exec that is remembered; safe to use from several threads."""

    def __init__(self, keeper: KeeperClient, events: Events) -> None:
        self._keeper, self._events = keeper, events
        self._lock = threading.Lock()
        self._by_id: dict[str, Exec] = {}

    def create(self, container: Container, body: Mapping[str, Any]) -> Exec:
        """Make an exec from a request. Raises: BadParameter, Conflict unless the container runs."""
        request = checked(body, _TABLE, "ExecConfig")
        if not request.get("Cmd"):
            raise BadParameter("No exec command specified")
        self._check_running(container)
        self._sweep(container)
        made = Exec(secrets.token_hex(32), container, request)
        with self._lock:
            self._by_id[made.id] = made
            container.exec_ids.append(made.id)
        text = " ".join(request["Cmd"])
        self._events.say("container", f"exec_create: {text}", container.id, {**container.attributes, "execID": made.id})
        return made

    def _check_running(self, container: Container) -> None:
        if container.state.status == "paused":
            raise Conflict(f"Container {container.name} is paused, unpause the container before exec")
        if container.state.status == "restarting":
            raise Conflict(f"Container {container.id} is restarting, wait until the container is running")
        if not container.state.is_running:
            raise Conflict(f"Container {container.id} is not running")

    def _sweep(self, container: Container) -> None:
        """Forget what ended long ago. Raises: Conflict for a flood of execs."""
        with self._lock:
            old = time.monotonic() - _KEPT_S
            gone = [key for key, one in self._by_id.items() if one.exit_code is not None and one.ended_s < old]
            for key in gone:
                self._by_id[key].container.exec_ids.remove(key)
                del self._by_id[key]
            if len(container.exec_ids) >= _MOST_FOR_EACH:
                raise Conflict(f"container {container.name} has {_MOST_FOR_EACH} execs already")

    def find(self, text: str) -> Exec:
        """Return an exec by its id. Raises: NotFound."""
        with self._lock:
            found = [
                one for key, one in self._by_id.items() if key == text or (len(text) >= 12 and key.startswith(text))
            ]
        if len(found) != 1:
            raise NotFound(f"No such exec instance: {text}")
        return found[0]

    def start(self, one: Exec, *, size: tuple[int, int] | None = None) -> None:
        """Start it. Raises: Conflict if it was started before, ApiError in Docker's words."""
        container, request = one.container, one.request
        with one.changed:
            if one.started:
                raise Conflict(f"exec {one.id} has already been started")
            self._check_running(container)
            one.started = True
        spec = make_spec(container, lowers=(), sources={p.target: "/" for p in container.mounts}, files={})
        extra = dict(entry.partition("=")[::2] for entry in request.get("Env") or () if "=" in entry)
        spec = replace(
            spec, command=tuple(request["Cmd"]), user=request.get("User") or spec.user, cwd=request.get("WorkingDir") or spec.cwd,
            terminal=bool(request.get("Tty")), terminal_size=size or (24, 80), hostname=hostname_of(container),
            env=tuple((dict(spec.env) | extra).items()), mounts=(), time_limit_s=None,
            capabilities=names_of(parse_capabilities(("ALL",))) if request.get("Privileged") else spec.capabilities,
        )  # fmt: skip
        try:
            started = self._keeper.exec(one.id, container.id, spec, open_stdin=bool(request.get("AttachStdin")))
        except LabkitError as error:
            said = docker_words(error, request["Cmd"][0]) if isinstance(error, SetupError) else error
            with suppress(LabkitError, OSError):
                self._keeper.forget(one.id)
            self.ended(one.id, _NOT_STARTED)
            raise said from error
        with one.changed:
            one.pid = started.pid
            one.changed.notify_all()
        text = " ".join(request["Cmd"])
        self._events.say("container", f"exec_start: {text}", container.id, {**container.attributes, "execID": one.id})

    def attach(self, one: Exec, *, streams: Iterable[int], stdin: bool) -> socket.socket:
        """Return a socket with the program's output and input; to be asked for before the start. Raises: InvalidState."""
        return self._keeper.attach(one.id, streams=streams, stdin=stdin, terminal=bool(one.request.get("Tty")))

    def resize(self, one: Exec, rows: int, columns: int) -> None:
        """Give its terminal a size; one that is just starting is waited for. Raises: InvalidState."""
        with one.changed:
            one.changed.wait_for(lambda: one.pid != 0 or one.exit_code is not None, _STARTING_S)
        self._keeper.resize(one.id, rows, columns)

    def kill(self, one: Exec) -> None:
        """End it at once; nothing happens if it has ended."""
        with suppress(LabkitError):
            self._keeper.signal(one.id, signal.SIGKILL)

    def ended(self, key: str, code: int) -> bool:
        """Note an end; return False if there is no such exec."""
        with self._lock:
            one = self._by_id.get(key)
        if one is None:
            return False
        with one.changed:
            one.exit_code, one.pid, one.ended_s = code, 0, time.monotonic()
            one.changed.notify_all()
        with suppress(LabkitError, OSError):
            self._keeper.forget(key)
        attributes = {**one.container.attributes, "execID": key, "exitCode": str(code)}
        self._events.say("container", "exec_die", one.container.id, attributes)
        return True

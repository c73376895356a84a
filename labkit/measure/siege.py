"""One level of defence under attack: a container with the attack server in it, and the talk with it.

The server is started when the first attack needs it, and again when it was killed. For each attack the host puts the target up,
sends the request, hears the answer, looks, and only then lets the attacker go.

See: `labkit.measure.ladder`, `labkit.measure.targets`, `labkit.measure.attacker`.
"""

from __future__ import annotations

import json
import select
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from labkit.container.container import Container, Namespaced
from labkit.errors import DeadlineExceeded, FeatureMissing, LabkitError
from labkit.linux.proc import read_status
from labkit.measure.inner_python import answer_of, inner_command
from labkit.measure.ladder import LADDER, PACKAGE_INSIDE, WRITABLE_INSIDE, Rung
from labkit.measure.outcomes import Outcome
from labkit.measure.targets import TARGETS, Attempt, Stage, Target, children_of

__all__ = ["Level"]

_ANSWER_S = 10.0
_KILLED = (False, "", "it was killed")


class Level:
    """One level of defence with an attack server in it (``rung``: one that is not on the ladder); a context manager."""

    def __init__(self, defence: str, folder: Path, package: Path, *, rung: Rung | None = None) -> None:
        self.defence = defence
        self._rung = rung or LADDER[defence]
        writable = folder / f"writable-{defence}"  # each level its own: what one leaves there would bar the next
        self._stage = Stage(folder, str(writable) if self._rung.jailed else WRITABLE_INSIDE)
        self._stage.jail.mkdir(exist_ok=True)
        writable.mkdir(exist_ok=True)
        writable.chmod(0o777)  # the attacker is another user
        self._writable, self._package = writable, package
        self._server: Container | Namespaced | None = None

    def attempt(self, attack: str) -> Outcome:
        """Try one attack; what this machine does not have is an outcome, too."""
        try:
            with TARGETS[attack](self._stage) as target:
                succeeded, errno_name, evidence = self._attack({"attack": attack, **target.request}, target)
        except LabkitError as error:
            self.close()  # whatever state it was in, the next attack gets a new server
            return Outcome(attack, self.defence, None, "", str(error))
        return Outcome(attack, self.defence, succeeded, errno_name, evidence)

    def _attack(self, request: dict[str, Any], target: Target) -> tuple[bool, str, str]:
        server = self._running_server()
        _say(server, json.dumps(request).encode())
        answer = _hear(server)
        if answer is None or "ended" in answer:
            return _KILLED
        alive = [pid for pid in children_of(server.pid) if read_status(pid).state != "Z"]
        try:
            succeeded, evidence = target.judge(Attempt(answer, alive[0]))
        except (FileNotFoundError, ProcessLookupError, IndexError):
            return _KILLED  # between its answer and our look
        finally:
            _say(server, b"")
            _hear(server)
        return succeeded, answer["errno"], evidence

    def _running_server(self) -> Container | Namespaced:
        if self._server is not None and self._server.status == "running":
            return self._server
        self.close()
        try:
            self._server = self._start()
        except FeatureMissing:
            if self.defence == "limits":
                raise
            # What this level adds can still be shown; against bombs and hogs there is then no defence.
            self._rung = self._rung.without_limits()
            self._server = self._start()
        return self._server

    def _start(self) -> Container | Namespaced:
        parent = self._package if self._rung.jailed else PACKAGE_INSIDE
        setup = {"jail": str(self._stage.jail) if self._rung.jailed else ""}
        command = inner_command("attacker", setup, package_parent=parent)
        server = self._rung.make(command, package=self._package, writable=self._writable)
        try:
            server.start()
            if _hear(server) is None:
                said = server.stderr.read().decode(errors="replace").strip() if server.stderr else ""
                raise LabkitError(
                    f"The attackers did not start: {said.splitlines()[-1] if said else server.wait().reason}."
                )
        except BaseException:
            server.close()
            raise
        return server

    def close(self) -> None:
        """End the server and everything in it; safe to call twice."""
        if self._server is not None:
            self._server.close()
        self._server = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _say(server: Container | Namespaced, line: bytes) -> None:
    if server.stdin is not None:
        with suppress(BrokenPipeError):  # it is dead, as the answer will show
            server.stdin.write(line + b"\n")


def _hear(server: Container | Namespaced) -> dict[str, Any] | None:
    """Return the next answer; None if the server has ended. Raises: DeadlineExceeded."""
    if server.stdout is None:
        return None
    poll = select.poll()
    poll.register(server.stdout, select.POLLIN)
    if not poll.poll(_ANSWER_S * 1000):
        raise DeadlineExceeded(f"The attacker gave no answer within {_ANSWER_S:.0f} s.")
    return answer_of(server.stdout.readline())

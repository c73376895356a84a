"""The life of containers over the wire: start, stop, restart, kill, pause, unpause, wait.

See: Docker Engine API, "Containers".
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from labkit.engine.engine import Engine
from labkit.engine.objects.record import Container
from labkit.engine.spec.config import parse_signal
from labkit.engine.wire.errors import BadParameter
from labkit.engine.wire.reply import Empty, Reply, Stream
from labkit.engine.wire.request import Request
from labkit.engine.wire.routes import Routes

__all__ = ["routes"]

routes = Routes()

_LOOK_S = 2.0


def _timeout(request: Request) -> int | None:
    return request.query.number("t", 0) if request.query.text("t") else None


@routes.post("/containers/{id}/start")
def start(engine: Engine, request: Request) -> Reply:
    """Start a container."""
    engine.lives.start(engine.containers.find(request.names["id"]))
    return Empty()


@routes.post("/containers/{id}/stop")
def stop(engine: Engine, request: Request) -> Reply:
    """Ask a container to end, and kill it if it does not."""
    container = engine.containers.find(request.names["id"])
    engine.lives.stop(container, _timeout(request), signal_name=request.query.text("signal"))
    return Empty()


@routes.post("/containers/{id}/restart")
def restart(engine: Engine, request: Request) -> Reply:
    """Stop and start a container."""
    container = engine.containers.find(request.names["id"])
    engine.lives.restart(container, _timeout(request), signal_name=request.query.text("signal"))
    return Empty()


@routes.post("/containers/{id}/kill")
def kill(engine: Engine, request: Request) -> Reply:
    """Send a signal to a container's program."""
    container = engine.containers.find(request.names["id"])
    engine.lives.kill(container, parse_signal(request.query.text("signal") or "KILL"))
    return Empty()


@routes.post("/containers/{id}/pause")
def pause(engine: Engine, request: Request) -> Reply:
    """Freeze a container."""
    engine.lives.pause(engine.containers.find(request.names["id"]))
    return Empty()


@routes.post("/containers/{id}/unpause")
def unpause(engine: Engine, request: Request) -> Reply:
    """Let a frozen container go on."""
    engine.lives.unpause(engine.containers.find(request.names["id"]))
    return Empty()


@routes.post("/containers/{id}/wait")
def wait(engine: Engine, request: Request) -> Reply:
    """Say how a container ended, once it has. The headers go at once: ``docker run`` waits for them before it starts it."""
    container = engine.containers.find(request.names["id"])
    condition = request.query.text("condition") or "not-running"
    if condition not in ("not-running", "next-exit", "removed"):
        raise BadParameter(f'invalid condition: "{condition}"')
    return Stream(_wait(container, condition, container.ends))


def _wait(container: Container, condition: str, ends_before: int) -> Iterator[bytes]:
    def is_met() -> bool:
        if container.is_removed:
            return True
        if condition == "removed":
            return False
        if container.ends > ends_before:
            return True  # also of one that its policy starts again
        if condition == "next-exit":
            return False
        return not container.state.is_running and container.state.status != "restarting"

    while True:
        with container.changed:
            if container.changed.wait_for(is_met, _LOOK_S):
                break
        yield b""  # a moment to see whether the client is still there
    answer = {"StatusCode": container.state.exit_code}
    yield json.dumps(answer).encode() + b"\n"

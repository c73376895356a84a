"""Exec over the wire: create, start (hijacked or detached), resize, inspect.

See: Docker Engine API, "Exec".
"""

from __future__ import annotations

from labkit.engine.api.relay import detach_sequence, relay
from labkit.engine.api.streams import content_type_of
from labkit.engine.engine import Engine
from labkit.engine.wire.errors import BadParameter, Conflict
from labkit.engine.wire.frames import STDOUT, frame
from labkit.engine.wire.reply import Empty, Hijack, Json, Peer, Reply
from labkit.engine.wire.request import Request
from labkit.engine.wire.routes import Routes
from labkit.errors import LabkitError

__all__ = ["routes"]

routes = Routes()

#: How long the end of an exec may come after that of its streams.
_CODE_S = 3.0


@routes.post("/containers/{id}/exec")
def create(engine: Engine, request: Request) -> Reply:
    """Make an exec in a running container."""
    container = engine.containers.find(request.names["id"])
    return Json({"Id": engine.execs.create(container, request.json()).id}, 201)


@routes.post("/exec/{id}/start")
def start(engine: Engine, request: Request) -> Reply:
    """Start an exec, and connect the client with it unless it is detached."""
    one = engine.execs.find(request.names["id"])
    body = request.json()
    size = body.get("ConsoleSize")
    rows_columns = (int(size[0]), int(size[1])) if isinstance(size, list) and len(size) == 2 else None
    if one.started:
        raise Conflict(f"exec {one.id} has already been started")
    if body.get("Detach"):
        engine.execs.start(one, size=rows_columns)
        return Empty(200)
    terminal = bool(one.request.get("Tty"))
    with_input = bool(one.request.get("AttachStdin"))
    streams = [n for n, name in ((1, "AttachStdout"), (2, "AttachStderr")) if one.request.get(name)]
    # How the bytes come is what the start asks for, also when it contradicts the exec (the SDK does that).
    framed = not body.get("Tty")
    keys = detach_sequence(one.request.get("DetachKeys") or "") if terminal and with_input else b""
    session = engine.execs.attach(one, streams=streams, stdin=with_input)

    def serve(peer: Peer) -> None:
        try:
            engine.execs.start(one, size=rows_columns)
        except LabkitError as error:
            # The headers have gone out: the client is told on the stream, as Docker does it.
            reason = str(error).partition("unable to start container process: ")[2] or str(error)
            text = f"OCI runtime exec failed: exec failed: unable to start container process: {reason}\r\n".encode()
            peer.send(frame(STDOUT, text) if framed else text)
            session.close()
            peer.finish()
            return
        # A client asks for the exit status as soon as the stream has ended: it must be there by then.
        relay(
            peer, session, keys=keys, with_input=with_input, before_end=lambda: one.wait(_CODE_S),
            put=(lambda data: frame(STDOUT, data)) if terminal and framed else bytes,
        )  # fmt: skip

    return Hijack(serve, content_type_of(request, terminal=terminal and not framed))


@routes.post("/exec/{id}/resize")
def resize(engine: Engine, request: Request) -> Reply:
    """Give an exec's terminal a size."""
    one = engine.execs.find(request.names["id"])
    rows, columns = request.query.number("h", 0), request.query.number("w", 0)
    if not 0 <= rows < 1 << 16 or not 0 <= columns < 1 << 16:
        raise BadParameter("invalid size of a terminal")
    if not one.is_running:
        raise Conflict(f"exec {one.id} is not running")
    engine.execs.resize(one, rows, columns)
    return Empty(200)


@routes.get("/exec/{id}/json")
def inspect(engine: Engine, request: Request) -> Reply:
    """Return what is known of an exec, its exit status above all."""
    one = engine.execs.find(request.names["id"])
    words, asked = one.request["Cmd"], one.request
    return Json(
        {
            "ID": one.id, "Running": one.is_running, "ExitCode": one.exit_code,
            "ProcessConfig": {
                "tty": bool(asked.get("Tty")), "entrypoint": words[0], "arguments": words[1:], "privileged": False,
                "user": asked.get("User", ""),
            },
            "OpenStdin": bool(asked.get("AttachStdin")), "OpenStderr": bool(asked.get("AttachStderr")),
            "OpenStdout": bool(asked.get("AttachStdout")), "CanRemove": False, "ContainerID": one.container.id,
            "DetachKeys": "", "Pid": one.pid,
        }
    )  # fmt: skip

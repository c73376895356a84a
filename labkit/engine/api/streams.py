"""Logs, attach and resize: a container's output and input over the wire.

See: Docker Engine API, "Attach to a container", "Get container logs"; docker-attach(1) (detach keys).
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from itertools import chain

from labkit.engine.api.relay import detach_sequence, relay
from labkit.engine.engine import Engine
from labkit.engine.keeper.logfile import timestamp
from labkit.engine.objects.logs import Entry, follow, read
from labkit.engine.objects.record import Container
from labkit.engine.wire.errors import ApiError, BadParameter, Conflict
from labkit.engine.wire.frames import MULTIPLEXED, RAW, frame
from labkit.engine.wire.reply import Empty, Hijack, Peer, Reply, Stream
from labkit.engine.wire.request import Request
from labkit.engine.wire.routes import Routes
from labkit.errors import LabkitError

__all__ = ["content_type_of", "parse_time", "routes", "streams_of"]

routes = Routes()


def content_type_of(request: Request, *, terminal: bool) -> str:
    """Return what a stream is called: clients before 1.42 know one word only."""
    return MULTIPLEXED if not terminal and request.version >= (1, 42) else RAW


def streams_of(request: Request) -> frozenset[int]:
    """Return which of the two output streams the client asks for."""
    return frozenset(n for n, name in ((1, "stdout"), (2, "stderr")) if request.query.flag(name))


_UNIX_TIME = re.compile(r"(\d{1,12})(?:\.(\d{1,9}))?\Z")


def parse_time(text: str) -> int | None:
    """Return a time (seconds since 1970 with a fraction, or RFC 3339) in nanoseconds; None for none. Raises: BadParameter."""
    if not text or text == "0":
        return None
    match = _UNIX_TIME.match(text)
    if match is not None:
        return int(match.group(1)) * 1_000_000_000 + int((match.group(2) or "0").ljust(9, "0"))
    try:
        return int(datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp() * 1e9)
    except (ValueError, OverflowError):
        raise BadParameter(f'invalid value for "since" or "until": {text[:60]!r} is no time') from None


@routes.get("/containers/{id}/logs")
def logs(engine: Engine, request: Request) -> Reply:
    """Return a container's output, past and, with ``follow``, to come."""
    container = engine.containers.find(request.names["id"])
    query, streams = request.query, streams_of(request)
    if not streams:
        raise BadParameter("Bad parameters: you must choose at least one stream")
    if container.host["LogConfig"]["Type"] == "none":
        raise ApiError("configured logging driver does not support reading", status=501)
    tail_text = query.text("tail") or "all"
    tail = int(tail_text) if tail_text.isdigit() and len(tail_text) < 10 else None
    since, until = parse_time(query.text("since")), parse_time(query.text("until"))
    entries = _entries(
        engine, container, streams=streams, tail=tail, since=timestamp(since) if since else "", until=timestamp(until) if until else "",
        on=query.flag("follow"),
    )  # fmt: skip
    terminal = container.config["Tty"]
    pieces = _written(entries, with_times=query.flag("timestamps"), terminal=terminal)
    return Stream(pieces, content_type_of(request, terminal=terminal))


def _entries(
    engine: Engine, container: Container, *, streams: frozenset[int], tail: int | None, since: str, until: str, on: bool
) -> Iterator[Entry | None]:  # fmt: skip
    path = container.log_path
    if not on or not container.state.is_running:
        return read(path, tail=tail, streams=streams, since=since, until=until)
    watch = engine.keeper.watch(container.id)
    try:
        status = os.stat(path)
        size, inode = status.st_size, status.st_ino
    except FileNotFoundError:
        size = inode = 0
    # What is in the file up to here comes from `read`, what is written from here on from `follow`: no line twice, and none lost.
    past = list(read(path, tail=tail, streams=streams, since=since, until=until, end=(size, inode)))
    return chain(past, _until(_closing(watch, follow(path, watch, streams=streams, after=size, inode=inode)), until))


def _closing(watch: object, entries: Iterator[Entry | None]) -> Iterator[Entry | None]:
    try:
        yield from entries
    finally:
        watch.close()  # type: ignore[attr-defined]


def _until(entries: Iterator[Entry | None], until: str) -> Iterator[Entry | None]:
    for entry in entries:
        if until and (entry.time if entry else timestamp(time.time_ns())) > until:
            return
        yield entry


def _written(entries: Iterator[Entry | None], *, with_times: bool, terminal: bool) -> Iterator[bytes]:
    for entry in entries:
        if entry is None:
            yield b""
            continue
        data = f"{entry.time} ".encode() + entry.data if with_times else entry.data
        yield data if terminal else frame(entry.stream, data)


@routes.post("/containers/{id}/attach")
def attach(engine: Engine, request: Request) -> Reply:
    """Connect the client with a container's output and input, from now on or, with ``logs``, from the beginning."""
    container = engine.containers.find(request.names["id"])
    if container.state.status == "paused":
        raise Conflict(f"Container {container.id} is paused, unpause the container before attach")
    query, terminal, streams = request.query, container.config["Tty"], streams_of(request)
    keys = detach_sequence(query.text("detachKeys"))
    with_input = query.flag("stdin") and container.config["OpenStdin"]
    wants_past, wants_future = query.flag("logs"), query.flag("stream")
    session = None
    if wants_future and (container.state.is_running or container.state.status in ("created", "exited", "restarting")):
        session = engine.keeper.attach(container.id, streams=streams, stdin=with_input, terminal=terminal)
    engine.events.say("container", "attach", container.id, container.attributes)

    def serve(peer: Peer) -> None:
        if wants_past:
            for piece in _written(
                read(container.log_path, tail=None, streams=streams), with_times=False, terminal=terminal
            ):
                peer.send(piece)
        if session is None:
            peer.finish()
            return
        was_detached = relay(peer, session, keys=keys if terminal and with_input else b"", with_input=with_input)
        if was_detached:
            engine.events.say("container", "detach", container.id, container.attributes)

    return Hijack(serve, content_type_of(request, terminal=terminal))


@routes.post("/containers/{id}/resize")
def resize(engine: Engine, request: Request) -> Reply:
    """Give a container's terminal a size."""
    container = engine.containers.find(request.names["id"])
    rows, columns = request.query.number("h", 0), request.query.number("w", 0)
    if not container.state.is_running:
        raise Conflict(f"Container {container.id} is not running")
    if not 0 <= rows < 1 << 16 or not 0 <= columns < 1 << 16:
        raise BadParameter("invalid size of a terminal")
    with suppress(LabkitError):
        engine.keeper.resize(container.id, rows, columns)
    return Empty(200)

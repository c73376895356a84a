"""``/events``: what happens, as a stream of JSON objects.

See: docker-events(1).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence

from labkit.engine.api.streams import parse_time
from labkit.engine.engine import Engine
from labkit.engine.objects.events import matches
from labkit.engine.wire.reply import Reply, Stream
from labkit.engine.wire.request import Request
from labkit.engine.wire.routes import Routes

__all__ = ["routes"]

routes = Routes()


@routes.get("/events")
def events(engine: Engine, request: Request) -> Reply:
    """Return what happened since a time, and on until another, or for ever."""
    query = request.query
    since_ns, until_ns = parse_time(query.text("since")), parse_time(query.text("until"))
    return Stream(_lines(engine, since_ns, until_ns, query.filters()))


def _lines(
    engine: Engine, since_ns: int | None, until_ns: int | None, filters: Mapping[str, Sequence[str]]
) -> Iterator[bytes]:  # fmt: skip
    for event in engine.events.follow(since_ns=since_ns, until_ns=until_ns):
        if event is None:
            yield b""
        elif matches(event, filters):
            yield json.dumps(event, separators=(",", ":")).encode() + b"\n"

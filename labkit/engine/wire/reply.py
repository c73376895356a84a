"""What a handler answers with: a value, nothing, a stream, or the connection itself.

* `Json`, `Empty`: done at once.
* `Stream`: chunks that are sent as they are made (logs, events, progress, tars). The headers go first, so a client that waits for them
  (``wait`` before ``start``) goes on.
* `Hijack`: 101 UPGRADED, and from there raw bytes in both directions (attach, exec).

See: RFC 9110 section 15.2.2 (101); Docker Engine API, "Attach to a container" (hijacking).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from labkit.engine.wire.frames import RAW

__all__ = ["Empty", "Hijack", "Json", "Peer", "Reply", "Stream", "json_lines"]


class Peer(Protocol):
    """The client's connection once it is hijacked."""

    def receive(self) -> bytes:
        """Return the next bytes that the client sent; empty at its half-close or end."""

    def send(self, data: bytes) -> None:
        """Send all of ``data``; waits for a slow client, but not for ever. Raises: OSError."""

    def finish(self) -> None:
        """Say that nothing more will come."""


@dataclass(frozen=True, slots=True)
class Json:
    """A JSON value."""

    value: Any
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Empty:
    """No body."""

    status: int = 204
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Stream:
    """Pieces of a body, each sent as a chunk as soon as it is there. The iterable is closed if the client goes away.

    ``watch``: notice a client that has gone even while there is nothing to send.
    """

    pieces: Iterable[bytes]
    content_type: str = "application/json"
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Hijack:
    """The connection is handed to ``serve``, which returns when both sides have said what they had to say."""

    serve: Callable[[Peer], None]
    content_type: str = RAW


Reply = Json | Empty | Stream | Hijack


def json_lines(values: Iterable[Any]) -> Iterable[bytes]:
    """Yield each value as a line of JSON that ends with CR and LF, as Docker's progress streams do."""
    for value in values:
        yield json.dumps(value, separators=(",", ":")).encode() + b"\r\n"

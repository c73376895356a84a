"""One request: method, path, query, headers, and a body that is read while it comes.

A body comes with a length or in chunks (``docker build``, ``cp``, ``load`` send what they make on the fly). Both are one `Body` here,
which is read like a file and is never held in memory as a whole. JSON bodies are small and have a limit.

Queries come from three kinds of clients: the `docker` program writes ``1`` and ``true``, the Python SDK ``True`` and ``False``; filters are
JSON, as ``{"name": {"web": true}}`` or, from older clients, ``{"name": ["web"]}``.

See: RFC 9112 section 7.1 (chunked); Docker Engine API, "Filters".
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import parse_qs

from labkit.engine.wire.errors import BadParameter

__all__ = ["Body", "Query", "Request"]

_MOST_JSON_BYTES = 8 << 20
_MOST_CHUNK_LINE = 4096
_TRUE = ("1", "true", "t", "yes")


class _Reader(Protocol):
    def read1(self, size: int, /) -> bytes: ...

    def readline(self, size: int, /) -> bytes: ...


class Body(io.RawIOBase):
    """The body of a request, decoded, as a file that can be read once."""

    def __init__(self, source: _Reader, *, length: int | None, chunked: bool) -> None:
        self._source = source
        self._chunked = chunked
        self._left = 0 if chunked else (length or 0)
        self.is_finished = not chunked and self._left == 0

    def readable(self) -> bool:
        """Say that it can be read."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill ``buffer`` with what has come; 0 at the end. Raises: BadParameter for a body cut short."""
        if self._chunked and self._left == 0 and not self.is_finished:
            self._next_chunk()
        if self.is_finished:
            return 0
        view = memoryview(buffer)
        data = self._source.read1(min(len(view), self._left))
        if not data:
            raise BadParameter("the body of the request ended before its announced length")
        view[: len(data)] = data
        self._left -= len(data)
        if self._left == 0 and self._chunked:
            self._source.readline(_MOST_CHUNK_LINE)  # the line end after a chunk
        elif self._left == 0:
            self.is_finished = True
        return len(data)

    def _next_chunk(self) -> None:
        line = self._source.readline(_MOST_CHUNK_LINE)
        try:
            self._left = int(line.split(b";")[0].strip(), 16)
        except ValueError:
            raise BadParameter(f"the body is not properly chunked: {line[:20]!r} is no length") from None
        if self._left < 0:
            raise BadParameter("the body is not properly chunked: a length is negative")
        if self._left == 0:
            while self._source.readline(_MOST_CHUNK_LINE).strip():
                pass  # trailers say nothing here
            self.is_finished = True

    def drain(self, most_bytes: int) -> bool:
        """Read and forget the rest, so that the connection can be used again; False if there is more than that."""
        while not self.is_finished and most_bytes > 0:
            most_bytes -= len(self.read(1 << 16) or b"")
        return self.is_finished


@dataclass(frozen=True, slots=True)
class Query:
    """The part after ``?``, with its values turned into what the handler wants."""

    values: Mapping[str, list[str]]

    @classmethod
    def parse(cls, text: str) -> Query:
        """Return the query in ``text``, as it stands after ``?``."""
        return cls(parse_qs(text, keep_blank_values=True, max_num_fields=200))

    def text(self, name: str, default: str = "") -> str:
        """Return the value of ``name``; of several the first, as Docker's daemon does."""
        return self.values.get(name, [default])[0]

    def texts(self, name: str) -> list[str]:
        """Return every value of ``name``, which may be given several times."""
        return self.values.get(name, [])

    def flag(self, name: str, *, default: bool = False) -> bool:
        """Return whether ``name`` is set to something true."""
        value = self.text(name).strip().lower()
        return default if not value else value in _TRUE

    def number(self, name: str, default: int) -> int:
        """Return ``name`` as a whole number. Raises: BadParameter."""
        value = self.text(name).strip()
        if not value:
            return default
        try:
            number = int(value)
        except ValueError:
            raise BadParameter(f'invalid value for {name}: "{value}" is not a number') from None
        if not -(2**63) <= number < 2**63:
            raise BadParameter(f'invalid value for {name}: "{value}" is out of range')
        return number

    def filters(self) -> dict[str, list[str]]:
        """Return the filters, each with its wanted values. Raises: BadParameter."""
        text = self.text("filters")
        if not text:
            return {}
        try:
            found = json.loads(text)
        except ValueError:
            raise BadParameter(f"invalid filter: {text[:80]!r} is not JSON") from None
        if not isinstance(found, dict):
            raise BadParameter("invalid filter: not a JSON object")
        return {str(name): _wanted(name, values) for name, values in found.items()}


def _wanted(name: str, values: object) -> list[str]:
    if isinstance(values, dict):
        return [str(value) for value, on in values.items() if on]
    if isinstance(values, list):
        return [str(value) for value in values]
    if isinstance(values, str):
        return [values]
    raise BadParameter(f"invalid filter '{name}': its values are no list")


@dataclass(slots=True)
class Request:
    """What a client asks. ``path`` is without the version; ``names`` holds what the route's pattern found in it."""

    method: str
    path: str
    version: tuple[int, int]
    query: Query
    headers: Mapping[str, str]
    body: Body
    names: dict[str, str] = field(default_factory=dict)

    def json(self) -> dict[str, Any]:
        """Return the body as a JSON object; empty for an empty body. Raises: BadParameter."""
        data = b""
        while piece := self.body.read(1 << 16):
            data += piece
            if len(data) > _MOST_JSON_BYTES:
                raise BadParameter(f"the request body is larger than {_MOST_JSON_BYTES} bytes", status=413)
        if not data.strip():
            return {}
        try:
            found = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise BadParameter(f"invalid JSON: {error}") from None
        if found is None:
            return {}
        if not isinstance(found, dict):
            raise BadParameter("invalid JSON: the body must be an object")
        return found

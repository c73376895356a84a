"""The body of a request: announced with its length, or sent in chunks of which each says how long it is.

What is left of a body when the answer goes out must be read away, or the next request on the connection would begin in the middle of
it; if much is left the connection is closed instead.

Leaves out: content codings (``Content-Encoding``), trailers (read and dropped).
See: RFC 9112 sections 6 and 7.
"""

from __future__ import annotations

import io
import re
from email.message import Message
from http import HTTPStatus

from labkit.image.registry.server.answers import Refusal

__all__ = ["Body"]

_LONGEST_LINE = 1024
_MOST_TRAILERS = 16
_LENGTH = re.compile(r"[0-9]{1,18}")
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,15})(?:[ \t]*;[^\r\n]*)?\r?\n")


class Body:
    """A request's body as a stream. ``length`` is None for one in chunks; ``announced`` is False where there is none at all.

    Raises, when made: Refusal for headers that contradict each other (a proxy might read them the other way).
    """

    def __init__(self, stream: io.BufferedIOBase, headers: Message) -> None:
        lengths, codings = headers.get_all("Content-Length", []), headers.get_all("Transfer-Encoding", [])
        self._stream = stream
        self._chunked = bool(codings)
        self.announced = bool(lengths or codings)
        self.length: int | None = 0
        if codings:
            if lengths or [coding.strip().lower() for coding in codings] != ["chunked"]:
                raise _bad("Transfer-Encoding must be chunked and stand alone")
            self.length = None
        elif lengths:
            if len(set(lengths)) > 1 or not _LENGTH.fullmatch(lengths[0].strip()):
                raise _bad("Content-Length is no number")
            self.length = int(lengths[0])
        self._left = self.length or 0
        self.finished = not self._chunked and self._left == 0

    def read(self, most: int) -> bytes:
        """Return the next bytes, at most ``most``; none at the end. Raises: ConnectionError if the body is cut off."""
        if self._chunked and self._left == 0 and not self.finished:
            self._begin_chunk()
        if self.finished:
            return b""
        data = self._stream.read1(min(most, self._left))
        if not data:
            raise ConnectionError("the request was cut off in the middle of its body")
        self._left -= len(data)
        if self._left == 0 and self._chunked:
            self._line()  # the line end after a chunk's bytes
        elif self._left == 0:
            self.finished = True
        return data

    def read_all(self, most: int) -> bytes:
        """Return the whole body. Raises: Refusal with 413 if it has more than ``most`` bytes."""
        too_large = Refusal(
            "SIZE_INVALID", f"the body is larger than {most} bytes", status=HTTPStatus.REQUEST_ENTITY_TOO_LARGE
        )
        if (self.length or 0) > most:
            raise too_large
        parts, size = [], 0
        while data := self.read(65536):
            parts.append(data)
            size += len(data)
            if size > most:
                raise too_large
        return b"".join(parts)

    def skip(self, most: int) -> bool:
        """Read away what is left if that is no more than ``most`` bytes; tell whether the end was reached."""
        try:
            while most > 0 and not self.finished:
                most -= len(self.read(min(most, 65536)))
        except (Refusal, OSError):
            return False  # what comes next on this connection cannot be told from the rest of this
        return self.finished

    def _begin_chunk(self) -> None:
        match = _CHUNK.fullmatch(self._line())
        if match is None:
            raise _bad("a chunk does not say how long it is")
        self._left = int(match.group(1), 16)
        if self._left == 0:
            for _ in range(_MOST_TRAILERS):
                if self._line() in (b"\r\n", b"\n", b""):
                    break
            self.finished = True

    def _line(self) -> bytes:
        line = self._stream.readline(_LONGEST_LINE)
        if not line.endswith(b"\n") and line:
            raise _bad("a line in the body is too long")
        return line


def _bad(message: str) -> Refusal:
    return Refusal("UNSUPPORTED", f"{message}.", status=HTTPStatus.BAD_REQUEST)

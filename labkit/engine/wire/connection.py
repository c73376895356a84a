"""One connection: requests in, answers out, until either side has enough.

Each connection has a thread (`labkit.engine.wire.server`). Nobody may hold one for ever: the head of a request must be there
within `HEAD_S` from its first byte, a body must not trickle, an answer must be taken. Only a stream that has nothing to say (events,
``wait``, logs of a quiet program) may last; for these a watcher notices when the client has gone.

The standard library's `http.server` parses the head. What it leaves to us: chunked bodies, chunked answers, hijacked connections whose
client has closed only its own direction.

See: RFC 9112; shutdown(2) (half-close).
"""

from __future__ import annotations

import array
import fcntl
import http.server
import io
import json
import logging
import socket
import ssl
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import closing, nullcontext, suppress
from typing import Any

from labkit.engine.wire.errors import ApiError, BadParameter, as_api_error
from labkit.engine.wire.reply import Empty, Hijack, Json, Reply, Stream
from labkit.engine.wire.request import Body, Query, Request
from labkit.engine.wire.routes import MAX_VERSION, Router, split_version, version_text
from labkit.errors import LabkitError

__all__ = ["HEAD_S", "Connection"]

log = logging.getLogger(__name__)

#: Time limits: for the head of a request, between two requests, for one piece of an answer to be taken.
HEAD_S, IDLE_S, SEND_S = 10.0, 120.0, 30.0
#: How long the head of a hijacked connection may lie unread before the stream follows all the same.
HEAD_TAKEN_S = 0.5
#: A body must bring so many bytes within so long, or the client is dropped.
SLOW_BYTES, SLOW_S = 2048, 30.0
_MOST_DRAINED = 1 << 20


class _TimedReader(io.RawIOBase):
    """A socket as a file whose reads obey a deadline that is set from outside."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self.deadline_s: float | None = None
        self.slow_since_s = 0.0
        self.slow_bytes = 0
        self.is_body = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        limit_s = None if self.deadline_s is None else max(0.001, self.deadline_s - time.monotonic())
        self._sock.settimeout(min(limit_s, SLOW_S) if self.is_body and limit_s else SLOW_S if self.is_body else limit_s)
        count = self._sock.recv_into(buffer)
        if self.is_body:
            self._check_speed(count)
        return count

    def _check_speed(self, count: int) -> None:
        now_s = time.monotonic()
        self.slow_bytes += count
        if self.slow_bytes >= SLOW_BYTES:
            self.slow_since_s, self.slow_bytes = now_s, 0
        elif count and now_s - self.slow_since_s > SLOW_S:
            raise TimeoutError("the client sends its body too slowly")


class Connection(http.server.BaseHTTPRequestHandler):
    """Serves one client over one socket."""

    protocol_version = "HTTP/1.1"
    server_version = "Docker/labkit"
    sys_version = f"(linux; python {sys.version_info.major}.{sys.version_info.minor})"

    def __init__(self, sock: socket.socket, router: Router, engine: object) -> None:
        self.sock, self.router, self.engine = sock, router, engine
        self._timed = _TimedReader(sock)
        self.rfile: Any = io.BufferedReader(self._timed, 1 << 16)
        self.client_address = ("local", 0)
        self.is_answered = False
        self.requestline, self.close_connection = "", True

    def serve(self) -> None:
        """Answer requests until the connection is to be closed."""
        try:
            self.close_connection = False
            while not self.close_connection:
                self.close_connection = True
                self.handle_one_request()
        except (OSError, ssl.SSLError, ValueError) as error:
            log.debug("connection ended: %s", error)

    def handle_one_request(self) -> None:
        """Read one head, find the handler, send its answer."""
        self._timed.is_body, self._timed.deadline_s = False, time.monotonic() + IDLE_S
        if not self.rfile.peek(1):
            return
        self._timed.deadline_s = time.monotonic() + HEAD_S
        self.raw_requestline = self.rfile.readline(65537)
        self.is_answered = False
        if len(self.raw_requestline) > 65536:
            self.requestline, self.request_version, self.command = "", "", ""
            self.send_error(414)
            return
        if not self.parse_request():
            return
        self._timed.deadline_s, self._timed.slow_since_s = None, time.monotonic()
        self._timed.slow_bytes, self._timed.is_body = 0, True
        self._answer()

    def _answer(self) -> None:
        body = None
        try:
            body = self._body()
            reply = self._call(body)
        except LabkitError as error:
            reply = self._error(error)
        except TimeoutError as error:
            self.close_connection = True
            reply = self._error(ApiError(str(error), status=408))
        self._send(reply)
        if body is None or not body.drain(_MOST_DRAINED):
            self.close_connection = True

    def _call(self, body: Body) -> Reply:
        path, _, query = self.path.partition("?")
        try:
            version, path = split_version(path)
            if not path.startswith("/"):
                raise BadParameter(f"the path {path[:80]!r} does not begin with a slash")
            headers = {name.title(): value for name, value in self.headers.items()}
            handler, names = self.router.find(self.command, path)
            asked = Request(self.command, path, version, Query.parse(query), headers, body, names)
            return handler(self.engine, asked)
        except LabkitError:
            raise
        except TimeoutError:
            raise
        except OSError as error:
            log.warning("%s %s: %s", self.command, self.path, error)
            raise ApiError(f"{error.strerror or error}" + (f": {error.filename}" if error.filename else "")) from error
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            # Input of a shape that no check foresaw. The details are for the engine's log.
            log.exception("%s %s", self.command, self.path)
            raise BadParameter(f"the request could not be understood: {error}") from error

    def _error(self, error: LabkitError) -> Reply:
        answer = as_api_error(error)
        if answer.status in (204, 304):
            return Empty(answer.status)
        return Json({"message": str(answer)}, answer.status)

    def _body(self) -> Body:
        if "chunked" in self.headers.get("Transfer-Encoding", "").lower():
            return Body(self.rfile, length=None, chunked=True)
        text = self.headers.get("Content-Length", "0").strip()
        if not text.isdigit():
            self.close_connection = True
            raise BadParameter(f"Content-Length {text[:40]!r} is no length")
        if self.headers.get("Expect", "").lower() == "100-continue" and self.request_version >= "HTTP/1.1":
            self._send_bytes(b"HTTP/1.1 100 Continue\r\n\r\n")
        return Body(self.rfile, length=int(text), chunked=False)

    def handle_expect_100(self) -> bool:
        """Leave ``100 Continue`` to `_body`, which knows whether the body is wanted."""
        return True

    # -- answers ------------------------------------------------------------------------------------------------------

    def _head(self, status: int, headers: dict[str, str]) -> bytes:
        phrase = self.responses.get(status, ("",))[0]
        lines = [f"HTTP/1.1 {status} {phrase}"]
        fixed = {
            "Api-Version": version_text(MAX_VERSION),
            "Docker-Experimental": "false",
            "Ostype": "linux",
            "Server": f"{self.server_version} {self.sys_version}",
            "Date": self.date_time_string(),
        }
        lines += [f"{name}: {value}" for name, value in (fixed | headers).items()]
        if self.close_connection:
            lines.append("Connection: close")
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", errors="replace")

    def _send(self, reply: Reply) -> None:
        if isinstance(reply, Json):
            data = b"" if reply.status == 204 else json.dumps(reply.value, separators=(",", ":")).encode() + b"\n"
            headers = {"Content-Type": "application/json", "Content-Length": str(len(data)), **reply.headers}
            self._send_bytes(self._head(reply.status, headers) + (b"" if self.command == "HEAD" else data))
        elif isinstance(reply, Empty):
            length = {} if reply.status in (204, 304) else {"Content-Length": "0"}
            self._send_bytes(self._head(reply.status, {**length, **reply.headers}))
        elif isinstance(reply, Stream):
            self._send_stream(reply)
        else:
            self._hijack(reply)

    def _send_bytes(self, data: bytes) -> None:
        self.sock.settimeout(SEND_S)
        self.sock.sendall(data)

    def _send_stream(self, reply: Stream) -> None:
        chunked = self.request_version >= "HTTP/1.1"
        self.close_connection = self.close_connection or not chunked
        headers = {"Content-Type": reply.content_type, **reply.headers}
        if chunked:
            headers["Transfer-Encoding"] = "chunked"
        self._send_bytes(self._head(reply.status, headers))
        pieces = reply.pieces
        with closing(pieces) if isinstance(pieces, Generator) else nullcontext():
            if self.command != "HEAD":
                for piece in self._until_gone(pieces):
                    self._send_bytes(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
        if chunked:
            self._send_bytes(b"0\r\n\r\n")

    def _until_gone(self, pieces: Any) -> Iterator[bytes]:
        """Yield the pieces that hold something; an empty one is a chance to see whether the client is still there."""
        for piece in pieces:
            if piece:
                yield piece
            elif self._is_gone():
                raise ConnectionResetError("the client has gone")

    def _is_gone(self) -> bool:
        self.sock.settimeout(0)
        try:
            return not isinstance(self.sock, ssl.SSLSocket) and not self.sock.recv(1, socket.MSG_PEEK)
        except (BlockingIOError, ssl.SSLWantReadError):
            return False

    def _hijack(self, reply: Hijack) -> None:
        wants_upgrade = "upgrade" in self.headers.get("Connection", "").lower()
        headers = {"Content-Type": reply.content_type}
        self.close_connection = not wants_upgrade
        if wants_upgrade:
            headers |= {"Connection": "Upgrade", "Upgrade": "tcp"}
        self._send_bytes(
            self._head(101 if wants_upgrade else 200, headers).replace(b"Switching Protocols", b"UPGRADED")
        )
        self.close_connection = True
        self._timed.is_body, self._timed.deadline_s = False, None
        _wait_until_taken(self.sock)
        reply.serve(_HijackedPeer(self))

    def log_message(self, format: str, *args: Any) -> None:
        """Log a line of `http.server`'s own."""
        log.debug(format, *args)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answer what could not even be parsed, as JSON and without the page that `http.server` would send."""
        self.close_connection = True
        self.command = getattr(self, "command", "") or "GET"
        self.request_version = getattr(self, "request_version", "HTTP/1.1")
        with suppress(OSError):
            self._send(Json({"message": message or self.responses.get(code, ("error",))[0]}, code))
        del explain


def _wait_until_taken(sock: socket.socket) -> None:
    """Wait, for `HEAD_TAKEN_S` at most, until the client of a unix socket has read all that was sent to it.

    A client that reads the head through a buffer and then goes on with the bare socket (the Python SDK does) loses what came
    together with the head: the first words of a short program. The kernel tells only when it is asked (SIOCOUTQ).
    """
    deadline_s = time.monotonic() + HEAD_TAKEN_S
    while sock.family == socket.AF_UNIX and time.monotonic() < deadline_s:
        waiting = array.array("i", [0])
        fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, waiting)  # SIOCOUTQ, linux/sockios.h, is the same number
        if not waiting[0]:
            return
        time.sleep(0.0002)


Generator = type(_ for _ in ())


class _HijackedPeer:
    """The client of a hijacked connection. Reads come from one thread, writes from another."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        # A second socket object has a timeout of its own: waiting for input must not limit, nor be limited by, output.
        sock = connection.sock
        self._writer = sock if isinstance(sock, ssl.SSLSocket) else sock.dup()
        self._writer.settimeout(SEND_S)

    def receive(self) -> bytes:
        """Return the next bytes, first those that came right behind the request."""
        try:
            return bytes(self._connection.rfile.read1(1 << 16))
        except (OSError, ValueError):
            return b""

    def send(self, data: bytes) -> None:
        """Send all of ``data`` within the time limit."""
        self._writer.sendall(data)

    def finish(self) -> None:
        """End our direction; the client may go on sending into the void. Wakes up a thread that still reads."""
        with suppress(OSError):
            self._connection.sock.shutdown(socket.SHUT_RDWR)
        if self._writer is not self._connection.sock:
            self._writer.close()

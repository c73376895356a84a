"""HTTP on a socket: threads that read requests, hand them on, and send what comes back; bounded in every direction.

One thread serves one connection, over Python's own ``http.server``. What a slow or hostile client can hold is bounded: the number of
connections, the time for a request's head, the pace of its body, the time in which it must take each part of an answer, the sizes of
lines and headers (``http.client``'s limits). Who goes past a limit loses the connection, nothing else.

A body that lies in a file is sent with sendfile(2): its bytes go from the page cache to the socket and never into this process.

Leaves out: HTTP/2, pipelining of requests (they are served one after another), compression of answers.
See: RFC 9110, RFC 9112; sendfile(2).
"""

from __future__ import annotations

import io
import logging
import re
import socket
import socketserver
import ssl
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from email.message import Message
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, BinaryIO

from labkit.image.registry.patience import Pace, PatientReader
from labkit.image.registry.server.answers import Answer, FilePart, Refusal
from labkit.image.registry.server.bodies import Body

__all__ = ["Bounds", "Listener", "Request"]

log = logging.getLogger(__name__)

_PART_BYTES = 1 << 20
_HOST = re.compile(r"[A-Za-z0-9.:\[\]_-]{1,255}")
#: What is read away of a refused request's body, so that the connection can be kept.
_MOST_SKIPPED = 1 << 20
_PAUSE_S = 0.05
_MOST_LINGERED = 64 << 20
_LINGER = Pace(silence_s=1.0, grace_s=3.0)

_BODY_PACE = Pace(silence_s=30.0, grace_s=30.0, least_bytes_per_s=1024)


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a client may take: connections at once, seconds for the head, the pace of a body, seconds for each part sent to it."""

    connections: int = 128
    idle_s: float = 60.0
    head_s: float = 20.0
    body: Pace = _BODY_PACE
    send_s: float = 30.0


@dataclass(frozen=True, slots=True)
class Request:
    """One request; ``base`` is the address under which the client reached us, for links in the answer."""

    method: str
    target: str
    headers: Message
    body: Body
    base: str


class Listener(ThreadingHTTPServer):
    """Listens on ``address`` and gives each request to ``respond``, in a thread a connection. Close it with ``server_close``."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(
        self,
        address: tuple[str, int],
        respond: Callable[[Request], Answer],
        *,
        bounds: Bounds | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        self.respond, self.bounds, self.tls = respond, bounds or Bounds(), tls
        self._places = threading.BoundedSemaphore(self.bounds.connections)
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._stopping = False
        super().__init__(address, _Connection)

    def server_bind(self) -> None:
        """Bind without asking the name service who we are, as `http.server` would."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def get_request(self) -> tuple[socket.socket, Any]:
        """Accept a connection; with TLS, its thread does the handshake, which may take a slow client long."""
        connection, address = super().get_request()
        if self.tls is not None:
            connection = self.tls.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        return connection, address

    def serve(self) -> None:
        """Accept connections until `stop` is called. It waits in accept(2) and looks up for nothing else."""
        while True:
            try:
                connection, address = self.get_request()
            except OSError as error:
                if self._stopping:
                    return
                log.warning("no connection can be accepted: %s", error)
                time.sleep(_PAUSE_S)  # out of descriptors: some connection has to end first
                continue
            try:
                self.process_request(connection, address)
            except RuntimeError:  # no further thread can be started
                self.shutdown_request(connection)

    def stop(self) -> None:
        """Let `serve` return: a listening socket that is shut down wakes who waits in accept(2)."""
        self._stopping = True
        self.socket.shutdown(socket.SHUT_RDWR)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve the connection in a thread, or drop it when there are too many."""
        if not self._places.acquire(blocking=False):
            log.debug("%s dropped: %d connections are open", client_address, self.bounds.connections)
            self.shutdown_request(request)
            return
        with self._lock:
            self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Close the connection and give its place free."""
        with self._lock:
            counted = request in self._open
            self._open.discard(request)
        super().shutdown_request(request)
        if counted:
            self._places.release()

    def server_close(self) -> None:
        """Stop listening and cut every connection; their threads end."""
        super().server_close()
        with self._lock:
            for connection in self._open:
                try:
                    connection.shutdown(socket.SHUT_RDWR)
                except OSError:
                    continue  # the client was faster

    def wait_for_connections(self, *, timeout_s: float = 5.0) -> bool:
        """Wait until every connection's thread has ended its work; False if one has not in time."""
        deadline_s = time.monotonic() + timeout_s
        for _ in range(self.bounds.connections):
            if not self._places.acquire(timeout=max(0.0, deadline_s - time.monotonic())):
                return False
        return True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Note what ended a connection; a client that goes away is no news."""
        log.debug("the connection of %s ended with an error", client_address, exc_info=True)


class _Connection(BaseHTTPRequestHandler):
    """One connection: requests one after another until it is closed."""

    protocol_version = "HTTP/1.1"
    server_version, sys_version = "labkit", ""
    server: Listener

    def setup(self) -> None:
        bounds = self.server.bounds
        self.request.settimeout(bounds.head_s)
        if isinstance(self.request, ssl.SSLSocket):
            self.request.do_handshake()
        super().setup()
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.rfile.close()
        self._reader = PatientReader(self.connection, Pace(bounds.idle_s, bounds.idle_s))
        self.rfile = self._buffered = io.BufferedReader(self._reader, 1 << 16)

    def handle_one_request(self) -> None:
        """Read one request and answer it. An idle connection may wait longer than a head, once begun, may take."""
        bounds = self.server.bounds
        try:
            self._reader.keep(Pace(bounds.idle_s, bounds.idle_s))
            if not self._buffered.peek(1):
                self.close_connection = True
                return
            self._reader.keep(Pace(bounds.head_s, bounds.head_s))
            super().handle_one_request()
        except (TimeoutError, ConnectionError, ssl.SSLError) as error:
            log.debug("%s: %s", self.client_address, error)
            self.close_connection = True

    def _serve(self) -> None:
        self._reader.keep(self.server.bounds.body)
        try:
            body = Body(self._buffered, self.headers)
        except Refusal as refusal:
            self.close_connection = True
            self._send(refusal.answer())
            return
        scheme = "http" if self.server.tls is None else "https"
        host = self.headers.get("Host", "")
        if not _HOST.fullmatch(host):
            host = "{}:{}".format(*self.server.server_address[:2])
        answer = self.server.respond(Request(self.command, self.path, self.headers, body, f"{scheme}://{host}"))
        if not body.finished and not body.skip(_MOST_SKIPPED):
            self.close_connection = True
        try:
            self._send(answer)
        except FileNotFoundError:
            self._send(Refusal("BLOB_UNKNOWN", "it was deleted a moment ago").answer())
        if not body.finished:
            # A close with bytes unread is a reset, which may reach the client before the answer does; so read on for a moment.
            self.connection.shutdown(socket.SHUT_WR)
            self._reader.keep(_LINGER)
            body.skip(_MOST_LINGERED)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = _serve

    def _send(self, answer: Answer) -> None:
        with ExitStack() as stack:
            file = None
            if isinstance(answer.body, FilePart) and self.command != "HEAD":
                # Opened before the status goes out: a blob that is deleted now can still be refused, or sent whole.
                file = stack.enter_context(open(answer.body.path, "rb"))
            self.connection.settimeout(self.server.bounds.send_s)
            self._send_head(answer)
            if file is not None and isinstance(answer.body, FilePart):
                self._send_file(file, answer.body)
            elif isinstance(answer.body, bytes) and self.command != "HEAD":
                self.wfile.write(answer.body)

    def _send_head(self, answer: Answer) -> None:
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        if "Content-Length" not in answer.headers and answer.status != HTTPStatus.NO_CONTENT:
            self.send_header("Content-Length", str(answer.length))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()

    def _send_file(self, file: BinaryIO, part: FilePart) -> None:
        offset, end = part.offset, part.offset + part.length
        while offset < end:
            # In parts: each has the whole time limit, so a large blob may take long and a client that takes nothing may not.
            sent = self.connection.sendfile(file, offset, min(_PART_BYTES, end - offset))
            if sent == 0:
                raise ConnectionError(f"{part.path} became shorter while it was sent")
            offset += sent

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Note a request as a web server's log does."""
        status = int(code) if isinstance(code, int) else code
        log.info('%s "%s" %s', self.client_address[0], self.requestline.translate(_SAFE), status)

    def log_message(self, format: str, *args: Any) -> None:
        """Note what `http.server` has to say."""
        log.debug(format, *args)


#: What a client sends may reach a terminal through the log: control characters become question marks.
_SAFE = dict.fromkeys((*range(32), *range(127, 256)), "?")

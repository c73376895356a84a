"""HTTP requests to one host after another, with limits on how long anything may take; connections are kept and used again.

A peer that says nothing, sends a byte now and then, or never ends its headers is given up (`labkit.image.registry.patience`). What is sent
from a file goes by sendfile(2) where there is no TLS. Every byte that really travels is counted.

Plain HTTP is spoken with this machine only, unless the caller asks for it: who sits on the way could read passwords and change
images.

Leaves out: proxies (``http_proxy``), HTTP/2, compressed answers (none is asked for).
See: RFC 9112; `http.client`; ssl(3); sendfile(2).
"""

from __future__ import annotations

import http.client
import io
import ipaddress
import re
import socket
import ssl
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from urllib.parse import SplitResult, urlsplit

from labkit.errors import DeadlineExceeded
from labkit.image.registry.failures import Interrupted, RegistryError, Unreachable
from labkit.image.registry.patience import Pace, PatientReader

__all__ = ["Exchanged", "FileSlice", "Patience", "Response", "Transport", "is_loopback", "origin_of"]

_PART_BYTES = 1 << 20
_MOST_IDLE = 8
_HOST = re.compile(r"[0-9a-z.:%_-]{1,253}")


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a registry may take: to connect, for an answer's head, for its body, and to take each part that is sent to it."""

    connect_s: float = 10.0
    head: Pace = field(default_factory=lambda: Pace(silence_s=30.0, grace_s=60.0))
    body: Pace = field(default_factory=lambda: Pace(silence_s=30.0, grace_s=60.0, least_bytes_per_s=1024))
    send_s: float = 60.0


@dataclass(frozen=True, slots=True)
class FileSlice:
    """A request's body: ``length`` bytes from ``offset`` of a file; ``sent`` is told of each part that went out."""

    path: Path
    offset: int
    length: int
    sent: Callable[[int], object] = lambda _: None


@dataclass(slots=True)
class Exchanged:
    """How many bytes travelled, heads of messages included."""

    received: int = 0
    sent: int = 0
    requests: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def copy(self) -> Exchanged:
        """Return the counts of this moment."""
        return Exchanged(self.received, self.sent, self.requests)

    def add(self, *, received: int = 0, sent: int = 0, requests: int = 0) -> None:
        """Count; threads may do so at once."""
        with self._lock:
            self.received += received
            self.sent += sent
            self.requests += requests


def is_loopback(host: str) -> bool:
    """Tell whether ``host`` (a name or an address, without a port) is this machine."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def origin_of(url: str) -> tuple[str, str, int]:
    """Return scheme, host and port of ``url``: what must be equal for credentials to go along. Raises: RegistryError."""
    try:
        parts = urlsplit(url)
        port = parts.port or {"http": 80, "https": 443}[parts.scheme]
    except (ValueError, KeyError):
        raise RegistryError(f"The registry points to {url[:200]!r}, which is no address of the web.") from None
    if not parts.hostname or not _HOST.fullmatch(parts.hostname):
        raise RegistryError(f"The registry points to {url[:200]!r}, which names no host.")
    return parts.scheme, parts.hostname, port


class Response:
    """An answer: status and headers are there, the body waits to be read. A context manager; close gives the connection back."""

    def __init__(self, transport: Transport, connection: _Connection, raw: http.client.HTTPResponse, url: str) -> None:
        self.status, self.headers, self.url = raw.status, raw.headers, url
        self._transport, self._connection, self._raw = transport, connection, raw

    @property
    def length(self) -> int | None:
        """How many bytes are left to come, as the head announced; None if it did not."""
        return self._raw.length

    def readinto(self, buffer: bytearray | memoryview) -> int:
        """Fill ``buffer`` with what has come; 0 at the end. Raises: DeadlineExceeded, Interrupted when it is cut off."""
        try:
            got = self._raw.readinto(buffer)
        except TimeoutError as error:
            raise _too_slow(self.url, error) from error
        except (http.client.HTTPException, ConnectionError, ssl.SSLError) as error:
            raise Interrupted(f"The answer of {self.url} was cut off.") from error
        if got == 0 and self._raw.length:
            raise Interrupted(f"The answer of {self.url} ended {self._raw.length} bytes too early.")
        return got

    def read_all(self, most: int) -> bytes:
        """Return the whole body. Raises: RegistryError if it has more than ``most`` bytes; see `readinto`."""
        found, buffer = io.BytesIO(), memoryview(bytearray(1 << 16))
        while got := self.readinto(buffer):
            found.write(buffer[:got])
            if found.tell() > most:
                raise RegistryError(f"{self.url} answered with more than {most} bytes, where a small document was due.")
        return found.getvalue()

    def close(self) -> None:
        """Give the connection back if the answer was read to its end, else cut it."""
        finished = self._raw.isclosed()
        self._raw.close()
        self._transport.put_back(self._connection, keep=finished and not self._raw.will_close)

    def __enter__(self) -> Response:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@dataclass(slots=True, eq=False)
class _Connection:
    """A connection, and the reader of the answer that comes through it."""

    origin: tuple[str, str, int]
    http: http.client.HTTPConnection
    socket: socket.socket | None = None
    reader: PatientReader | None = None
    used: bool = False


class Transport:
    """Sends requests. Threads may use it at once; close it to cut the connections that are kept."""

    def __init__(self, *, patience: Patience | None = None, tls: ssl.SSLContext | None = None) -> None:
        self.patience, self.exchanged = patience or Patience(), Exchanged()
        self._tls = tls
        self._idle: list[_Connection] = []
        self._busy: set[_Connection] = set()
        self._cuts = 0
        self._lock = threading.Lock()

    def send(
        self, method: str, url: str, *, headers: Mapping[str, str] | None = None, body: bytes | FileSlice = b""
    ) -> Response:
        """Send one request and return the answer's beginning; redirections are the caller's.

        Raises: DeadlineExceeded, RegistryError when nobody answers; Interrupted if the connection breaks.
        """
        cuts_before = self._cuts
        while True:
            connection = self._take(origin_of(url))
            was_used, connection.used = connection.used, True
            try:
                return self._exchange(connection, method, url, headers or {}, body)
            except (ConnectionError, http.client.HTTPException, ssl.SSLError) as error:
                self.put_back(connection, keep=False)
                # A kept connection may have been closed meanwhile by the other side; a new one has no such excuse. Part of a
                # blob may have arrived, and would be there twice if it were sent again.
                if not was_used or isinstance(body, FileSlice) or self._cuts != cuts_before:
                    raise _broken(url, error) from error
            except TimeoutError as error:
                self.put_back(connection, keep=False)
                if isinstance(error, DeadlineExceeded):
                    raise
                raise _too_slow(url, error) from error
            except BaseException:
                self.put_back(connection, keep=False)
                raise

    def _exchange(
        self, connection: _Connection, method: str, url: str, headers: Mapping[str, str], body: bytes | FileSlice
    ) -> Response:
        parts = urlsplit(url)
        length = body.length if isinstance(body, FileSlice) else len(body)
        known = {"User-Agent": "labkit", "Accept-Encoding": "identity"} | dict(headers)
        if length or method in ("POST", "PUT", "PATCH"):
            known["Content-Length"] = str(length)
        if connection.http.sock is None:
            self._connect(connection)
        connection.http.sock.settimeout(self.patience.send_s)
        sent = b""
        try:
            connection.http.request(method, _target(parts), body if isinstance(body, bytes) else None, known)
            sent = (
                method.encode() + _target(parts).encode() + b"".join(f"{k}: {v}\r\n".encode() for k, v in known.items())
            )
            if isinstance(body, FileSlice):
                self._send_file(connection.http.sock, body)
        except (BrokenPipeError, ConnectionResetError):
            # It may have answered before it had heard us out: a refusal, which is better than "broken pipe".
            if not isinstance(body, FileSlice):
                raise
        self.exchanged.add(sent=len(sent) + 15 + (0 if isinstance(body, FileSlice) else length), requests=1)
        raw = connection.http.getresponse()
        if connection.reader is not None:
            connection.reader.keep(self.patience.body)
        if raw.length is None and not raw.chunked and "Content-Length" in raw.headers:
            raise http.client.HTTPException("a length that is none")
        return Response(self, connection, raw, url)

    def _send_file(self, sock: socket.socket, body: FileSlice) -> None:
        with open(body.path, "rb") as file:
            offset, end = body.offset, body.offset + body.length
            while offset < end:
                # In parts: each has the whole time limit, so a large blob may take long and a peer that takes nothing may not.
                got = sock.sendfile(file, offset, min(_PART_BYTES, end - offset))
                if got == 0:
                    raise RegistryError(f"{body.path} is shorter than it was: the store is damaged.")
                offset += got
                self.exchanged.add(sent=got)
                body.sent(got)

    def _take(self, origin: tuple[str, str, int]) -> _Connection:
        with self._lock:
            for connection in self._idle:
                if connection.origin == origin:
                    self._idle.remove(connection)
                    self._busy.add(connection)
                    return connection
        scheme, host, port = origin
        if scheme == "https":
            context = self._tls or ssl.create_default_context()
            made: http.client.HTTPConnection = http.client.HTTPSConnection(
                host, port, timeout=self.patience.connect_s, context=context
            )
        else:
            made = http.client.HTTPConnection(host, port, timeout=self.patience.connect_s)
        connection = _Connection(origin, made)
        with self._lock:
            self._busy.add(connection)
        return connection

    def _connect(self, connection: _Connection) -> None:
        _, host, port = connection.origin
        try:
            connection.http.connect()
        except TimeoutError as error:
            raise DeadlineExceeded(
                f"{host}:{port} could not be reached in {self.patience.connect_s:g} seconds: is it up, and is the address right?"
            ) from error
        except ssl.SSLCertVerificationError as error:
            raise Unreachable(
                f"{host}:{port} has a certificate that is not trusted here: {error.verify_message}."
            ) from error
        except ssl.SSLError as error:
            raise Unreachable(
                f"{host}:{port} does not speak TLS as it should ({error.reason}): if it is to be plain HTTP, allow that (--insecure)."
            ) from error
        except OSError as error:
            why = error.strerror or str(error)
            raise Unreachable(f"{host}:{port} could not be reached ({why}): is a registry running there?") from error
        connection.socket = connection.http.sock
        connection.http.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

        def make(sock: socket.socket, method: str | None = None, **_: object) -> http.client.HTTPResponse:
            reader = connection.reader = PatientReader(
                sock, self.patience.head, count=lambda got: self.exchanged.add(received=got)
            )
            return http.client.HTTPResponse(_Half(io.BufferedReader(reader, 1 << 16)), method=method)  # type: ignore[arg-type]

        connection.http.response_class = make  # type: ignore[assignment]

    def put_back(self, connection: _Connection, *, keep: bool) -> None:
        """Keep a connection for the next request, or close it."""
        with self._lock:
            self._busy.discard(connection)
            if keep and connection.http.sock is not None and len(self._idle) < _MOST_IDLE:
                self._idle.append(connection)
                return
        connection.http.close()

    def cut(self) -> None:
        """Cut every connection that is in use: threads that wait for an answer get `Interrupted` at once."""
        with self._lock:
            self._cuts += 1
            for connection in self._busy:
                if connection.socket is not None:
                    with suppress(OSError):
                        connection.socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the connections that are kept; safe to call twice."""
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            self.put_back(connection, keep=False)


class _Half:
    """What `http.client` takes for a socket to read from."""

    def __init__(self, stream: io.BufferedReader) -> None:
        self._stream = stream

    def makefile(self, *_: object) -> io.BufferedReader:
        """Return the stream."""
        return self._stream


def _target(parts: SplitResult) -> str:
    return (parts.path or "/") + (f"?{parts.query}" if parts.query else "")


def _too_slow(url: str, error: TimeoutError) -> DeadlineExceeded:
    return DeadlineExceeded(
        f"{url} took too long ({error}): the registry is stuck, or the network is; try again later."
    )


def _broken(url: str, error: Exception) -> Interrupted:
    if isinstance(error, http.client.HTTPException) and not isinstance(error, ConnectionError):
        return Interrupted(
            f"{url} did not answer as HTTP has it ({type(error).__name__}): is a registry running there?"
        )
    return Interrupted(f"The connection to {url} broke ({error}).")

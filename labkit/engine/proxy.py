"""Somebody who sits between client and daemon, passes every byte on, and writes down who said what.

It listens at a socket of its own; clients that use that one instead of the engine's are overheard. Both directions are passed on as
they come, half-closes included. What passes is also shown to an HTTP parser, so that requests and answers are known as such, until
the two change to a raw stream (101 UPGRADED): then there are only bytes to count.

Leaves out: changing anything; TCP and TLS.
See: RFC 9112 (HTTP/1.1); Docker Engine API 1.44, ContainerAttach ("Hijacking").
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import h11

__all__ = ["Exchange", "TracingProxy"]

_CHUNK_BYTES = 1 << 16
_MOST_EXCHANGES = 1000


@dataclass(slots=True)
class Exchange:
    """One request with its answer; times in seconds since the proxy began. ``status`` 0: there is no answer yet."""

    method: str
    path: str
    asked_s: float
    status: int = 0
    answered_s: float = 0.0
    sent_bytes: int = 0
    received_bytes: int = 0

    @property
    def words(self) -> str:
        """The request as one line, without the version of the API."""
        path = self.path.partition("/v1.")[2].partition("/")[2] if self.path.startswith("/v1.") else self.path[1:]
        return f"{self.method} /{path}"

    @property
    def hijacked(self) -> bool:
        """True if the connection became a raw stream."""
        return self.status == 101


class TracingProxy:
    """Overhears clients of the engine at ``target``, which connect to ``path``; a context manager."""

    def __init__(self, target: str, path: str) -> None:
        self.target, self.path = target, path
        self.exchanges: list[Exchange] = []
        self._began_s = time.monotonic()
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(path)
        os.chmod(path, 0o600)
        self._listener.listen(64)
        self._thread = threading.Thread(target=self._accept, name="labkit-proxy", daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        """What ``DOCKER_HOST`` must be to be overheard."""
        return f"unix://{self.path}"

    def now_s(self) -> float:
        """Return the seconds since the proxy began."""
        return time.monotonic() - self._began_s

    def clear(self) -> None:
        """Forget what was heard so far."""
        with self._lock:
            self.exchanges.clear()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return  # closed
            threading.Thread(target=self._serve, args=(client,), name="labkit-proxy-client", daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, socket.socket(socket.AF_UNIX) as daemon:
            with self._lock:
                self._open |= {client, daemon}
            try:
                daemon.connect(self.target)
                ear = _Ear(self._note, self.now_s)
                back = threading.Thread(target=_pump, args=(daemon, client, ear.answer), daemon=True)
                back.start()
                _pump(client, daemon, ear.request)
                back.join()
            except OSError:
                pass  # one of the two has gone, and the other one hears of it by the end of its stream
            finally:
                with self._lock:
                    self._open -= {client, daemon}

    def _note(self, exchange: Exchange) -> None:
        with self._lock:
            self.exchanges.append(exchange)
            del self.exchanges[:-_MOST_EXCHANGES]

    def close(self) -> None:
        """Stop listening and end every connection; safe to call twice."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(5)
        with self._lock:
            for end in self._open:
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
        with suppress(FileNotFoundError):
            os.unlink(self.path)

    def __enter__(self) -> TracingProxy:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _pump(source: socket.socket, sink: socket.socket, heard: Callable[[bytes], None]) -> None:
    """Pass bytes on until ``source`` says that no more will come, and say the same to ``sink``."""
    try:
        while data := source.recv(_CHUNK_BYTES):
            heard(data)
            sink.sendall(data)
    except OSError:
        pass
    with suppress(OSError):
        sink.shutdown(socket.SHUT_WR)


class _Ear:
    """Understands one connection: what is asked, and which answer belongs to it."""

    def __init__(self, note: Callable[[Exchange], None], now_s: Callable[[], float]) -> None:
        self._note, self._now_s = note, now_s
        self._asked = h11.Connection(h11.SERVER)
        self._answered = h11.Connection(h11.CLIENT)
        self._current: Exchange | None = None
        self._deaf = False
        self._lock = threading.Lock()

    def request(self, data: bytes) -> None:
        """Hear what the client says."""
        with self._lock:
            if self._current is not None and self._current.hijacked:
                self._current.sent_bytes += len(data)
                return
            for event in self._events(self._asked, data):
                if isinstance(event, h11.Request):
                    self._current = Exchange(event.method.decode(), event.target.decode(), self._now_s())
                    self._answered.send(event)
                    self._note(self._current)
                elif isinstance(event, h11.Data) and self._current is not None:
                    self._current.sent_bytes += len(event.data)
                elif isinstance(event, h11.EndOfMessage):
                    self._let_answer_end(event)

    def _let_answer_end(self, event: Any) -> None:
        with suppress(h11.LocalProtocolError):
            self._answered.send(event)

    def answer(self, data: bytes) -> None:
        """Hear what the daemon says."""
        with self._lock:
            current = self._current
            if current is not None and current.hijacked:
                current.received_bytes += len(data)
                return
            for event in self._events(self._answered, data):
                if isinstance(event, h11.InformationalResponse | h11.Response) and current is not None:
                    current.status, current.answered_s = event.status_code, self._now_s()
                elif isinstance(event, h11.Data) and current is not None:
                    current.received_bytes += len(event.data)
                elif isinstance(event, h11.EndOfMessage):
                    self._asked, self._answered = h11.Connection(h11.SERVER), h11.Connection(h11.CLIENT)

    def _events(self, connection: h11.Connection, data: bytes) -> list[Any]:
        """Return what ``data`` completes; from the first thing that is no HTTP on there is nothing more to understand."""
        found: list[Any] = []
        if self._deaf:
            return found
        try:
            connection.receive_data(data)
            while (event := connection.next_event()) not in (h11.NEED_DATA, h11.PAUSED):
                found.append(event)
                if isinstance(event, h11.ConnectionClosed):
                    break
        except h11.RemoteProtocolError:
            self._deaf = True
        return found

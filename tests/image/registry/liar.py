"""A registry that lies, stalls or never ends, after a script: what a client must survive.

It is a plain socket server that knows nothing of labkit. `Liar.serve` says what it answers to which path: whole bytes of an HTTP
answer, or a function that writes to the socket itself.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["Liar", "answer"]

Reply = bytes | Callable[[socket.socket, str], None]


def answer(status: str = "200 OK", body: bytes = b"", *headers: str, length: int | None = None) -> bytes:
    """Return the bytes of an answer, with the length of ``body`` or the one given."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body) if length is None else length}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


class Liar:
    """Listens on a port of this machine; ``asked`` has each request's head."""

    def __init__(self) -> None:
        self.replies: dict[str, Reply] = {"GET /v2/": answer(body=b"{}")}
        self.asked: list[str] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._threads: list[threading.Thread] = []
        self._sockets: list[socket.socket] = []
        self.stopping = threading.Event()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._listener.getsockname()[1]}"

    def serve(self, request: str, reply: Reply) -> None:
        """Answer a request that begins with ``request`` (``GET /v2/x``) so; the longest match counts."""
        self.replies[request] = reply

    @contextmanager
    def running(self) -> Iterator[Liar]:
        """Serve meanwhile."""
        thread = threading.Thread(target=self._accept, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self.stopping.set()
            self._listener.shutdown(socket.SHUT_RDWR)
            for connection in self._sockets:
                try:
                    connection.shutdown(socket.SHUT_RDWR)
                except OSError:
                    continue
            for each in (thread, *self._threads):
                each.join(5)
            self._listener.close()

    def _accept(self) -> None:
        while not self.stopping.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._sockets.append(connection)
            thread = threading.Thread(target=self._talk, args=(connection,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _talk(self, connection: socket.socket) -> None:
        with connection:
            stream = connection.makefile("rb")
            try:
                while not self.stopping.is_set() and (head := self._read_head(stream)):
                    self.asked.append(head)
                    matches = [key for key in self.replies if head.startswith(key)]
                    reply = self.replies[max(matches, key=len)] if matches else answer("404 Not Found", b"{}")
                    if callable(reply):
                        reply(connection, head)
                        return
                    connection.sendall(reply)
            except OSError:
                return
            finally:
                stream.close()

    @staticmethod
    def _read_head(stream) -> str:  # type: ignore[no-untyped-def]
        lines = []
        while (line := stream.readline(65536)) not in (b"\r\n", b""):
            lines.append(line.decode("latin-1"))
        head = "".join(lines)
        for line in lines:
            if line.lower().startswith("content-length:"):
                stream.read(int(line.partition(":")[2]))
        return head

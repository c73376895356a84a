"""The server: accepts connections and gives each a thread; bounded, so that a flood of clients cannot use the engine up.

At most `MOST_CONNECTIONS` are served at once; one more gets "503 Service Unavailable" at once instead of waiting in silence. Threads are
cheap here: 60 half-open connections cost 60 small stacks until the time limit of a head ends them.

See: `labkit.engine.wire.connection`, listen(2).
"""

from __future__ import annotations

import logging
import selectors
import socket
import ssl
import threading
from contextlib import suppress

from labkit.engine.wire.connection import HEAD_S, Connection
from labkit.engine.wire.routes import Router

__all__ = ["MOST_CONNECTIONS", "Server"]

log = logging.getLogger(__name__)

MOST_CONNECTIONS = 512
_STACK_BYTES = 512 << 10
_BUSY = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nContent-Length: 47\r\nConnection: close\r\n\r\n"
    b'{"message":"too many connections at this time"}'
)


class Server:
    """Serves the same routes on several listening sockets, until `stop`."""

    def __init__(self, router: Router, engine: object) -> None:
        self._router, self._engine = router, engine
        self._selector = selectors.DefaultSelector()
        self._wake_r, self._wake_w = socket.socketpair()
        self._selector.register(self._wake_r, selectors.EVENT_READ)
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._stopping = False

    def listen(self, listener: socket.socket, context: ssl.SSLContext | None = None) -> None:
        """Serve ``listener``, too; with a ``context`` each connection begins with a TLS handshake."""
        listener.setblocking(False)  # noqa: FBT003 - the function takes it only so
        self._selector.register(listener, selectors.EVENT_READ, context)

    def serve(self) -> None:
        """Accept connections until `stop` is called from another thread or a signal handler."""
        threading.stack_size(_STACK_BYTES)
        while not self._stopping:
            for key, _ in self._selector.select():
                if isinstance(key.fileobj, socket.socket) and key.fileobj is not self._wake_r:
                    self._accept(key.fileobj, key.data)

    def stop(self) -> None:
        """Stop accepting; may be called by a signal handler."""
        self._stopping = True
        with suppress(OSError):
            self._wake_w.send(b"x")

    def close(self) -> None:
        """Close the listening sockets and end every connection."""
        for key in list(self._selector.get_map().values()):
            if isinstance(key.fileobj, socket.socket):
                key.fileobj.close()
        self._wake_w.close()
        self._selector.close()
        with self._lock:
            for sock in self._open:
                with suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)

    def _accept(self, listener: socket.socket, context: ssl.SSLContext | None) -> None:
        try:
            sock, _ = listener.accept()
        except OSError as error:
            log.debug("accept: %s", error)
            return
        with self._lock:
            is_full = len(self._open) >= MOST_CONNECTIONS
            if not is_full:
                self._open.add(sock)
        if is_full:
            with sock, suppress(OSError):
                sock.settimeout(0)
                sock.send(_BUSY)
            return
        threading.Thread(target=self._serve_one, args=(sock, context), name="connection", daemon=True).start()

    def _serve_one(self, sock: socket.socket, context: ssl.SSLContext | None) -> None:
        wire = sock
        try:
            if context is not None:
                sock.settimeout(HEAD_S)
                wire = context.wrap_socket(sock, server_side=True)
            Connection(wire, self._router, self._engine).serve()
        except OSError as error:
            log.debug("connection: %s", error)
        finally:
            with self._lock:
                self._open.discard(sock)
            with suppress(OSError):
                wire.close()

"""Published ports: what reaches a port of the machine is passed on to a port of a container.

A small proxy, as Docker's ``docker-proxy``: it listens on the machine and talks to the container's address over the bridge. It needs no
right over the packet filter, so it works the same for root, for a user and inside a sandbox. TCP: two directions, each with its own
end (half-close). UDP: each client gets a socket of its own towards the container, so that answers find back; it is forgotten
after `UDP_IDLE_S`.

See: tcp(7), udp(7), shutdown(2).
"""

from __future__ import annotations

import errno
import logging
import select
import socket
import threading
import time
from contextlib import suppress
from typing import Any

from labkit.engine.wire.errors import ApiError

__all__ = ["Published", "publish"]

log = logging.getLogger(__name__)

UDP_IDLE_S = 60.0
_MOST_CONNECTIONS, _MOST_CLIENTS = 256, 512
_PIECE = 64 << 10
_CONNECT_S = 10.0


class Published:
    """One port that is passed on, until `close`."""

    def __init__(self, listener: socket.socket, target: tuple[str, int]) -> None:
        self._listener, self._target = listener, target
        self.host_ip, self.host_port = listener.getsockname()[:2]
        self._slots = threading.BoundedSemaphore(_MOST_CONNECTIONS)
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._closed = False
        is_tcp = listener.type == socket.SOCK_STREAM
        threading.Thread(target=self._serve_tcp if is_tcp else self._serve_udp, name="published", daemon=True).start()

    def close(self) -> None:
        """Stop listening and end what is being passed on."""
        self._closed = True
        with self._lock:
            sockets = [self._listener, *self._open]
        for sock in sockets:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        if self._listener.type == socket.SOCK_DGRAM:
            with suppress(OSError), socket.socket(self._listener.family, socket.SOCK_DGRAM) as poke:
                poke.sendto(b"", self._listener.getsockname())
        self._listener.close()

    def _serve_tcp(self) -> None:
        while not self._closed:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if not self._slots.acquire(blocking=False):
                client.close()
                continue
            threading.Thread(target=self._pass_on, args=(client,), name="published", daemon=True).start()

    def _pass_on(self, client: socket.socket) -> None:
        try:
            with client, socket.create_connection(self._target, _CONNECT_S) as server:
                with self._lock:
                    self._open |= {client, server}
                server.settimeout(None)
                back = threading.Thread(target=_copy, args=(server, client), name="published", daemon=True)
                back.start()
                _copy(client, server)
                back.join()
                with self._lock:
                    self._open -= {client, server}
        except OSError as error:
            log.debug("published port %s: %s", self.host_port, error)
        finally:
            self._slots.release()

    def _serve_udp(self) -> None:
        clients: dict[Any, tuple[socket.socket, float]] = {}
        while not self._closed:
            sockets = [self._listener, *(sock for sock, _ in clients.values())]
            try:
                ready, _, _ = select.select(sockets, [], [], 5.0)
                for sock in ready:
                    self._move_datagram(sock, clients)
            except (OSError, ValueError):
                break
            for address, (sock, used_s) in list(clients.items()):
                if time.monotonic() - used_s > UDP_IDLE_S or len(clients) > _MOST_CLIENTS:
                    del clients[address]
                    sock.close()
        for sock, _ in clients.values():
            sock.close()

    def _move_datagram(self, sock: socket.socket, clients: dict[Any, tuple[socket.socket, float]]) -> None:
        if sock is self._listener:
            data, address = sock.recvfrom(_PIECE)
            if address not in clients:
                towards = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
                towards.connect(self._target)
                clients[address] = (towards, 0.0)
            clients[address] = (clients[address][0], time.monotonic())
            with suppress(ConnectionRefusedError):
                clients[address][0].send(data)
            return
        owner = next((address for address, (own, _) in clients.items() if own is sock), None)
        with suppress(ConnectionRefusedError):
            answer = sock.recv(_PIECE)
            if owner is not None:
                self._listener.sendto(answer, owner)


def _copy(source: socket.socket, target: socket.socket) -> None:
    try:
        while data := source.recv(_PIECE):
            target.sendall(data)
    except OSError:
        pass
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)


def publish(protocol: str, host_ip: str, host_port: int, target: tuple[str, int]) -> Published:
    """Pass ``host_ip:host_port`` on to ``target``. Raises: ApiError in Docker's words if the port is taken or forbidden."""
    kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
    family = socket.AF_INET6 if ":" in host_ip else socket.AF_INET
    listener = socket.socket(family, kind)
    if kind == socket.SOCK_STREAM:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == socket.AF_INET6:
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    try:
        listener.bind((host_ip, host_port))
        if kind == socket.SOCK_STREAM:
            listener.listen(128)
    except OSError as error:
        listener.close()
        shown = f"[{host_ip}]" if ":" in host_ip else host_ip
        if error.errno == errno.EADDRINUSE:
            raise ApiError(
                f"driver failed programming external connectivity: Bind for {shown}:{host_port} failed: port is already allocated"
            ) from error
        raise ApiError(
            f"driver failed programming external connectivity: listen {protocol} {shown}:{host_port}: {error.strerror}"
        ) from error
    return Published(listener, target)

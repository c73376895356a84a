"""Names: a small DNS server at 127.0.0.11 inside every container of a user-defined network.

Its sockets are made inside the container's network namespace, so only that container can ask there; they are served here, by one
thread for all. A name of a container in the same network (its name, its short id, an alias) is answered from the engine's
own lists; anything else is asked on of the machine's servers, from the machine's network.

Leaves out: IPv6 addresses (an empty answer), SRV records, caching.
See: RFC 1035 sections 4.1 and 4.2, resolv.conf(5).
"""

from __future__ import annotations

import logging
import random
import selectors
import socket
import struct
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from labkit.engine.network.links import in_namespace

__all__ = ["ADDRESS", "DnsServer", "Question", "answer", "parse_question"]

log = logging.getLogger(__name__)

ADDRESS = "127.0.0.11"
_PORT = 53
_A, _PTR, _AAAA, _IN = 1, 12, 28, 1
_TTL_S, _UPSTREAM_S = 600, 3.0
_MOST_BYTES = 4096
_HEADER = struct.Struct(">6H")


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked: a name and the type of record; ``end`` is where the question ends in the message."""

    number: int
    flags: int
    name: str
    kind: int
    end: int


def parse_question(data: bytes) -> Question | None:
    """Return the first question in a message; None for what is no query that can be answered."""
    if len(data) < 17:
        return None
    number, flags, questions, *_ = _HEADER.unpack_from(data)
    if flags & 0x8000 or flags & 0x7800 or questions != 1:
        return None
    at = 12
    labels: list[str] = []
    while at < len(data) and data[at]:
        length = data[at]
        if length > 63 or len(labels) > 127:
            return None  # a pointer has no business in the first name
        labels.append(data[at + 1 : at + 1 + length].decode("ascii", errors="replace"))
        at += 1 + length
    if at + 5 > len(data):
        return None
    kind, group = struct.unpack_from(">2H", data, at + 1)
    return Question(number, flags, ".".join(labels).lower(), kind, at + 5) if group == _IN else None


def answer(data: bytes, question: Question, addresses: Sequence[str], *, pointer: str = "") -> bytes:
    """Return the response with these IPv4 addresses, or with the name ``pointer``; without either, an empty one."""
    records = b""
    if question.kind == _A:
        for address in addresses:
            # 0xc00c points back to the name in the question.
            records += struct.pack(">3HIH", 0xC00C, _A, _IN, _TTL_S, 4) + socket.inet_aton(address)
    elif pointer:
        name = b"".join(bytes([len(label)]) + label.encode() for label in pointer.split(".")) + b"\0"
        records += struct.pack(">3HIH", 0xC00C, _PTR, _IN, _TTL_S, len(name)) + name
    count = len(addresses) if question.kind == _A else int(bool(pointer))
    flags = 0x8180 | (question.flags & 0x0100)
    return _HEADER.pack(question.number, flags, 1, count, 0, 0) + data[12 : question.end] + records


def _failure(data: bytes, question: Question) -> bytes:
    return _HEADER.pack(question.number, 0x8182, 1, 0, 0, 0) + data[12 : question.end]


class DnsServer:
    """Serves every container; ``lookup(container id, name)`` returns addresses, None for a name of nobody's."""

    def __init__(
        self, lookup: Callable[[str, str], list[str] | None], reverse: Callable[[str, str], str],
        upstream: Callable[[str], list[str]],
    ) -> None:  # fmt: skip
        self._lookup, self._reverse, self._upstream = lookup, reverse, upstream
        self._selector = selectors.DefaultSelector()
        self._wake_r, self._wake_w = socket.socketpair()
        self._selector.register(self._wake_r, selectors.EVENT_READ)
        self._sockets: dict[str, list[socket.socket]] = {}
        self._lock = threading.Lock()
        self._workers = ThreadPoolExecutor(8, "dns")
        self._thread: threading.Thread | None = None
        self._stopping = False

    def serve(self, key: str, net_fd: int) -> None:
        """Answer in the network namespace ``net_fd`` for the container ``key``. Raises: OSError."""
        udp, tcp = in_namespace(net_fd, _make_sockets)
        with self._lock:
            self._sockets[key] = [udp, tcp]
            self._selector.register(udp, selectors.EVENT_READ, key)
            self._selector.register(tcp, selectors.EVENT_READ, key)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="dns", daemon=True)
                self._thread.start()
        self._wake_w.send(b"x")

    def forget(self, key: str) -> None:
        """Stop answering the container ``key``."""
        with self._lock:
            for sock in self._sockets.pop(key, ()):
                self._selector.unregister(sock)
                sock.close()

    def close(self) -> None:
        """Stop answering everybody."""
        self._stopping = True
        for key in list(self._sockets):
            self.forget(key)
        self._wake_w.send(b"x")
        if self._thread is not None:
            self._thread.join()
        self._workers.shutdown(wait=False, cancel_futures=True)
        self._selector.close()
        self._wake_r.close()
        self._wake_w.close()

    def _run(self) -> None:
        while not self._stopping:
            for key, _ in self._selector.select():
                sock = key.fileobj
                if sock is self._wake_r:
                    self._wake_r.recv(64)
                elif isinstance(sock, socket.socket):
                    with suppress(OSError):
                        self._take(sock, key.data)

    def _take(self, sock: socket.socket, key: str) -> None:
        if sock.type == socket.SOCK_STREAM:
            client, _ = sock.accept()
            self._workers.submit(self._serve_tcp, client, key)
            return
        data, address = sock.recvfrom(_MOST_BYTES)
        reply = self._own_answer(data, key)
        if reply is None:
            self._workers.submit(self._ask_on, sock, data, address, key)
        elif reply:
            sock.sendto(reply, address)

    def _own_answer(self, data: bytes, key: str) -> bytes | None:
        """Return the response if the name is one of ours; empty for rubbish; None if others must be asked."""
        question = parse_question(data)
        if question is None:
            return b""
        if question.kind == _PTR and question.name.endswith(".in-addr.arpa"):
            address = ".".join(reversed(question.name.split(".")[:4]))
            pointer = self._reverse(key, address)
            return answer(data, question, (), pointer=pointer) if pointer else None
        found = self._lookup(key, question.name)
        if found is None:
            return None
        random.shuffle(found)
        return answer(data, question, found)

    def _ask_on(self, sock: socket.socket, data: bytes, address: Any, key: str) -> None:
        with suppress(OSError):
            sock.sendto(self._from_upstream(data, key), address)

    def _from_upstream(self, data: bytes, key: str) -> bytes:
        for server in self._upstream(key):
            family = socket.AF_INET6 if ":" in server else socket.AF_INET
            with suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as asker:
                asker.settimeout(_UPSTREAM_S)
                asker.connect((server, _PORT))
                asker.send(data)
                reply = asker.recv(_MOST_BYTES)
                if reply[:2] == data[:2]:
                    return reply
        question = parse_question(data)
        return _failure(data, question) if question else b""

    def _serve_tcp(self, client: socket.socket, key: str) -> None:
        with client, suppress(OSError, struct.error):
            client.settimeout(_UPSTREAM_S)
            (length,) = struct.unpack(">H", client.recv(2, socket.MSG_WAITALL))
            data = client.recv(length, socket.MSG_WAITALL)
            reply = self._own_answer(data, key)
            reply = self._from_upstream(data, key) if reply is None else reply
            client.sendall(struct.pack(">H", len(reply)) + reply)


def _make_sockets() -> tuple[socket.socket, socket.socket]:
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    tcp = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        for sock in (udp, tcp):
            sock.bind((ADDRESS, _PORT))
        tcp.listen(16)
    except OSError:
        udp.close()
        tcp.close()
        raise
    return udp, tcp

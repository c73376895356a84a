"""A relay between a hijacked connection and a session of the keeper: bytes both ways, half-close, detach keys.

One thread reads what the client sends; the connection's own thread sends what the container writes. When the client closes its
half, the container's input ends and its output goes on. When the container ends, the connection does. A client that takes nothing is
dropped by the time limit of a write, and the keeper, whose end then closes, goes on without it.

See: shutdown(2); docker-attach(1), ``--detach-keys``.
"""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Callable
from contextlib import suppress

from labkit.engine.wire.errors import BadParameter
from labkit.engine.wire.reply import Peer

__all__ = ["detach_sequence", "relay"]

_DEFAULT_KEYS = "ctrl-p,ctrl-q"
_KEY = re.compile(r"ctrl-([a-z@\[\\\]^_])\Z")
_PIECE = 64 << 10


def detach_sequence(text: str) -> bytes:
    """Return the bytes of a sequence such as ``ctrl-p,ctrl-q`` or ``a,b``. Raises: BadParameter."""
    keys = b""
    for word in (text or _DEFAULT_KEYS).split(","):
        match = _KEY.match(word)
        if match is not None:
            keys += bytes([ord(match.group(1)) & 0x1F])
        elif len(word) == 1 and word.isascii():
            keys += word.encode()
        else:
            raise BadParameter(f"invalid detach keys ({text}): {word!r} is no key")
    return keys


def relay(
    peer: Peer,
    session: socket.socket,
    *,
    keys: bytes,
    with_input: bool,
    before_end: Callable[[], object] = lambda: None,
    put: Callable[[bytes], bytes] = bytes,
) -> bool:
    """Pass bytes on until the session ends or the client detaches (`keys`) or goes; return whether it detached.

    ``before_end`` is called when there is no more to send, before the client is told so; ``put`` puts each piece into what the client reads.
    """
    detached = threading.Event()
    reader = threading.Thread(
        target=_pass_input, args=(peer, session, keys, with_input, detached), name="input", daemon=True
    )
    reader.start()
    with session:
        try:
            while data := session.recv(_PIECE):
                peer.send(put(data))
        except OSError:
            pass  # the client has gone, or takes nothing
        finally:
            before_end()
            peer.finish()
            with suppress(OSError):
                session.shutdown(socket.SHUT_RDWR)
    reader.join(5.0)
    return detached.is_set()


def _pass_input(peer: Peer, session: socket.socket, keys: bytes, with_input: bool, detached: threading.Event) -> None:  # noqa: FBT001
    matcher = _KeyMatcher(keys)
    while data := peer.receive():
        if not with_input:
            continue
        passed = matcher.feed(data)
        with suppress(OSError):
            session.sendall(passed)
        if matcher.is_complete:
            detached.set()
            with suppress(OSError):
                session.shutdown(socket.SHUT_RDWR)
            # What the client still sends is read and dropped: closed with that unread, it would see a broken connection.
            while peer.receive():
                pass
            return
    with suppress(OSError):
        session.shutdown(socket.SHUT_WR)


class _KeyMatcher:
    """Holds back the beginning of the detach sequence until it is clear whether the rest follows."""

    def __init__(self, keys: bytes) -> None:
        self._keys, self._seen = keys, 0
        self.is_complete = False

    def feed(self, data: bytes) -> bytes:
        """Return what of ``data`` is to be passed on."""
        if not self._keys:
            return data
        passed = bytearray()
        for byte in data:
            if byte == self._keys[self._seen]:
                self._seen += 1
                if self._seen == len(self._keys):
                    self.is_complete = True
                    return bytes(passed)
                continue
            passed += self._keys[: self._seen]
            self._seen = 1 if byte == self._keys[0] else 0
            if not self._seen:
                passed.append(byte)
        return bytes(passed)

"""The daemon: listen, start the engine, serve, and end in order when told to.

It answers from the first moment: the sockets listen before the state is read, and whoever connects meanwhile waits the few milliseconds
that this takes. SIGTERM and SIGINT end it: containers are stopped, as Docker does it, unless they are to be kept
running for the next engine.

See: `labkit.engine.engine`, `labkit.engine.wire.server`; signal(7).
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import ssl
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass

from labkit.engine.api import routers
from labkit.engine.engine import Engine
from labkit.engine.wire.server import Server
from labkit.engine.wire.sockets import TlsFiles, listen_tcp, listen_unix, server_context

__all__ = ["Listening", "serve"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Listening:
    """Where to listen: paths of unix sockets, and TCP addresses with or without TLS."""

    sockets: Sequence[str] = ()
    tcp: Sequence[str] = ()
    tls: TlsFiles | None = None


def serve(
    state: str, listening: Listening, *, images: str | None = None, keep_containers: bool = False,
    ready: Callable[[], None] = lambda: None,
) -> None:  # fmt: skip
    """Serve until SIGTERM or SIGINT; ``ready`` is called when the sockets listen. Raises: LabkitError before that."""
    with ExitStack() as open_things:
        listeners = _listen(listening, open_things)
        engine = Engine(state, images=images)
        open_things.callback(engine.close, keep_containers=keep_containers)
        server = Server(routers.router(), engine)
        open_things.callback(server.close)
        for listener, context in listeners:
            server.listen(listener, context)
        engine.start()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda _number, _frame: server.stop())
        ready()
        server.serve()
        log.info("ending")


def _listen(listening: Listening, open_things: ExitStack) -> list[tuple[socket.socket, ssl.SSLContext | None]]:
    found: list[tuple[socket.socket, ssl.SSLContext | None]] = []
    for path in listening.sockets:
        found.append((listen_unix(path), None))
        open_things.callback(_unlink, path)
    context = server_context(listening.tls) if listening.tls is not None else None
    for address in listening.tcp:
        found.append((listen_tcp(address, tls=context is not None), context))
    return found


def _unlink(path: str) -> None:
    with suppress(FileNotFoundError):
        os.unlink(path)

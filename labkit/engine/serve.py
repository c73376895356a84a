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

from labkit.engine.keeper.client import KeeperClient
from labkit.engine.statefolder import StateFolder
from labkit.engine.wire.server import Server
from labkit.engine.wire.sockets import TlsFiles, listen_tcp, listen_unix, server_context

__all__ = ["Listener", "listen", "serve"]

log = logging.getLogger(__name__)

#: A socket that listens, and what its connections begin TLS with (None: they do not).
Listener = tuple[socket.socket, ssl.SSLContext | None]


def listen(sockets: Sequence[str], tcp: Sequence[str], tls: TlsFiles | None, at_end: ExitStack) -> list[Listener]:
    """Listen at paths of unix sockets and at TCP addresses; ``at_end`` takes the paths away. Raises: InvalidSpec, InvalidState."""
    found: list[Listener] = []
    for path in sockets:
        found.append((at_end.enter_context(listen_unix(path)), None))
        at_end.callback(_unlink, path)
    context = server_context(tls) if tls is not None else None
    for address in tcp:
        found.append((at_end.enter_context(listen_tcp(address, tls=context is not None)), context))
    return found


def serve(
    state: str, listeners: Sequence[Listener], *, images: str | None = None, keep_containers: bool = False,
    ready: Callable[[], None] = lambda: None,
) -> None:  # fmt: skip
    """Serve until SIGTERM or SIGINT; ``ready`` is called when requests are answered. Raises: LabkitError before that."""
    folder = StateFolder(state)
    keeper = KeeperClient(f"{folder.path}/keeper")
    keeper.begin()
    # The keeper is a process of its own: while it starts, this one loads the larger part of the engine.
    from labkit.engine.api import routers
    from labkit.engine.engine import Engine

    with ExitStack() as at_end:
        engine = Engine(folder, keeper, images=images)
        at_end.callback(engine.close, keep_containers=keep_containers)
        server = Server(routers.router(), engine)
        at_end.callback(server.close)
        for listener, context in listeners:
            server.listen(listener, context)
        engine.start()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda _number, _frame: server.stop())
        ready()
        server.serve()
        log.info("ending")


def _unlink(path: str) -> None:
    with suppress(FileNotFoundError):
        os.unlink(path)

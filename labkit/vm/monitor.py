"""QEMU's monitor: questions and orders to a running QEMU, as JSON over a socket (QMP).

The protocol is spoken by the library `qemu.qmp`, which is made for asyncio; a notebook's main thread runs an event loop of its
own. So the first command starts a thread with a loop for this one connection, and the rest of labkit stays without ``await``.

Leaves out: commands in parallel on one connection.
See: QEMU's documentation of QMP; https://qemu.readthedocs.io/projects/python-qemu-qmp/
"""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import TimeoutError as FutureTimeout
from typing import Any, TypeVar

from labkit.errors import GuestError, InvalidState

__all__ = ["Monitor"]

log = logging.getLogger(__name__)

_T = TypeVar("_T")
_MOST_EVENTS = 1000
_CLOSE_TIMEOUT_S = 2.0


class Monitor:
    """The monitor of one QEMU: `execute` for commands, `events` for what it told unasked.

    ``why_gone`` says in words what is known of a QEMU that has hung up.
    """

    def __init__(self, connection: socket.socket, why_gone: Callable[[], str]) -> None:
        self._connection = connection
        self._why_gone = why_gone
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._client: Any = None
        self._lock = threading.Lock()
        self._events: deque[dict[str, Any]] = deque(maxlen=_MOST_EVENTS)

    def fileno(self) -> int:
        """Return the socket's descriptor: it becomes readable when QEMU greets, which it does when the machine runs."""
        return self._connection.fileno()

    def execute(
        self, command: str, arguments: Mapping[str, object] | None = None, *, timeout_s: float = 10.0, fd: int = -1
    ) -> Any:
        """Send a command; return what QEMU returned. ``fd`` is an open descriptor to send along (for ``getfd``).

        Raises: GuestError with QEMU's own words when it refuses, when it does not answer in time, or when it is gone.
        """
        from qemu.qmp import ExecuteError, QMPError

        async def talk() -> Any:
            if fd >= 0:
                self._client.send_fd_scm(fd)
            return await self._client.execute(command, dict(arguments or {}))

        try:
            with self._lock:
                deadline_s = time.monotonic() + timeout_s
                self._connect(timeout_s)
                return self._run(talk(), deadline_s - time.monotonic())
        except ExecuteError as error:
            raise GuestError(f"QEMU refused {command}: {error}.") from error
        except (QMPError, EOFError, ConnectionError) as error:
            raise GuestError(f"QEMU did not answer {command}: {self._why_gone() or repr(error)}") from error
        except FutureTimeout as error:
            raise GuestError(
                f"QEMU did not answer {command} within {timeout_s:g} s: it is stopped or hangs."
            ) from error

    def events(self) -> list[dict[str, Any]]:
        """Return what QEMU told unasked since the monitor was first used: STOP, RESUME, MIGRATION, SHUTDOWN ..."""
        return list(self._events)

    def _connect(self, timeout_s: float) -> None:
        """Start the loop's thread and greet, once."""
        if self._client is not None:
            return
        if self._connection.fileno() < 0:
            raise InvalidState("The guest has ended: its monitor is closed.")
        from qemu.qmp import EventListener, QMPClient

        self._loop = asyncio.new_event_loop()
        # The library's own tasks end with an error when QEMU goes away; whoever asks next is told, nobody else.
        self._loop.set_exception_handler(lambda _, context: log.debug("the monitor's loop: %s", context))
        self._thread = threading.Thread(target=self._loop.run_forever, name="labkit-monitor", daemon=True)
        self._thread.start()

        async def connect() -> Any:
            client = QMPClient("labkit")
            listener = EventListener()
            client.register_listener(listener)
            await client.connect(self._connection)
            self._listening = asyncio.create_task(self._listen(listener))
            return client

        self._client = self._run(connect(), timeout_s)

    async def _listen(self, listener: Any) -> None:
        async for event in listener:
            self._events.append(dict(event))

    def _run(self, coroutine: Coroutine[Any, Any, _T], timeout_s: float) -> _T:
        if self._loop is None:
            raise InvalidState("The monitor is closed.")
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return future.result(timeout_s)
        except FutureTimeout:
            future.cancel()
            raise

    def close(self) -> None:
        """Hang up and end the thread; safe to call twice."""
        loop, thread, client = self._loop, self._thread, self._client
        self._loop = self._thread = None
        if loop is not None and thread is not None:
            if client is not None:
                _hang_up(client, self._listening, loop)
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            loop.close()
        self._connection.close()


def _hang_up(client: Any, listening: asyncio.Task[None], loop: asyncio.AbstractEventLoop) -> None:
    """Let the library take its leave, whatever has happened to the other side."""
    from qemu.qmp import QMPError

    async def disconnect() -> None:
        listening.cancel()
        await client.disconnect()

    try:
        asyncio.run_coroutine_threadsafe(disconnect(), loop).result(_CLOSE_TIMEOUT_S)
    except (QMPError, EOFError, OSError, FutureTimeout) as error:
        log.debug("the monitor's end: %r", error)

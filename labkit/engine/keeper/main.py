"""The keeper as a process: detached from the engine, and gone when nobody needs it.

Docker has a *shim* for each container for the same reason: somebody has to be the parent who waits, hold the streams, write the log. One keeper
serves all containers of an engine, which costs one Python process instead of one a container, and means that killing it
kills them all (the launcher below it sees to that). The engine then marks them as ended.

It leaves when the engine is gone and no container runs. How each container ended stands in its ``exit.json`` by then.

Started as ``python -I -S -c ... FOLDER READY_FD``, standard library only.
See: setsid(2), daemon(7), containerd's "Runtime v2" (shims).
"""

from __future__ import annotations

import gc
import os
import signal
import socket
import threading
from contextlib import suppress

from labkit.container.client import launcher, shutdown
from labkit.engine.keeper.control import Keeper
from labkit.engine.keeper.lock import take
from labkit.engine.keeper.protocol import SOCKET_NAME, listen
from labkit.errors import LabkitError

__all__ = ["main"]

#: How long one that is ending may take.
_PATIENCE_S = 20.0


def main(folder: str, ready_fd: str) -> None:
    """Serve until there is nothing left to keep."""
    _ignore_nothing()
    lock = take(folder, _PATIENCE_S)
    listener = listen(folder)
    keeper = Keeper(listener)
    signal.signal(signal.SIGTERM, lambda _number, _frame: keeper.loop.post(keeper.loop.stop))
    threading.stack_size(256 << 10)
    threading.Thread(target=_start_launcher, daemon=True).start()
    gc.freeze()
    # An engine that was killed meanwhile reads nothing. The next one may be there already, and finds this keeper by its socket.
    with suppress(BrokenPipeError):
        os.write(int(ready_fd), b"1")
    os.close(int(ready_fd))
    try:
        keeper.loop.run()
    finally:
        _remove_socket(folder, listener)
        shutdown()
        lock.close()


def _ignore_nothing() -> None:
    """Have no signal ignored: a program inherits that over execve, and one that ignores SIGINT cannot be interrupted.

    A shell that starts the engine in the background makes it ignore SIGINT and SIGQUIT; Python itself ignores SIGPIPE. What has a
    handler instead is reset to the default by execve.
    """
    for number in signal.valid_signals():
        if signal.getsignal(number) == signal.SIG_IGN or number in (signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda _number, _frame: None)


def _start_launcher() -> None:
    # Before the first container asks for it; what does not work is said to that container.
    with suppress(LabkitError, OSError):
        launcher()


def _remove_socket(folder: str, listener: socket.socket) -> None:
    listener.close()
    with suppress(FileNotFoundError):
        os.unlink(f"{folder}/{SOCKET_NAME}")

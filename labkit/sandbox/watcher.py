"""One thread beside each kernel: it reads what the kernel writes past Jupyter, and is there when it ends.

What a notebook shows travels over the kernel's sockets. What still reaches the standard streams (a crash while starting, a C
library's complaint) goes into a pipe; the thread reads it all, so that nobody blocks, and keeps the end for error messages. It never
goes to the server's own terminal, which a program that holds it could type into.

See: pipe(7), pidfd_open(2), ioctl_tty(2) (TIOCSTI).
"""

from __future__ import annotations

import os
import selectors
import threading
from collections.abc import Callable

from labkit.linux.fds import Fd

__all__ = ["Watcher"]

_KEPT_BYTES = 8192


class Watcher:
    """Owner of the thread, in which ``tick`` is called between events and says in how many seconds it wants to be called again.

    ``at_end`` is called in it once the process that ``pidfd`` refers to has ended.
    """

    def __init__(self, output: Fd, pidfd: int, *, tick: Callable[[], float | None], at_end: Callable[[], None]) -> None:
        self._output = output
        self._pidfd = Fd(os.dup(pidfd))
        self._tick = tick
        self._at_end = at_end
        self._tail = b""
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, name="labkit-sandbox-watcher", daemon=True)
        self._thread.start()

    @property
    def done(self) -> bool:
        """True once the end has been seen and ``at_end`` has returned."""
        return self._done.is_set()

    @property
    def tail(self) -> str:
        """The last lines that were written to the standard streams."""
        return self._tail.decode(errors="replace").strip()

    def _run(self) -> None:
        try:
            with selectors.DefaultSelector() as selector:
                selector.register(self._output, selectors.EVENT_READ)
                selector.register(self._pidfd, selectors.EVENT_READ)
                ready: set[object] = set()
                while self._pidfd not in ready:
                    ready = {key.fileobj for key, _ in selector.select(self._tick())}
                    if self._output in ready and not self._read():
                        selector.unregister(self._output)
            os.set_blocking(self._output.fileno(), False)
            self._read()
            self._at_end()
        finally:
            self._done.set()

    def _read(self) -> bool:
        try:
            data = os.read(self._output.fileno(), 1 << 16)
        except BlockingIOError:
            return False
        self._tail = (self._tail + data)[-_KEPT_BYTES:]
        return bool(data)

    def close(self) -> None:
        """Wait for the thread, whose process must have ended; release the descriptors. Safe to call twice."""
        self._thread.join()
        self._output.close()
        self._pidfd.close()

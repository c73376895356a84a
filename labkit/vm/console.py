"""The guest's console as a stream: what the kernel and the programs there said, the last part of it.

A console is the one device that works from the first instruction to the last: a panic is seen here and nowhere else. QEMU
writes what the guest sends to a socket; a thread of ours reads it, so that the guest never waits, and keeps the newest
256 KiB. A guest that floods its console costs CPU time, no memory.

What a guest writes is anybody's text: `tail` shows it without control characters, which could rewrite a reader's terminal.

Leaves out: typing (`labkit.vm.guest.Guest.type_text`); a terminal's escape sequences.
See: Documentation/admin-guide/serial-console.rst.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator

from labkit.errors import DeadlineExceeded, GuestError

__all__ = ["Console"]

MOST_BYTES = 256 << 10
_PANIC = re.compile(rb"Kernel panic - not syncing: ([^\r\n]*)")
_CONTROL = re.compile(r"[^\n\t\x20-\x7e\xa0-\uffff]")


class Console:
    """What came out of a guest's console. Filled by the thread that `labkit.vm.process` runs; read from any."""

    def __init__(self) -> None:
        self._kept = bytearray()
        self._dropped_bytes = 0
        self._ended = False
        self._changed = threading.Condition()

    def feed(self, data: bytes) -> None:
        """Add what the guest wrote; forget the oldest part when there is too much."""
        with self._changed:
            self._kept += data
            surplus = len(self._kept) - MOST_BYTES
            if surplus > 0:
                del self._kept[:surplus]
                self._dropped_bytes += surplus
            self._changed.notify_all()

    def end(self) -> None:
        """Note that nothing more will come."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    @property
    def text(self) -> str:
        """Everything kept, as the guest wrote it."""
        with self._changed:
            return self._kept.decode(errors="replace")

    @property
    def total_bytes(self) -> int:
        """How much the guest has written altogether."""
        with self._changed:
            return self._dropped_bytes + len(self._kept)

    def tail(self, lines: int = 10, *, width: int = 160) -> str:
        """Return the last ``lines`` lines for a person: no control characters, no line longer than ``width``."""
        clean = _CONTROL.sub("", self.text)
        return "\n".join(line[:width] for line in clean.rstrip().split("\n")[-lines:])

    def panic(self) -> str | None:
        """Return what the guest kernel gave as the reason of its panic, if it panicked."""
        with self._changed:
            found = _PANIC.findall(self._kept)
        return _CONTROL.sub("", found[-1].decode(errors="replace"))[:160] if found else None

    def wait_for(self, text: str, timeout_s: float) -> str:
        """Wait until the guest has written ``text``; return everything up to its end.

        Raises: DeadlineExceeded if it does not, GuestError if the console ends before.
        """
        wanted = text.encode()
        deadline_s = time.monotonic() + timeout_s
        with self._changed:
            while (at := self._kept.find(wanted)) < 0:
                if self._ended:
                    raise GuestError(f"The guest ended before {text!r} stood on its console.")
                if not self._changed.wait(deadline_s - time.monotonic()):
                    raise DeadlineExceeded(f"{text!r} did not come on the guest's console within {timeout_s:g} s.")
            return self._kept[: at + len(wanted)].decode(errors="replace")

    def stream(self, timeout_s: float | None = None) -> Iterator[str]:
        """Yield what comes, from the oldest kept text on, until the guest ends or nothing came for ``timeout_s``."""
        position = 0
        while True:
            with self._changed:
                position = max(position, self._dropped_bytes)
                while position >= self._dropped_bytes + len(self._kept) and not self._ended:
                    if not self._changed.wait(timeout_s):
                        return
                position = max(position, self._dropped_bytes)
                fresh = bytes(self._kept[position - self._dropped_bytes :])
            if not fresh:
                return
            position += len(fresh)
            yield fresh.decode(errors="replace")

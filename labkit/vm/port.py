"""The host's end of the line to the guest's agent: a list of calls goes out, the answers come back.

The list is written into memory that both share; the line itself carries one byte each way, "it is your turn". In the guest the
line is a serial port, on the host one end of a socket pair whose other end QEMU holds. A socket pair has no name, so nothing
is left of it when both sides are gone. Whoever waits for an answer has a deadline; an answer that nobody waited for (the
program was interrupted) is awaited before the next list goes out.

Leaves out: several lists under way at once.
See: socketpair(2), `labkit.vm.calls` for the bytes, `labkit.vm.agent` for the other end.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable

from labkit.errors import GuestError
from labkit.vm.calls import Answer, CallList

__all__ = ["Port"]

_MOST_CHORES = 64


class Port:
    """A line to an agent; usable from several threads. ``why_silent`` says in words what is known of a guest that is gone."""

    def __init__(self, line: socket.socket, mailbox: memoryview, why_silent: Callable[[], str]) -> None:
        self._line, self._mailbox = line, mailbox
        self._why_silent = why_silent
        # A new agent first tells that it is there: an answer is owed from the start.
        self._is_owed = True
        self._successor: Port | None = None
        self.lock = threading.RLock()
        #: Descriptors of the guest that whoever sends the next message closes.
        self.chores: list[int] = []
        #: Processes whose end somebody waits for, and the statuses of those that have ended: one wait4 collects for all.
        self.waited_for: set[int] = set()
        self.ended: dict[int, int] = {}

    def exchange(self, calls: CallList, deadline_s: float) -> Answer:
        """Let the guest make ``calls``; return the answers. ``deadline_s`` is a moment of `time.monotonic`.

        Raises: GuestError when the guest does not answer in time or its QEMU has ended; InvalidSpec for too long a list.
        """
        with self.lock:
            if self._successor is not None:
                return self._successor.exchange(calls, deadline_s)
            self.wait(deadline_s)
            packed = self._with_chores(calls)
            self._mailbox[: len(packed)] = packed
            self._is_owed = True
            try:
                self._line.send(b"\n")
            except OSError as error:
                raise GuestError(self._why_silent()) from error
            self.wait(deadline_s)
            return Answer(self._mailbox, calls)

    def _with_chores(self, calls: CallList) -> bytes:
        """Return the list as bytes, with the descriptors closed at its end that nobody needs any more."""
        calls.pack()  # if it is too long, that is said before the chores are taken off their list
        for fd in self.chores[:_MOST_CHORES]:
            calls.call("close", fd)
        del self.chores[:_MOST_CHORES]
        return calls.pack()

    def wait(self, deadline_s: float) -> None:
        """Wait until it is the host's turn. Raises: GuestError when the guest does not answer in time or is gone."""
        if not self._is_owed:
            return
        self._line.settimeout(max(0.001, deadline_s - time.monotonic()))
        try:
            ring = self._line.recv(1)
        except TimeoutError:
            raise GuestError(
                "The guest did not answer within its time limit: it hangs, is paused, or has too little CPU. "
                f"{self._why_silent()}".strip()
            ) from None
        except OSError as error:
            raise GuestError(self._why_silent()) from error
        if not ring:
            raise GuestError(self._why_silent())
        self._is_owed = False

    def fileno(self) -> int:
        """Return the line's descriptor: it becomes readable when it is the host's turn."""
        return self._line.fileno()

    def expect_nothing(self) -> None:
        """Note that the guest at the other end waits already: its machine was saved, or has moved, in that state."""
        self._is_owed = False

    def take_over(self, other: Port) -> None:
        """Go on for ``other``, whose guest has moved to this port's QEMU while it waited."""
        self.expect_nothing()
        self.lock, self.chores, self.waited_for, self.ended = other.lock, other.chores, other.waited_for, other.ended
        other._successor = self

    def note_end(self, pid: int, status: int) -> None:
        """Keep the status of a process that wait4 has collected, if somebody waits for it; orphans are forgotten."""
        if pid in self.waited_for:
            self.waited_for.remove(pid)
            self.ended[pid] = status

    def close(self) -> None:
        """Hang up; the agent ends then, and with it the guest's kernel."""
        self._line.close()

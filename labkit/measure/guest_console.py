"""A guest with a shell at its console, as on a screen with a keyboard: what is typed goes in, what is written comes out.

The console is a serial port. The shell gets it as its controlling terminal, so Ctrl-C and Ctrl-D do there what they do everywhere. What
comes out was meant for a terminal; `readable` keeps what a person reads of it.

Leaves out: full-screen programs.
See: `labkit.vm.console`, setsid(2), tty_ioctl(4) (TIOCSCTTY).
"""

from __future__ import annotations

import re
from types import TracebackType
from typing import Self

from labkit.errors import GuestError, InvalidSpec
from labkit.vm.commandline import board_of
from labkit.vm.guest import Guest

__all__ = ["CTRL_C", "MOST_LINE", "GuestConsole", "readable"]

CTRL_C = "\x03"
#: A terminal line longer than this is cut by the guest's kernel.
MOST_LINE = 1000
_MIB = 96
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b.")
_ERASED = re.compile(r"[^\n\x08]\x08 ?\x08?")
_CONTROL = re.compile(r"[^\n\t\x20-\x7e\xa0-\uffff]")


def readable(text: str, *, lines: int = 200, width: int = 200) -> str:
    """Return the end of what a terminal got as plain text: no escape sequences, no control characters, bounded."""
    plain = _ERASED.sub("", _ESCAPES.sub("", text))
    kept = [line[:width] for line in _CONTROL.sub("", plain).split("\n")[-lines:]]
    return "\n".join(kept)


class GuestConsole:
    """The guest and its shell; a context manager. Used once."""

    def __init__(self, memory_mib: int = _MIB) -> None:
        self._guest = Guest(memory_mib)

    def start(self) -> None:
        """Boot, and put a shell at the console. Raises: FeatureMissing, GuestError."""
        self._guest.start()
        port = f"/dev/{board_of(self._guest.spec.machine).console}"
        # Job control (set -m), for otherwise a shell in the background would ignore Ctrl-C and hand that on; and the program that
        # `exec` waits for stays a moment, for its group ends with it, and setsid must have left that group by then.
        words = f"exec <>{port} >&0 2>&1; set -m; TERM=dumb setsid -c sh -i <>{port} >&0 2>&1 & sleep 0.3"
        done = self._guest.exec(["sh", "-c", words], timeout_s=20)
        if done.status:
            self.close()
            raise GuestError(f"The shell at the guest's console did not start (status {done.status}).")

    @property
    def running(self) -> bool:
        """True while the guest runs."""
        return self._guest.state == "running"

    @property
    def text(self) -> str:
        """What stands on the console, readable."""
        return "" if self._guest.state == "created" else readable(self._guest.console.text)

    def enter(self, line: str) -> None:
        """Type a line and the Enter key. Raises: InvalidSpec for a line too long, GuestError once the guest is gone."""
        if len(line) > MOST_LINE:
            raise InvalidSpec(f"A line of {len(line)} letters is too long for a console: at most {MOST_LINE}.")
        self._guest.type_text(line.replace("\n", " ") + "\n")

    def interrupt(self) -> None:
        """Press Ctrl-C: the program in front ends. Raises: GuestError once the guest is gone."""
        self._guest.type_text(CTRL_C)

    @property
    def why_ended(self) -> str:
        """Why a guest that has ended did, as far as the console says; or nothing."""
        if self._guest.state in ("created", "running"):
            return ""
        panic = self._guest.console.panic()
        return f"The guest's kernel panicked: {panic}." if panic else "The guest has ended."

    def close(self) -> None:
        """End the guest; safe to call twice. What stood on the console can be read afterwards, too."""
        self._guest.close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

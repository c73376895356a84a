"""How the set-up of a child ended: it became its program, a step was refused, or it died on the way.

The child cannot speak. What happened is read from the notes of its run (`labkit.linux.steps.Program`) once the status socket
has reached its end of file, which comes with execve or with the child's end.

See: execve(2) (close-on-exec), unix(7).
"""

from __future__ import annotations

import errno
import os
import select
import socket
from typing import Any

from labkit.linux.steps import Program, Step

__all__ = ["SetupFailed", "wait_for_exec", "wait_for_own_descriptors"]

SETUP_TIMEOUT_S = 10.0


class SetupFailed(Exception):
    """A step of the child was refused; carries what the program is told."""

    def __init__(self, step: str, number: int, message: str) -> None:
        super().__init__(message)
        self.report: dict[str, Any] = {"step": step, "errno": number, "message": message}


def why_refused(program: Program) -> tuple[Step, int]:
    """Return the refused step and its errno; of several tries to execute a file, "not allowed" tells more than "not there"."""
    step, number = program.refused or (program.current, 0)
    if step.call == "execve":
        answers = [program.result_of(i) for i, other in enumerate(program.steps) if other.call == "execve"]
        number = errno.EACCES if -errno.EACCES in answers else number
    return step, number


def wait_for_own_descriptors(status: socket.socket, pidfd: int) -> None:
    """Wait until the child has a table of descriptors of its own, or has ended: then its end of ``status`` may be closed here."""
    poll = select.poll()
    poll.register(status, select.POLLIN)
    poll.register(pidfd, select.POLLIN)
    poll.poll(SETUP_TIMEOUT_S * 1000)


def wait_for_exec(program: Program, status: socket.socket) -> int | None:
    """Wait until the child has become the program; return its terminal's master side if it made one.

    Raises: SetupFailed with the step that was refused, or when the child takes longer than the set-up time limit.
    """
    status.settimeout(SETUP_TIMEOUT_S)
    tty_fd = None
    try:
        # End of file: the child's end is closed by execve, or by its end.
        while message := socket.recv_fds(status, 16, 1):
            if not message[0]:
                break
            tty_fd = message[1][0] if message[1] else tty_fd
    except TimeoutError:
        raise SetupFailed(program.current.why, 0, f"it took longer than {SETUP_TIMEOUT_S:.0f} s") from None
    if program.refused is not None:
        step, number = why_refused(program)
        if tty_fd is not None:
            os.close(tty_fd)
        raise SetupFailed(step.why, number, os.strerror(number) if number else "the launcher went away")
    if program.current.call not in ("execve", "exit_group"):
        raise SetupFailed(program.current.why, 0, "the process was killed (is its memory limit too small?)")
    return tty_fd

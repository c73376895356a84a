"""Two terminals connected: the caller's, and the one that a container's program has.

A terminal has two sides. The program holds the slave, on which the kernel edits lines and turns Ctrl-C into SIGINT; labkit holds the
master. What is typed at the caller's terminal must reach the master untouched, so that terminal is switched to raw mode
meanwhile: no echo, no line editing, no signals; the inner one does all that. The size is passed on at the start and at each
SIGWINCH.

Leaves out: detaching by a key sequence, flow control of its own.
See: pty(7), termios(3), tty_ioctl(4) (TIOCSWINSZ).
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import signal
import termios
import tty
from collections.abc import Iterator
from contextlib import contextmanager

from labkit.container.container import Container

__all__ = ["connect"]

_END_OF_TRANSMISSION = b"\x04"
_CHUNK_BYTES = 1 << 16


def connect(container: Container) -> None:
    """Copy between the caller's standard streams and the container's terminal until the program lets go of it."""
    if container.terminal is None:
        return
    master_fd = container.terminal.fileno()
    with _raw(0), _same_size(master_fd):
        _copy(master_fd)


@contextmanager
def _raw(fd: int) -> Iterator[None]:
    """Switch the terminal ``fd`` to raw mode meanwhile; does nothing if it is none."""
    if not os.isatty(fd):
        yield
        return
    before = termios.tcgetattr(fd)
    tty.setraw(fd, termios.TCSADRAIN)  # not TCSAFLUSH: what was typed ahead is for the program
    try:
        yield
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)


@contextmanager
def _same_size(master_fd: int) -> Iterator[None]:
    """Give the inner terminal the size of the outer one, now and whenever that changes."""
    outer_fd = next((fd for fd in (0, 1, 2) if os.isatty(fd)), None)
    if outer_fd is None:
        yield
        return

    def pass_size_on(*_: object) -> None:
        size = fcntl.ioctl(outer_fd, termios.TIOCGWINSZ, bytes(8))
        fcntl.ioctl(master_fd, termios.TIOCSWINSZ, size)

    before = signal.signal(signal.SIGWINCH, pass_size_on)
    pass_size_on()
    try:
        yield
    finally:
        signal.signal(signal.SIGWINCH, before)


def _copy(master_fd: int) -> None:
    """Copy both ways. What the program does not read yet is kept, so that its own output never has to wait for it."""
    os.set_blocking(master_fd, False)
    pending, is_open = b"", True
    poll = select.poll()
    while True:
        poll.register(master_fd, select.POLLIN | (select.POLLOUT if pending else 0))
        # Nothing more is taken in before the last of it is through: the caller's pipe is the buffer.
        poll.register(0, select.POLLIN if is_open and not pending else 0)
        ready = dict(poll.poll())
        if pending and ready.get(master_fd, 0) & select.POLLOUT:
            pending = pending[os.write(master_fd, pending) :]
        if ready.get(master_fd, 0) & (select.POLLIN | select.POLLHUP | select.POLLERR):
            data = _read(master_fd)
            if not data:
                return
            _write_all(1, data)
        elif is_open and not pending and 0 in ready:
            data = _read(0)
            # At the end of input a terminal's reader is told by Ctrl-D, as if it had been typed.
            pending, is_open = data or _END_OF_TRANSMISSION, bool(data)


def _read(fd: int) -> bytes:
    try:
        return os.read(fd, _CHUNK_BYTES)
    except OSError as error:
        if error.errno != errno.EIO:  # a master answers EIO when nobody holds the slave any more
            raise
        return b""


def _write_all(fd: int, data: bytes) -> None:
    pending = memoryview(data)
    while pending:
        pending = pending[os.write(fd, pending) :]

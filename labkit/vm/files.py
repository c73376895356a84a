"""Files in and out of a guest, by system calls: open, write in pieces, rename; or open, read in pieces.

A file that is copied in gets its name only when it is complete. Nothing runs in the guest for it but the agent, so it works
where there is no shell and no tar.

Leaves out: folders (copy a tar archive and unpack it there), owners, times, extended attributes.
See: openat(2), pread(2), rename(2).
"""

from __future__ import annotations

import os
import time

from labkit.errors import DeadlineExceeded, GuestError, InvalidSpec
from labkit.vm.calls import CallList, Slot
from labkit.vm.port import Port

__all__ = ["read_file", "write_file"]

_PIECE_BYTES = 256 << 10
MOST_FILE_BYTES = 1 << 30
_AT_FDCWD = -100
_O_RDONLY, _O_WRONLY, _O_CREAT, _O_TRUNC, _O_CLOEXEC = 0o0, 0o1, 0o100, 0o1000, 0o2000000


def write_file(port: Port, machine: str, content: bytes, path: str, *, permissions: int, timeout_s: float) -> None:
    """Make ``path`` in the guest, with ``content``. Raises: GuestError with the guest kernel's answer."""
    _demand_path(path)
    deadline_s = time.monotonic() + timeout_s
    unfinished = f"{path}.labkit-part"
    calls = CallList(machine)
    opened = calls.call("openat", _AT_FDCWD, unfinished, _O_WRONLY | _O_CREAT | _O_TRUNC | _O_CLOEXEC, permissions)
    fd = _checked(port.exchange(calls, deadline_s)[opened], f"write {path}")
    try:
        written = 0
        while written < len(content):
            _demand_time(deadline_s, path)
            calls = CallList(machine)
            piece = content[written : written + _PIECE_BYTES]
            slot = calls.call("write", fd, piece, len(piece))
            written += _checked(port.exchange(calls, deadline_s)[slot], f"write {path}")
    except GuestError:
        _finish(port, machine, fd, unfinished, "", deadline_s)
        raise
    _finish(port, machine, fd, unfinished, path, deadline_s, permissions=permissions)


def _finish(
    port: Port, machine: str, fd: int, unfinished: str, path: str, deadline_s: float, *, permissions: int = 0
) -> None:
    """Close the file and give it its name; take it away if there is no name or it cannot have it."""
    calls = CallList(machine)
    steps: list[Slot] = [calls.call("close", fd)]
    if path:
        steps.append(calls.call("fchmodat", _AT_FDCWD, unfinished, permissions))  # open(2) has taken the umask off
        steps.append(calls.call("renameat", _AT_FDCWD, unfinished, _AT_FDCWD, path))
    calls.call("unlinkat", _AT_FDCWD, unfinished, 0)  # not there any more if it has its name
    answer = port.exchange(calls, deadline_s)
    for step in steps if path else ():
        _checked(answer[step], f"write {path}")


def read_file(port: Port, machine: str, path: str, *, timeout_s: float) -> bytes:
    """Return the content of ``path`` in the guest. Raises: GuestError with the guest kernel's answer."""
    _demand_path(path)
    deadline_s = time.monotonic() + timeout_s
    calls = CallList(machine)
    opened = calls.call("openat", _AT_FDCWD, path, _O_RDONLY | _O_CLOEXEC)
    first = calls.read(opened, _PIECE_BYTES)
    answer = port.exchange(calls, deadline_s)
    fd, content = _checked(answer[opened], f"read {path}"), bytearray()
    try:
        while _checked(answer[first], f"read {path}"):
            content += answer.data(first)
            if len(content) > MOST_FILE_BYTES:
                raise GuestError(f"{path} has more than {MOST_FILE_BYTES >> 20} MiB: copy it in parts.")
            _demand_time(deadline_s, path)
            calls = CallList(machine)
            first = calls.read(fd, _PIECE_BYTES)
            answer = port.exchange(calls, deadline_s)
    finally:
        port.chores.append(fd)
    return bytes(content)


def _checked(result: int, what: str) -> int:
    if result < 0:
        raise GuestError(f"The guest could not {what}: {os.strerror(-result)}.")
    return result


def _demand_path(path: str) -> None:
    if not path.startswith("/"):
        raise InvalidSpec(f"{path!r} is no path in a guest: begin it with a slash.")


def _demand_time(deadline_s: float, path: str) -> None:
    if time.monotonic() > deadline_s:
        raise DeadlineExceeded(f"Copying {path} took longer than its time limit: give it more time.")

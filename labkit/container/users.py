"""Who the program in a container is: ``uid:gid`` or names, looked up in the container's own /etc/passwd.

The files belong to an image, so they may be anything: a FIFO that never answers, a link out, a gigabyte. They are opened
after the switch of the root (nothing outside can be reached), without blocking, and read only if they are
regular files of sensible size.

Leaves out: NSS, shadow groups.
See: passwd(5), group(5), OCI Image Specification, config.md ("User").
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass

__all__ = ["Identity", "resolve_user"]

_MOST_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Identity:
    """The ids to run with, and the home folder that goes with them."""

    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str


def read_table(path: str) -> list[list[str]]:
    """Return the colon-separated lines of ``path``; nothing if it is missing, no regular file, or too large."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    except OSError:
        return []
    with open(fd, errors="replace") as file:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or status.st_size > _MOST_BYTES:
            return []
        return [line.split(":") for line in file.read(_MOST_BYTES).splitlines() if line]


def resolve_user(user: str) -> Identity:
    """Return the identity that ``user`` names: ``1000``, ``1000:1000``, ``www-data``, ``www-data:tape``.

    A number without an entry in /etc/passwd is allowed (group 0, home ``/``); a name without one is not.
    Raises: LookupError naming what was not found.
    """
    user_text, _, group_text = user.partition(":")
    if user_text in ("", "0", "root") and not group_text.strip("0"):
        return _root()
    passwd = [row for row in read_table("/etc/passwd") if len(row) >= 6 and row[2].isdigit() and row[3].isdigit()]
    found = next((row for row in passwd if user_text in (row[0], row[2])), None)
    if found is None and not user_text.isdigit():
        raise LookupError(f"user {user_text!r} is not in the container's /etc/passwd")
    uid, gid, home = (int(found[2]), int(found[3]), found[5]) if found else (int(user_text), 0, "/")
    groups: tuple[int, ...] = ()
    if group_text:
        gid = _resolve_group(group_text)
    elif found:
        groups = _groups_of(found[0])
    return Identity(uid, gid, groups, home or "/")


def _root() -> Identity:
    # The common case without reading a file: uid 0 and /root, unless the image says otherwise.
    found = next((row for row in read_table("/etc/passwd") if len(row) >= 6 and row[2] == "0"), None)
    return Identity(0, 0, (), found[5] if found and found[5] else "/root" if os.path.isdir("/root") else "/")


def _group_rows() -> list[list[str]]:
    return [row for row in read_table("/etc/group") if len(row) >= 4 and row[2].isdigit()]


def _resolve_group(group: str) -> int:
    found = next((int(row[2]) for row in _group_rows() if group in (row[0], row[2])), None)
    if found is None and not group.isdigit():
        raise LookupError(f"group {group!r} is not in the container's /etc/group")
    return int(group) if found is None else found


def _groups_of(name: str) -> tuple[int, ...]:
    return tuple(int(row[2]) for row in _group_rows() if name in row[3].split(","))

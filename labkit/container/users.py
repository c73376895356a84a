"""Who the program in a container is: ``uid:gid`` or names, looked up in the container's own /etc/passwd.

The files belong to an image, so they may be anything: a FIFO that never answers, a link out, a gigabyte. They are opened
as if the image's folder were the root (no link leads out of it), without blocking, and read only if they are
regular files of sensible size.

Leaves out: NSS, shadow groups.
See: passwd(5), group(5), OCI Image Specification, config.md ("User").
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass, replace

from labkit.linux.syscalls import open_in_root

__all__ = ["Identity", "resolve_user", "with_groups"]

_MOST_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Identity:
    """The ids to run with, and the home folder that goes with them."""

    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str


def read_table(roots: Sequence[str], path: str) -> list[list[str]]:
    """Return the colon-separated lines of ``path`` in the topmost of ``roots`` (layers, topmost first) that has it.

    Nothing is returned for what is missing, no regular file, or too large.
    """
    for root in roots:
        try:
            root_fd = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            fd = open_in_root(root_fd, path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return []  # a whiteout: this layer has removed the file of those below
            continue
        finally:
            os.close(root_fd)
        with open(fd, errors="replace") as file:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode) or status.st_size > _MOST_BYTES:
                return []
            return [line.split(":") for line in file.read(_MOST_BYTES).splitlines() if line]
    return []


def resolve_user(user: str, roots: Sequence[str]) -> Identity:
    """Return the identity that ``user`` names: ``1000``, ``1000:1000``, ``www-data``, ``www-data:tape``.

    A number without an entry in /etc/passwd is allowed (group 0, home ``/``); a name without one is not.
    Raises: LookupError naming what was not found.
    """
    user_text, _, group_text = user.partition(":")
    passwd = [
        row for row in read_table(roots, "/etc/passwd") if len(row) >= 6 and row[2].isdigit() and row[3].isdigit()
    ]
    found = next((row for row in passwd if (user_text or "0") in (row[0], row[2])), None)
    if found is None and user_text not in ("", "root") and not user_text.isdigit():
        raise LookupError(f"user {user_text!r} is not in the container's /etc/passwd")
    uid = int(found[2]) if found else int(user_text) if user_text.isdigit() else 0
    gid, home = (int(found[3]), found[5]) if found else (0, "/root" if uid == 0 else "/")
    if group_text:
        return Identity(uid, _resolve_group(group_text, roots), (), home or "/")
    # Root's own group list is left empty, as it has every right already.
    groups = _groups_of(found[0], roots) if found and uid != 0 else ()
    return Identity(uid, gid, groups, home or "/")


def with_groups(identity: Identity, groups: Sequence[str], roots: Sequence[str]) -> Identity:
    """Return ``identity`` with further groups, each a number or a name. Raises: LookupError naming one that is not there."""
    further = tuple(_resolve_group(group, roots) for group in groups)
    return replace(identity, groups=tuple(dict.fromkeys((*identity.groups, *further))))


def _group_rows(roots: Sequence[str]) -> list[list[str]]:
    return [row for row in read_table(roots, "/etc/group") if len(row) >= 4 and row[2].isdigit()]


def _resolve_group(group: str, roots: Sequence[str]) -> int:
    if group.isdigit():
        return int(group)
    found = next((int(row[2]) for row in _group_rows(roots) if row[0] == group), None)
    if found is None:
        raise LookupError(f"group {group!r} is not in the container's /etc/group")
    return found


def _groups_of(name: str, roots: Sequence[str]) -> tuple[int, ...]:
    return tuple(int(row[2]) for row in _group_rows(roots) if name in row[3].split(","))

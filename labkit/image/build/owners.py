"""Who files belong to inside an image, seen from outside: unpacked layers have the ids of the container's user namespace.

See: `labkit.image.confined` (who gives them these ids), user_namespaces(7).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from labkit.image.build.errors import BuildError
from labkit.image.build.items import Owner
from labkit.image.build.tree import Entry

if TYPE_CHECKING:
    from labkit.isolation.idmap import IdMapping, IdMaps

__all__ = ["named_owner", "owner_reader"]

_NOBODY = 65_534


def owner_reader() -> Callable[[Entry], Owner]:
    """Return a function that tells the owner of an entry of an unpacked layer as the image has it.

    Without a range of ids everything belongs to the user outside, and to root inside.
    """

    @lru_cache(maxsize=1)
    def maps() -> IdMaps:
        # Only when an owner is asked for: a step that comes from the cache has none.
        from labkit.image.confined import owners_here
        from labkit.isolation import idmap

        return idmap.user_maps()[0] if owners_here().kind == "user" else idmap.container_maps(idmap.own_maps())

    def owner_of(entry: Entry) -> Owner:
        return Owner(_inner(entry.status.st_uid, maps().uids), _inner(entry.status.st_gid, maps().gids))

    return owner_of


def _inner(outside: int, lines: Sequence[IdMapping]) -> int:
    for line in lines:
        if line.outside <= outside < line.outside + line.count:
            return line.inside + outside - line.outside
    return _NOBODY


def named_owner(chown: str, lowers: Sequence[Path], *, line: int) -> Owner:
    """Return the ids that ``--chown`` names, looked up in the image's own /etc/passwd and /etc/group.

    A number without a group has the same number as its group. Raises: BuildError for a name that is not there.
    """
    if not chown:
        return Owner()
    from labkit.container.users import resolve_user

    user, _, group = chown.partition(":")
    if user.isdigit() and not group:
        group = user
    try:
        found = resolve_user(f"{user}:{group}" if group else user, [os.fspath(folder) for folder in lowers])
    except LookupError as error:
        raise BuildError(
            f"unable to convert uid/gid chown string {chown!r} to host mapping: {error}.", line=line
        ) from error
    return Owner(found.uid, found.gid)

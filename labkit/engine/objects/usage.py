"""What a container uses, read from its cgroup's files by path: the group itself belongs to the keeper.

See: `labkit.isolation.cgroups.stats`, cgroups(7).
"""

from __future__ import annotations

from collections.abc import Mapping

from labkit.isolation.cgroups import Stats, v1, v2

__all__ = ["read_folders"]


def read_folders(folders: Mapping[str, str]) -> Stats:
    """Return the counters of a group with these folders by controller, v1, v2 or both; empty ones for a group that is gone."""
    unified = folders.get("unified")
    old = {name: folder for name, folder in folders.items() if folder != unified}
    try:
        if unified is None:
            return v1.read_stats(old)
        names = [name for name, folder in folders.items() if folder == unified and name != "unified"]
        counted = v2.read_stats(unified, names)
        return v1.read_stats(old).completed_by(counted) if old else counted
    except OSError:
        return Stats()

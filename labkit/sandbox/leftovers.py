"""What a killed server's sandboxes leave in cgroup v1 hierarchies that labkit otherwise does not use: empty groups.

Everything else of a sandbox ends with its processes, or is found by `labkit.container.leftovers`. As there, a lock tells
whose a group is: the server holds one on each, and Linux drops it when the server ends.

See: `labkit.sandbox.subtree`; flock(2).
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from labkit.linux.fds import Fd
from labkit.sandbox.subtree import PREFIX, other_hierarchies

__all__ = ["find_sandbox_leftovers", "remove_sandbox_leftovers"]


def find_sandbox_leftovers() -> list[Path]:
    """Return the empty groups whose server is gone."""
    found = []
    for folder in dict.fromkeys(folder for mount, own in other_hierarchies() for folder in (mount, own)):
        try:
            with os.scandir(folder) as entries:
                names = [entry.path for entry in entries if entry.name.startswith(PREFIX)]
        except OSError:
            continue
        found += [Path(path) for path in sorted(names) if _is_dead(path)]
    return found


def _is_dead(path: str) -> bool:
    try:
        with Fd(os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)) as folder:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return os.access(os.path.dirname(path), os.W_OK)
    except OSError:
        return False  # held by somebody, or removed meanwhile


def remove_sandbox_leftovers() -> None:
    """Remove them; one that still has processes stays, as they are somebody's."""
    for path in find_sandbox_leftovers():
        for folder in sorted(path.rglob("*/"), reverse=True):
            _remove(folder)
        _remove(path)


def _remove(folder: Path) -> None:
    try:
        folder.rmdir()
    except OSError:
        return  # in use, or gone

"""Cgroups that a program left behind because it was killed: found by their name, judged by their lock.

Each program holds a shared flock(2) on its folders (`parent`), and the kernel drops it when the program ends, however it
ends. So a folder called ``labkit-*`` whose exclusive lock can be had belongs to nobody any more.

See: flock(2), cgroups(7).
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from labkit.isolation.cgroups import delegation, files
from labkit.isolation.cgroups.layout import Layout, read_layout
from labkit.isolation.cgroups.places import find_places
from labkit.isolation.cgroups.tree import LEAF_NAME, PREFIX, remove_tree
from labkit.linux.fds import Fd

__all__ = ["find_leftovers", "remove_leftovers"]


def remove_leftovers(is_alive: Callable[[str], bool] | None = None) -> list[Path]:
    """Remove what `find_leftovers` finds, killing what runs in it, and undo what its owners changed above it.

    Raises: ExceptionGroup of the folders that could not be removed.
    """
    removed: list[Path] = []
    errors: list[Exception] = []
    for folder in find_leftovers(is_alive):
        try:
            # Locked while it is removed: a program that is just making it waits, sees it gone and makes it again.
            with Fd(os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)) as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                remove_tree(folder)
            removed.append(folder)
        except (FileNotFoundError, BlockingIOError):
            continue  # somebody else was faster
        except (OSError, TimeoutError) as error:
            errors.append(error)
    for base in find_places(read_layout()).bases.values() if removed else ():
        if base.hierarchy.version == 2 and base.controllers:
            try:
                delegation.restore(base, None)
            except OSError as error:
                errors.append(error)
    if errors:
        raise ExceptionGroup("Some cgroups of labkit could not be removed.", errors)
    return removed


def find_leftovers(is_alive: Callable[[str], bool] | None = None, *, layout: Layout | None = None) -> list[Path]:
    """Return labkit's groups whose owner is gone, in every hierarchy, outermost only.

    ``is_alive`` is asked with a folder's name; without it a group counts as left over when nobody holds its lock: the program
    that makes one keeps a shared flock(2) on the folder, which the kernel drops when the program ends, however it ends.
    Root finds everybody's, others find their own.
    """
    found = []
    layout = layout or read_layout()
    # Freezer first: a frozen process has to be thawed before it can die in the other hierarchies.
    for hierarchy in sorted((*layout.hierarchies, *layout.others), key=lambda h: "freezer" not in h.controllers):
        # What is inside a folder of labkit's is its owner's business, except below this process's own group: there it
        # is a program in a container, say, that cleans up after itself.
        tops = (
            {hierarchy.mount}
            if hierarchy.own is None
            else {hierarchy.mount, hierarchy.own.removesuffix("/" + LEAF_NAME)}
        )
        folders = {path for top in tops for path in _labkit_folders(top)}
        for path in sorted(folders):
            if _is_ours(path) and not _holds(path, hierarchy.own) and not _alive(path, is_alive):
                found.append(Path(path))
    return found


def _labkit_folders(top: str) -> Iterator[str]:
    """Yield the outermost folders with labkit's prefix below ``top``."""
    waiting = [top]
    while waiting:
        try:
            with os.scandir(waiting.pop()) as entries:
                folders = [(entry.name, entry.path) for entry in entries if entry.is_dir(follow_symlinks=False)]
        except (FileNotFoundError, PermissionError):
            continue
        for name, path in folders:
            if name.startswith(PREFIX):
                yield path
            else:
                waiting.append(path)


def _is_ours(path: str) -> bool:
    try:
        owner = os.stat(path).st_uid
    except FileNotFoundError:
        return False
    # The second test is for "root" of a user namespace, who cannot remove what others made.
    return os.geteuid() in (0, owner) and os.access(os.path.dirname(path), os.W_OK)


def _holds(path: str, own: str | None) -> bool:
    """Tell whether this process itself lives in ``path``: then removing it would be suicide."""
    return own is not None and (own + "/").startswith(path + "/")


def _alive(path: str, is_alive: Callable[[str], bool] | None) -> bool:
    name = os.path.basename(path)
    if name == LEAF_NAME:  # holds other people's processes, who did not ask to be killed
        return bool(files.read_pids(f"{path}/cgroup.procs"))
    return is_alive(name) if is_alive is not None else _is_locked(path)


def _is_locked(path: str) -> bool:
    try:
        with Fd(os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)) as folder:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        return True  # removed meanwhile: nothing is left over
    return False

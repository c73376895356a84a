"""What labkit changes in a v2 group above its own folder so that it may give controllers away, and how it is undone.

::

    delegated/            cgroup.subtree_control: (empty)      delegated/            cgroup.subtree_control: cpu memory pids
      your shell                                        ->       labkit-leaf/        your shell
      your Python                                                                    your Python
                                                                 labkit-4f1c/        cgroup.subtree_control: cpu memory pids
                                                                   labkit-1/         the first container

A group that is not the root of the tree can enable controllers only while no process is in it, so its processes move into
``labkit-leaf``; when the last program of labkit's ends, they move back and the leaf goes. At the root nothing has to
move; there the controllers that labkit enabled are disabled again, unless other groups live there, which may
rely on them by now. Programs that share a group change it one after another, under a flock(2) on its ``cgroup.subtree_control``.

See: cgroups(7), "No internal processes"; flock(2).
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterable

from labkit.errors import FeatureMissing
from labkit.isolation.cgroups import files, v2
from labkit.isolation.cgroups.places import DELEGATE_REMEDY, Base
from labkit.isolation.cgroups.tree import LEAF_NAME, PREFIX
from labkit.linux.fds import Fd

__all__ = ["give_controllers", "restore"]

_MAX_PASSES = 100


def give_controllers(base: Base, controllers: Iterable[str]) -> set[str]:
    """Enable ``controllers`` for the groups below ``base``; return those that were not enabled before.

    Raises: FeatureMissing with the kernel's reason.
    """
    wanted = set(controllers)
    try:
        with _locked(base.folder):
            if base.needs_leaf:
                _move_processes(base.folder, f"{base.folder}/{LEAF_NAME}")
            return set(v2.enable_controllers(base.folder, wanted))
    except OSError as error:
        names = ", ".join(sorted(wanted))
        why = f"The controllers {names} cannot be enabled in {base.folder} ({error.strerror})"
        if error.errno == errno.EBUSY:
            why += ": processes are in that group, and only a group without any can give controllers to others"
        raise FeatureMissing(f"{why}.", remedy=DELEGATE_REMEDY) from error


def restore(base: Base, controllers: Iterable[str] | None) -> None:
    """Undo `give_controllers`, unless another program of labkit's still needs it or, at the root, other groups are there.

    ``controllers`` are those that the caller enabled; None stands for all, for a caller that cleans up after others.
    Raises: OSError.
    """
    with _locked(base.folder):
        with os.scandir(base.folder) as entries:
            others = {entry.name for entry in entries if entry.is_dir(follow_symlinks=False)} - {LEAF_NAME}
        if any(name.startswith(PREFIX) for name in others) or (others and not base.needs_leaf):
            return
        path = f"{base.folder}/cgroup.subtree_control"
        enabled = set(files.read_text(path).split())
        # A group that has needed a leaf could not have enabled anything before: all of it is labkit's.
        ours = enabled if base.needs_leaf or controllers is None else enabled.intersection(controllers)
        if ours:
            files.write_text(path, " ".join(f"-{name}" for name in sorted(ours)))
        leaf = f"{base.folder}/{LEAF_NAME}"
        if base.needs_leaf and os.path.isdir(leaf):
            _move_processes(leaf, base.folder)
            os.rmdir(leaf)


def _locked(folder: str) -> Fd:
    # Not the folder itself: whoever made it may hold a lock on it, for as long as it is in use (`parent`), which is for as long as we run.
    lock = Fd(os.open(f"{folder}/cgroup.subtree_control", os.O_RDONLY | os.O_CLOEXEC))
    fcntl.flock(lock, fcntl.LOCK_EX)
    return lock


def _move_processes(source: str, target: str) -> None:
    """Move every process of ``source`` to ``target``, making it if need be; what is forked meanwhile, too."""
    for _ in range(_MAX_PASSES):
        # 0 stands for a process outside the own PID namespace: it cannot be named, so it stays, and the kernel says EBUSY.
        pids = [pid for pid in files.read_pids(f"{source}/cgroup.procs") if pid]
        if not pids:
            return
        if not os.path.isdir(target):
            os.mkdir(target, 0o755)
        for pid in pids:
            try:
                files.write_text(f"{target}/cgroup.procs", str(pid))
            except ProcessLookupError:
                continue

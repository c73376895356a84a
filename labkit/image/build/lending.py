"""What a RUN is lent while it runs, as mounts of its container: caches, files of the context or of other stages, memory.

A cache is a folder of the store that belongs to the container's root and stays from build to build. Files of the context
are copied into the build's scratch folder first, so that .dockerignore holds for them, no link leads out, and a command may write to them.

See: dockerfile(5), "RUN --mount"; `labkit.image.build.mounts`.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from labkit.container.spec import MountSpec
from labkit.image.build.cache import cache_folder
from labkit.image.build.copying import Selected
from labkit.image.build.errors import BuildError
from labkit.image.build.job import Job
from labkit.image.build.mounts import RunMount
from labkit.image.build.tree import Entry
from labkit.image.confined import owners_here
from labkit.linux.fds import Fd

__all__ = ["mount_specs"]

#: What a program needs to find other machines; lent only together with the network.
_NAME_FILES = ("/etc/resolv.conf", "/etc/hosts")


def mount_specs(
    job: Job, mounts: Sequence[RunMount], shared: Mapping[RunMount, Selected], scratch: Path, stack: ExitStack, *,
    script: bytes | None, network: str,
) -> list[MountSpec]:  # fmt: skip
    """Return the mounts of one command; what they show lies below ``scratch`` or in the store's cache.

    A cache that is locked is held until ``stack`` is closed. Raises: BuildError for an owner that this user cannot give.
    """
    specs = []
    if network == "host":
        specs += [MountSpec("bind", path, path, ("ro",)) for path in _NAME_FILES if os.path.isfile(path)]
    for number, mount in enumerate(mounts):
        if mount.kind == "tmpfs":
            size = (f"size={mount.size_bytes}",) if mount.size_bytes is not None else ()
            specs.append(MountSpec("tmpfs", mount.target, options=size))
        elif mount.kind == "cache":
            folder = _cache(job, mount)
            if mount.locked:
                fcntl.flock(stack.enter_context(Fd(os.open(folder, os.O_RDONLY | os.O_CLOEXEC))), fcntl.LOCK_EX)
            specs.append(MountSpec("bind", mount.target, str(folder), ("ro",) if mount.readonly else ()))
        else:
            source = _copy_out(shared[mount], scratch / f"bind-{number}")
            specs.append(MountSpec("bind", mount.target, str(source), () if mount.writable else ("ro",)))
    if script is not None:
        path = scratch / "script"
        path.write_bytes(script)
        path.chmod(0o755)
        specs.append(MountSpec("bind", "/dev/pipes/script", str(path), ("ro",)))
    return specs


def _cache(job: Job, mount: RunMount) -> Path:
    """Return the folder of a cache mount, made for the container's root or for whom the mount names."""
    parent = cache_folder(job.store) / "mounts"
    parent.mkdir(mode=0o711, exist_ok=True)
    folder = parent / mount.folder_name
    if folder.is_dir():
        return folder
    owners = owners_here()
    if (mount.uid, mount.gid) != (0, 0) and owners.kind == "user":
        raise BuildError(
            f"--mount=type=cache,target={mount.target}: only root can give a cache to user {mount.uid}:{mount.gid};"
            " leave uid and gid out, or run as root."
        )
    folder.mkdir(mode=0o711, exist_ok=True)
    if owners.kind != "user":
        os.chown(folder, owners.root_uid + mount.uid, owners.root_gid + mount.gid)
    folder.chmod(mount.mode)
    return folder


def _copy_out(selected: Selected, target: Path) -> Path:
    """Copy what was selected to ``target``, for the container's root, and return what to mount; it is thrown away in the end."""
    entry = selected.entries[0]
    _copy_one(entry, target)
    if entry.is_folder:
        for relative, inner in selected.below(entry):
            _copy_one(inner, target / relative)
    return target


def _copy_one(entry: Entry, path: Path) -> None:
    if entry.is_folder:
        path.mkdir(mode=0o755, parents=True, exist_ok=True)
    elif entry.is_link:
        path.symlink_to(entry.target)
    elif entry.is_file:
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        with entry.open() as source, path.open("xb") as file:
            shutil.copyfileobj(source, file)
        path.chmod(entry.mode & 0o777 | 0o444)  # never set-uid: for a moment the copy belongs to the user that builds
    owners = owners_here()
    if owners.kind == "mapped":
        os.chown(path, owners.root_uid, owners.root_gid, follow_symlinks=False)

"""The child of `labkit.image.confined`: takes on the container's ids, locks itself into one folder, and does one task there.

Everything is imported before the chroot: afterwards there is no Python to import from. It is little, because a child is started for each
layer, and loading code takes longer than a small layer does.

See: user_namespaces(7), chroot(2), setresuid(2).
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from labkit.errors import ImageError
from labkit.image import extract, treewalk
from labkit.linux.constants import NS, FsConfigCmd
from labkit.linux.syscalls import fsconfig, fsmount, fsopen, unshare

__all__ = ["main"]


def main(request_text: str) -> None:
    """Carry out the request and report. The exit status says nothing; the report does."""
    request = json.loads(request_text)
    control_fd, folder_fd, stream_fd, *others = request["fds"]
    try:
        merges = request["task"] == "pack" and bool(others)
        lower_fds = _take_ids(request["owners"], control_fd, others if merges else [])
        os.fchdir(_merged(lower_fds) if merges else folder_fd)
        os.chroot(".")
        os.umask(0)
    except OSError as error:
        _report(control_fd, {"refused": error.strerror or str(error)})
        return
    _report(control_fd, {})
    _report(control_fd, _carry_out(request["task"], request["options"], stream_fd, others))
    # Nothing is left to tidy up, and an interpreter that shuts down takes its time.
    sys.stderr.flush()
    os._exit(0)


def _take_ids(kind: str, control_fd: int, lower_fds: list[int]) -> list[int]:
    """Become root of the container's ids; return ``lower_fds``, opened anew in a mount namespace where they can be mounted."""
    new = NS.MNT if lower_fds else NS(0)
    if kind == "user":
        from labkit.container.resident import become_namespace_root

        become_namespace_root()
        return _reopened(lower_fds)
    if kind == "same":
        unshare(new)
        return _reopened(lower_fds)
    unshare(NS.USER | new)
    lower_fds = _reopened(lower_fds)  # while we still are who owns the folders above
    os.write(control_fd, b"{}")
    if os.read(control_fd, 2) != b"go":
        raise OSError(0, "the program has ended")
    os.setgroups([])
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    return lower_fds


def _reopened(folder_fds: list[int]) -> list[int]:
    """A descriptor belongs to the mount namespace that it was opened in, and OverlayFS takes folders of its own only."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    return [os.open(os.readlink(f"/proc/self/fd/{fd}"), flags) for fd in folder_fds]


def _merged(lower_fds: list[int]) -> int:
    """Return a folder that shows all of ``lower_fds`` (topmost first): an overlay that is mounted nowhere else."""
    if len(lower_fds) == 1:
        return lower_fds[0]  # OverlayFS wants two at least
    fs_fd = fsopen("overlay")
    fsconfig(fs_fd, FsConfigCmd.SET_STRING, "lowerdir", ":".join(f"/proc/self/fd/{fd}" for fd in lower_fds))
    fsconfig(fs_fd, FsConfigCmd.SET_FLAG, "userxattr")
    fsconfig(fs_fd, FsConfigCmd.CREATE)
    return fsmount(fs_fd)


def _carry_out(task: str, options: dict[str, Any], stream_fd: int, others: list[int]) -> dict[str, Any]:
    at = ""
    try:
        if task == "unpack":
            extractor = extract.Extractor(stream_fd, others, options)
            try:
                return extractor.run()
            finally:
                at = extractor.reader.current
        if task == "pack":
            return treewalk.pack(stream_fd, options)
        return treewalk.remove_all()
    except ImageError as error:
        return {"error": str(error), "at": at}
    except OSError as error:
        return {"error": f"The files of an image could not be handled ({task}): {error.strerror}.", "at": at}


def _report(control_fd: int, report: dict[str, Any]) -> None:
    try:
        os.write(control_fd, json.dumps(report).encode())
    except BrokenPipeError:
        os._exit(1)  # the program has ended

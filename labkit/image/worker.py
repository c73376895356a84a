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
from labkit.linux.constants import NS, MountFlag
from labkit.linux.syscalls import mount, unshare

__all__ = ["main"]


def main(request_text: str) -> None:
    """Carry out the request and report. The exit status says nothing; the report does."""
    request = json.loads(request_text)
    control_fd, folder_fd, stream_fd, *others = request["fds"]
    try:
        merges = request["task"] == "pack" and bool(others)
        own_fds = _take_ids(request["owners"], control_fd, [folder_fd, *others] if merges else [])
        os.fchdir(_merged(own_fds[0], own_fds[1:]) if merges else folder_fd)
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


def _take_ids(kind: str, control_fd: int, folder_fds: list[int]) -> list[int]:
    """Become root of the container's ids; return ``folder_fds``, opened anew in a mount namespace where they can be mounted."""
    new = NS.MNT if folder_fds else NS(0)
    if kind == "user":
        from labkit.container.resident import become_namespace_root

        become_namespace_root()
        return _reopened(folder_fds)
    if kind == "same":
        unshare(new)
        return _reopened(folder_fds)
    unshare(NS.USER | new)
    folder_fds = _reopened(folder_fds)  # while we still are who owns the folders above
    os.write(control_fd, b"{}")
    if os.read(control_fd, 2) != b"go":
        raise OSError(0, "the program has ended")
    os.setgroups([])
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    return folder_fds


def _reopened(folder_fds: list[int]) -> list[int]:
    """A descriptor belongs to the mount namespace that it was opened in, and OverlayFS takes folders of its own only."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    return [os.open(os.readlink(f"/proc/self/fd/{fd}"), flags) for fd in folder_fds]


def _merged(scratch_fd: int, lower_fds: list[int]) -> int:
    """Return a folder that shows all of ``lower_fds`` (topmost first), by an overlay that only this process sees."""
    if len(lower_fds) == 1:
        return lower_fds[0]  # OverlayFS wants two at least
    # By numbers in /proc, past folders that the container's root may not enter; and short, as the options must fit into a page.
    os.chdir("/proc/self/fd")
    target = f"{scratch_fd}/merged"
    options = "lowerdir=" + ":".join(map(str, lower_fds)) + ",userxattr"
    mount("labkit-overlay", target, "overlay", MountFlag.RDONLY, options)
    return os.open(target, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


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

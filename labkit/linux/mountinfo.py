"""The mounts of a mount namespace, as ``/proc/PID/mountinfo`` lists them.

A mount shows a file system, or a part of it, at a place in the tree; it may cover an older mount at the same place.
Blanks, tabs, newlines and backslashes in names come as octal escapes (``\\040``): a blank always parts two fields.

Leaves out: statmount(2) and listmount(2), which newer kernels offer beside the text.
See: proc_pid_mountinfo(5), mount_namespaces(7).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from labkit.linux.proc import Pid, read_text

__all__ = ["Mount", "parse_mountinfo", "read_mountinfo", "unescape"]

_OCTAL = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True, slots=True)
class Mount:
    """One line of mountinfo: ``root`` of a file system (or of a part of it) is seen at ``mount_point``.

    ``propagation`` holds the optional fields, such as ``shared:1`` or ``master:2``; none means private.
    """

    mount_id: int
    parent_id: int
    device: str
    root: str
    mount_point: str
    options: tuple[str, ...]
    propagation: tuple[str, ...]
    fstype: str
    source: str
    super_options: tuple[str, ...]


def parse_mountinfo(text: str) -> tuple[Mount, ...]:
    """Return the mounts in the order they were made; where two have one mount point, the later covers the earlier."""
    return tuple(_parse_mount(line) for line in text.split("\n") if line)


def read_mountinfo(pid: Pid = "self") -> tuple[Mount, ...]:
    """Return the mounts in the mount namespace of ``pid``. Raises: OSError (EACCES for another user's process)."""
    return parse_mountinfo(read_text(f"/proc/{pid}/mountinfo"))


def unescape(text: str) -> str:
    """Undo the octal escapes (``\\040`` for a blank) with which the kernel keeps fields apart."""
    return _OCTAL.sub(lambda match: chr(int(match.group(1), 8)), text)


def _parse_mount(line: str) -> Mount:
    # Optional fields end at a lone hyphen; nothing before it can be one, nothing after it is optional.
    before, _, after = line.partition(" - ")
    mount_id, parent_id, device, root, mount_point, options, *propagation = before.split(" ")
    fstype, source, super_options = after.split(" ", 2)
    return Mount(
        int(mount_id), int(parent_id), device, unescape(root), unescape(mount_point), tuple(options.split(",")),
        tuple(propagation), unescape(fstype), unescape(source), tuple(super_options.split(",")),
    )  # fmt: skip


def main() -> int:
    """Print the mounts of this process's mount namespace, as findmnt(8) does."""
    for mount in read_mountinfo():
        print(
            f"{mount.mount_point:<40} {mount.fstype:<10} {','.join(mount.options):<40} {' '.join(mount.propagation) or 'private'}"
        )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

"""The disk under a path, as cgroup io limits name it: ``MAJOR:MINOR`` of a whole disk.

The kernel limits disks, not partitions, and knows nothing of file systems here: a path on tmpfs, overlay or btrfs
has no single disk under it.

See: sysfs(5), Documentation/ABI/testing/sysfs-block in the kernel's source.
"""

from __future__ import annotations

import os

from labkit.errors import FeatureMissing, InvalidSpec
from labkit.isolation.cgroups import files

__all__ = ["disk_of"]


def disk_of(path: str) -> str:
    """Return ``MAJOR:MINOR`` of the disk that holds ``path``.

    Raises: InvalidSpec if there is no such path, FeatureMissing if its file system is on no single disk.
    """
    try:
        number = os.stat(path).st_dev
    except OSError as error:
        raise InvalidSpec(f"io_path {path!r} cannot be looked at ({error.strerror}).") from error
    name = f"{os.major(number)}:{os.minor(number)}"
    sysfs = f"/sys/dev/block/{name}"
    if not os.path.isdir(sysfs):
        raise FeatureMissing(
            f"{path} is on no disk (device {name}).", remedy="Name an io_path on a disk, such as /var/tmp."
        )
    if os.path.exists(f"{sysfs}/partition"):
        return files.read_text(os.path.realpath(sysfs) + "/../dev").strip()
    return name

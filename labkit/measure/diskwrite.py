"""How long a direct write takes in a cgroup: what a limit in bytes a second does to it.

A *direct* write (O_DIRECT) goes to the disk at once, in the name of the process that asks. An ordinary one goes to the page cache and is
written later by the kernel, which cgroup v1 charges to nobody: so only direct writes show a limit on both versions.

Leaves out: reads; queue depths; several writers.
See: open(2) (O_DIRECT), Documentation/admin-guide/cgroup-v1/blkio-controller.rst.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from labkit.errors import FeatureMissing
from labkit.isolation.cgroups import Cgroup, Limits
from labkit.units import MiB

__all__ = ["seconds_to_write"]

_PLACES = ("/var/tmp", "/tmp", str(Path.home()))
_TIMEOUT_S = 60.0


def seconds_to_write(size_bytes: int, limits: Limits) -> float:
    """Write ``size_bytes`` past the page cache, in a group of its own with ``limits``; return how many seconds it took.

    The writer waits until it is in the group, so that no byte is written outside. Raises: FeatureMissing where no
    folder on the root's disk can be written to, or the group cannot be made.
    """
    with tempfile.TemporaryDirectory(prefix="labkit-", dir=_folder_on_disk()) as folder:
        block_bytes = min(size_bytes, MiB // 4)
        write = f"dd if=/dev/zero of={folder}/file bs={block_bytes} count={size_bytes // block_bytes} oflag=direct"
        command = ["sh", "-c", f"read go; exec {write}"]
        group = Cgroup.create(limits=replace(limits, io_path=folder), controllers=["io"])
        with group, subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL) as writer:
            group.attach(writer.pid)
            begun_s = time.monotonic()
            writer.communicate(b"go\n", timeout=_TIMEOUT_S)
            return time.monotonic() - begun_s


def _folder_on_disk() -> str:
    """Return a writable folder on the file system of ``/``, whose disk the doctor has tried."""
    root = os.stat("/").st_dev
    for place in _PLACES:
        if os.access(place, os.W_OK) and os.stat(place).st_dev == root:
            return place
    raise FeatureMissing("No writable folder lies on the disk of the root file system here.")

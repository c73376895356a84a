"""The root filesystem that experiments run on: one static busybox and the names it answers to.

All contenders of a race and all containers of a crowd run the same ``/bin/true`` on the same files, so that what differs is how
they were started. A static program needs no loader and no library: the tree is one file of two megabytes and some symbolic
links.

Leaves out: the base images of the lessons about images, which are built from recipes.
See: busybox(1), ld.so(8) (what a static program does without).
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from labkit.errors import FeatureMissing
from labkit.measure.scratch import scratch_folder
from labkit.setup.parts import find_busybox

__all__ = ["APPLETS", "busybox_rootfs", "fill_rootfs"]

#: The programs that busybox plays, of those that experiments and exercises use.
APPLETS = (
    "cat", "chmod", "chroot", "date", "dd", "echo", "env", "false", "find", "grep", "head", "hostname", "id", "ip", "kill",
    "ln", "ls", "mkdir", "mount", "mv", "nproc", "ps", "pwd", "rm", "seq", "sh", "sleep", "stat", "tail", "tee", "test",
    "touch", "true", "umount", "uname", "vi", "wc", "yes",
)  # fmt: skip
#: Folders that a container finds; those that others mount on must exist, as crun and bwrap make none.
_FOLDERS = ("bin", "dev", "etc", "proc", "root", "run", "sys", "tmp", "usr", "var")


def fill_rootfs(folder: Path) -> None:
    """Put busybox, its links, and a minimal /etc into ``folder``. Raises: FeatureMissing without a static busybox."""
    busybox = find_busybox()
    if busybox is None:
        raise FeatureMissing(
            "There is no static busybox on this machine.", remedy="Run `labkit setup`, or install the package busybox-static."
        )  # fmt: skip
    for name in _FOLDERS:
        (folder / name).mkdir(mode=0o755, exist_ok=True)
    (folder / "tmp").chmod(0o1777)
    shutil.copy(busybox, folder / "bin/busybox")
    (folder / "bin/busybox").chmod(0o755)
    for name in APPLETS:
        (folder / "bin" / name).symlink_to("busybox")
    (folder / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n")
    (folder / "etc/group").write_text("root:x:0:\nnobody:x:65534:\n")


@contextmanager
def busybox_rootfs() -> Iterator[Path]:
    """Give a filled root filesystem in a temporary folder, and remove it at the end.

    Raises: FeatureMissing without a static busybox.
    """
    with scratch_folder() as folder:
        fill_rootfs(folder)
        yield folder

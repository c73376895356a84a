"""A root filesystem to run things in, made from the machine's static busybox."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

_APPLETS = ("cat", "echo", "env", "false", "grep", "hostname", "id", "kill", "ls", "mkdir", "mount", "ps", "pwd", "rm",
            "sh", "sleep", "stat", "stty", "test", "touch", "true", "tty", "umask", "unshare", "wc")  # fmt: skip


@pytest.fixture(scope="session")
def rootfs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with /bin/busybox, its names, and the users root and student."""
    busybox = shutil.which("busybox")
    if busybox is None:
        pytest.skip("busybox is not installed")
    folder = tmp_path_factory.mktemp("rootfs")
    (folder / "bin").mkdir()
    shutil.copy(busybox, folder / "bin/busybox")
    for applet in _APPLETS:
        (folder / "bin" / applet).symlink_to("busybox")
    (folder / "etc").mkdir()
    (folder / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\nstudent:x:1000:1000::/home/student:/bin/sh\n")
    (folder / "etc/group").write_text("root:x:0:\nstudent:x:1000:\nlab:x:2000:student\n")
    (folder / "marker").write_text("from the lower layer\n")
    folder.chmod(0o755)
    yield folder

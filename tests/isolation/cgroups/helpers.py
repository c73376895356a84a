"""Processes with bounded appetites that start inside a group, and files read by another program than labkit."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from labkit.isolation.cgroups import Cgroup

__all__ = ["BURN", "SLEEP", "cat", "favour", "folders_named", "running", "wait_until"]

#: Joins through the descriptors as a container's first process does, then runs the code in argv.
_JOIN = """
import os, sys
v2_fd, task_fds, code = int(sys.argv[1]), sys.argv[2], sys.argv[3]
for fd in filter(None, task_fds.split(",")):
    os.write(int(fd), b"0")
if v2_fd >= 0:
    fd = os.open("cgroup.procs", os.O_WRONLY, dir_fd=v2_fd)
    os.write(fd, b"0")
    os.close(fd)
print("in", flush=True)
exec(code)
"""
BURN = "import time\nend = time.monotonic() + 20\nwhile time.monotonic() < end: pass"
SLEEP = "import time\ntime.sleep(20)"


@contextmanager
def running(group: Cgroup, code: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run ``code`` in ``group`` from its first line on; on leaving it is killed and collected."""
    with group.join_fds() as join:
        command = [sys.executable, "-I", "-S", "-c", _JOIN, str(join.v2_fd), ",".join(map(str, join.task_fds)), code]
        child = subprocess.Popen(
            command, pass_fds=join.numbers, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
    with child:
        try:
            assert child.stdout is not None
            assert child.stdout.readline() == b"in\n"
            yield child
        finally:
            child.kill()


def favour(group: Cgroup) -> None:
    """Let this program's groups go before everybody else's processes: a test of shares must not depend on the others."""
    above = group.folders["cpu"].parent
    if (above / "cpu.shares").exists():
        (above / "cpu.shares").write_text("200000")
    else:
        (above / "cpu.weight").write_text("10000")


def cat(path: Path | str) -> str:
    """Return what cat(1) reads."""
    return subprocess.run(["cat", str(path)], check=True, capture_output=True, text=True).stdout.strip()


def folders_named(name: str) -> list[str]:
    """Return the folders below /sys/fs/cgroup called ``name``, as find(1) sees them."""
    found = subprocess.run(
        ["find", "/sys/fs/cgroup", "-name", name, "-type", "d"], check=False, capture_output=True, text=True
    )
    return found.stdout.split()


def wait_until(condition: Callable[[], bool], *, timeout_s: float = 10.0) -> None:
    """Return as soon as ``condition`` holds; fail the test when it does not in time."""
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s, "it did not happen in time"
        time.sleep(0.005)

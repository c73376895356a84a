"""Leftovers: what a student's programs leave running or lying about when the kernel ends, in the sandbox and outside it.

Each is tried with an ordinary kernel's end first: there a daemon lives on, and the folder stays.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import KernelManager

from labkit.sandbox.server_folder import CourseFolder
from tests.attacks.harness import wait_until
from tests.attacks.kernels import SandboxedKernel, requires_sandbox
from tests.support import PROJECT

pytestmark = [requires_sandbox, pytest.mark.timeout(300)]

#: The name of each is the mark by which the host finds it; %s is replaced by it.
DAEMON = """
import ctypes, os, signal
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        {more}
        ctypes.CDLL(None).prctl(15, b"{mark}", 0, 0, 0)
        for fd in range(3): os.close(fd)
        while True: signal.pause()
    os._exit(0)
os.wait()
"""
IGNORING = "[signal.signal(n, signal.SIG_IGN) for n in range(1, 65) if n not in (9, 19, 32, 33)]"
TRICKS = {
    "forks twice and leaves its session": "pass",
    "ignores every signal": IGNORING,
    "stops itself": "ctypes.CDLL(None).prctl(15, b'{mark}', 0, 0, 0); os.kill(os.getpid(), signal.SIGSTOP)",
    "has a PID namespace of its own": "ctypes.CDLL(None).unshare(0x20000000); os.fork() and os._exit(0)",
    "has a user and a PID namespace of its own": "ctypes.CDLL(None).unshare(0x30000000); os.fork() and os._exit(0)",
    "moves into a cgroup of its own": "[os.makedirs(f'/sys/fs/cgroup/{{n}}/labkit-hide', exist_ok=True) or "
    "open(f'/sys/fs/cgroup/{{n}}/labkit-hide/cgroup.procs', 'w').write('0') for n in ('pids', 'memory', 'freezer') "
    "if os.access(f'/sys/fs/cgroup/{{n}}', os.W_OK)]",
    "is frozen by a cgroup": "[os.makedirs('/sys/fs/cgroup/freezer/labkit-ice', exist_ok=True), "
    "open('/sys/fs/cgroup/freezer/labkit-ice/cgroup.procs', 'w').write('0'), ctypes.CDLL(None).prctl(15, b'{mark}', 0, 0, 0), "
    "open('/sys/fs/cgroup/freezer/labkit-ice/freezer.state', 'w').write('FROZEN')] "
    "if os.access('/sys/fs/cgroup/freezer/cgroup.procs', os.W_OK) else 0",
    "starts a child as soon as one ends": "os.fork() or [os.waitpid(-1, 0) or 0 for _ in iter(os.fork, 0)]",
}


def daemon(trick: str, mark: str) -> str:
    """Return the program."""
    return DAEMON.format(mark=mark, more=TRICKS[trick].format(mark=mark))


def marked(mark: str) -> list[int]:
    """Return the processes of the host that bear the mark."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (folder / "comm").read_text().strip() == mark:
                found.append(int(folder.name))
    return found


@pytest.fixture
def mark() -> Iterator[str]:
    """A name for processes; what bears it in the end is killed."""
    name = f"lk{secrets.token_hex(6)}"
    yield name
    for pid in marked(name):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            os.kill(pid, signal.SIGCONT)


def test_without_the_sandbox_a_daemon_outlives_its_kernel(mark: str) -> None:
    spec = KernelSpec(
        argv=[sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"],
        display_name="x",
        language="python",
    )
    manager = KernelManager(kernel_name="python3")
    manager._kernel_spec = spec
    manager.start_kernel()
    client = manager.blocking_client()
    client.start_channels()
    client.wait_for_ready(timeout=60)
    client.execute_interactive(daemon("ignores every signal", mark), timeout=30)
    assert wait_until(lambda: bool(marked(mark)))
    client.stop_channels()
    manager.shutdown_kernel(now=True)
    assert marked(mark), "an ordinary kernel's daemon should still be there"


def test_no_daemon_outlives_its_sandbox(tmp_path: Path) -> None:
    """All tricks in one sandbox, seen by the host before, and gone after."""
    marks = {trick: f"lk{secrets.token_hex(6)}" for trick in TRICKS}
    kernel = SandboxedKernel(tmp_path)
    try:
        for trick, mark in marks.items():
            program = daemon(trick, mark)
            kernel.run(f"import subprocess, sys; subprocess.run([sys.executable, '-c', {program!r}])")
        missing = [trick for trick, mark in marks.items() if not wait_until(lambda mark=mark: bool(marked(mark)))]  # type: ignore[misc]
        assert missing == [], "these never ran, so their end proves nothing"
    finally:
        kernel.close()
    left = [trick for trick, mark in marks.items() if not wait_until(lambda mark=mark: not marked(mark))]  # type: ignore[misc]
    assert left == []


def test_no_daemon_outlives_a_restart_or_a_killed_kernel(tmp_path: Path) -> None:
    first, second = (f"lk{secrets.token_hex(6)}" for _ in range(2))
    kernel = SandboxedKernel(tmp_path)
    try:
        kernel.run(
            f"import subprocess, sys; subprocess.run([sys.executable, '-c', {daemon('ignores every signal', first)!r}])"
        )
        assert wait_until(lambda: bool(marked(first)))
        kernel.restart()
        assert wait_until(lambda: not marked(first))
        kernel.run(
            f"import subprocess, sys; subprocess.run([sys.executable, '-c', {daemon('ignores every signal', second)!r}])"
        )
        os.kill(kernel.provisioner.pid, signal.SIGKILL)
        assert wait_until(lambda: not marked(second))
    finally:
        kernel.close()


SERVER = """
import sys, time
sys.path.insert(0, {project!r})
from pathlib import Path
from tests.attacks.kernels import SandboxedKernel
kernel = SandboxedKernel(Path({folder!r}))
for program in {programs!r}:
    kernel.run("import subprocess, sys; subprocess.run([sys.executable, '-c', %r])" % program)
print("ready", flush=True)
time.sleep(60)
"""


def test_no_daemon_outlives_a_server_that_is_killed(tmp_path: Path) -> None:
    """Neither one that ignores signals nor one that is frozen: it cannot die until somebody thaws it."""
    marks = [f"lk{secrets.token_hex(6)}" for _ in range(2)]
    programs = [
        daemon(trick, mark)
        for trick, mark in zip(("ignores every signal", "is frozen by a cgroup"), marks, strict=True)
    ]
    code = SERVER.format(project=str(PROJECT), folder=str(tmp_path), programs=programs)
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None and server.stdout.readline() == "ready\n"
        # A daemon is there only after two forks and an exec, of which its caller hears nothing.
        assert wait_until(lambda: all(marked(mark) for mark in marks))
        server.kill()
    assert wait_until(lambda: not any(marked(mark) for mark in marks), timeout_s=15)


HEAP = """
import os
base = os.path.expanduser("~/work/heap" if {work} else "~/heap")
os.mkdir(base)
fd = os.open(base, os.O_RDONLY)
for _ in range({depth}):
    os.mkdir("d", dir_fd=fd)
    inner = os.open("d", os.O_RDONLY, dir_fd=fd)
    os.close(fd)
    fd = inner
os.close(fd)
for name in (b"-rf", b"new\\nline", b"\\xff\\xfe", b"*", b" ", b"a" * 255):
    os.mkdir(os.fsencode(base) + b"/" + name)
os.symlink("/etc", base + "/link")
os.mkfifo(base + "/fifo")
for path in ("/closed/inner", "/closed"):
    os.makedirs(base + path, exist_ok=True)
open(base + "/closed/inner/file", "w").close()
os.chmod(base + "/closed/inner/file", 0)
os.chmod(base + "/closed/inner", 0)
os.chmod(base + "/closed", 0)
print("made")
"""


def test_a_heap_in_the_home_goes_with_the_sandbox(tmp_path: Path) -> None:
    """4,000 folders deep, odd names, closed folders: the leak check of all tests looks for mounts, groups and run folders."""
    kernel = SandboxedKernel(tmp_path, policy="")
    try:
        assert kernel.run(HEAP.format(work=False, depth=4000)) == "made\n"
    finally:
        kernel.close()
    assert sorted(os.listdir(tmp_path)) == ["policy.toml", "work"]


def test_a_heap_in_the_work_folder_stays_and_can_be_removed_by_the_server(tmp_path: Path) -> None:
    """It persists, as promised; Python's own `shutil.rmtree` dies in it, the server's way of removing does not."""
    kernel = SandboxedKernel(tmp_path, policy="")
    made = ""
    try:
        made = kernel.run(HEAP.format(work=True, depth=4000))
    except AssertionError as error:
        # A folder deeper than anything ordinary counts as too full: whoever is slow enough to be seen at it is ended.
        assert "DiskLimitReached" in str(error)
    finally:
        kernel.close()
    done = subprocess.run(
        [sys.executable, "-c", f"import shutil; shutil.rmtree({str(tmp_path / 'work/heap')!r})"],
        capture_output=True,
        check=False,
    )
    assert done.returncode != 0 or made != "made\n" or sys.version_info >= (3, 13), "without our way this should fail"
    if (tmp_path / "work/heap").exists():
        CourseFolder(tmp_path / "work").remove("heap")
    assert os.listdir(tmp_path / "work") == []


def test_nothing_in_the_work_folder_belongs_to_root_of_the_host(tmp_path: Path) -> None:
    kernel = SandboxedKernel(tmp_path)
    try:
        kernel.run(
            "import os, shutil\nos.chdir(os.path.expanduser('~/work'))\nshutil.copy('/bin/true', 'tool')\nos.chmod('tool', 0o6755)\n"
            "os.mkdir('folder')\nos.chmod('folder', 0o3777)\nopen('file', 'w').close()"
        )
    finally:
        kernel.close()
    for path in (tmp_path / "work").iterdir():
        assert path.stat().st_uid != 0, path

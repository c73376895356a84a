"""The leak check finds what it is there for: a run of pytest of its own, in which tests leave things on purpose."""

from __future__ import annotations

import re
import textwrap
import time
from pathlib import Path

import pytest

from tests.support import has, requires
from tests.support.inner import run_inner
from tests.support.leaks import Snapshot, leaks_since

CONFTEST = """
import contextlib, pytest
import tests.support.leaks as leaks
leaks.GRACE_S = 0.15

@pytest.fixture(scope="session")
def undo():
    with contextlib.ExitStack() as stack:
        yield stack
"""
HEADER = """
import os, subprocess, sys, threading, time
import pytest
from labkit.isolation.cgroups import Cgroup, Limits
from labkit.linux.constants import NS, MountFlag, Umount
from labkit.linux.syscalls import mount, umount2, unshare

ORPHAN = "import subprocess, sys; subprocess.Popen(['sleep', sys.argv[1]], stdout=subprocess.DEVNULL)"

def end(popen):
    popen.kill()
    popen.wait()
"""


def run_leaky(folder: Path, tests: str, *, status: int) -> str:
    """Run tests that leave things on purpose, with a short grace and a fixture ``undo`` that tidies up at the end."""
    return run_inner(folder, HEADER + textwrap.dedent(tests), status=status, conftest=CONFTEST)


def left_by(output: str, test: str) -> str:
    """Return what the check said about ``test``."""
    found = re.search(rf"at teardown of {test} _+\n(.*?)(\n_|\n=)", output, re.S)
    return found.group(1) if found else ""


def test_each_kind_of_thing_left_behind_fails_its_test_and_is_named(tmp_path: Path) -> None:
    output = run_leaky(
        tmp_path,
        """
        def test_process(undo):
            undo.callback(end, subprocess.Popen(["sleep", "97"]))

        def test_orphan(undo):
            subprocess.run([sys.executable, "-c", ORPHAN, "98"], check=True)
            for pid in subprocess.run(["pgrep", "-P", str(os.getpid()), "sleep"], capture_output=True).stdout.split():
                undo.callback(os.kill, int(pid), 9)

        def test_process_that_nobody_waited_for(undo):
            child = subprocess.Popen(["true"])
            undo.callback(child.wait)
            os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)

        def test_descriptor(undo):
            undo.callback(os.close, os.open("/dev/zero", os.O_RDONLY))

        def test_run_folder(undo):
            path = f"/tmp/labkit-{os.geteuid()}-left"
            os.mkdir(path)
            undo.callback(os.rmdir, path)

        def test_thread(undo):
            over = threading.Event()
            threading.Thread(target=over.wait, name="labkit-sampler", daemon=True).start()
            undo.callback(over.set)
        """,
        status=1,
    )
    assert "6 passed, 6 errors" in output, output
    assert re.search(r"process: \d+ sleep 97", left_by(output, "test_process"))
    assert re.search(r"process: \d+ sleep 98", left_by(output, "test_orphan"))
    assert "process: " in left_by(output, "test_process_that_nobody_waited_for")
    assert re.search(r"descriptor: \d+ -> /dev/zero", left_by(output, "test_descriptor"))
    assert "run folder: /tmp/labkit-" in left_by(output, "test_run_folder")
    assert "thread: labkit-sampler" in left_by(output, "test_thread")


@requires("root", "program:ip")
def test_mounts_interfaces_and_a_changed_namespace_are_found(tmp_path: Path) -> None:
    output = run_leaky(
        tmp_path,
        """
        def test_namespace():
            unshare(NS.NET | NS.MNT)  # for good; what follows reaches this process alone
            mount(None, "/", None, MountFlag.REC | MountFlag.PRIVATE)

        def test_mount(undo, tmp_path):
            mount("labkit-left", str(tmp_path), "tmpfs", MountFlag(0))
            undo.callback(umount2, str(tmp_path), Umount(0))

        def test_interface():
            subprocess.run(["ip", "link", "add", "labkit-left", "type", "dummy"], check=True)
        """,
        status=1,
    )
    assert "namespace of pytest itself: net:[" in left_by(output, "test_namespace")
    assert "labkit-left" in left_by(output, "test_mount")
    if "1 failed" not in output:  # a kernel without the dummy driver cannot make the interface
        assert "network interface: labkit-left" in left_by(output, "test_interface")


@requires("cgroups")
def test_a_cgroup_is_found_but_not_the_parent_that_the_process_keeps(tmp_path: Path) -> None:
    output = run_leaky(
        tmp_path,
        """
        def test_clean():
            Cgroup.create(None, Limits(pids=5)).delete()

        def test_left(undo):
            group = Cgroup.create(None, Limits(pids=5))
            undo.callback(group.delete)
        """,
        status=1,
    )
    assert "2 passed, 1 error" in output, output
    assert "cgroup: /sys/fs/cgroup/" in left_by(output, "test_left")


@requires("userns")
def test_one_launcher_may_stay_but_nothing_in_it_and_no_second_one(tmp_path: Path) -> None:
    output = run_leaky(
        tmp_path,
        """
        from labkit.container import Namespaced, run
        from labkit.container.client import LauncherClient

        def test_clean():
            run(Namespaced(["true"], namespaces=NS.UTS))

        def test_running(undo):
            process = Namespaced(["sleep", "96"], namespaces=NS.UTS)
            process.start()
            undo.callback(process.close)

        def test_second_launcher(undo):
            undo.callback(LauncherClient().close)
        """,
        status=1,
    )
    assert "3 passed, 2 errors" in output, output
    running = left_by(output, "test_running")
    assert re.search(r"process: \d+ sleep 96", running)
    assert "descriptor: " in running
    assert "run folder: " in running
    if has("root"):  # an ordinary user's launcher hides its descriptors
        assert "descriptor of the launcher: " in running
    assert left_by(output, "test_second_launcher").count("process: ") == 1


def test_what_a_module_keeps_or_what_ends_by_itself_is_no_leak(tmp_path: Path) -> None:
    output = run_leaky(
        tmp_path,
        """
        @pytest.fixture(scope="module")
        def server():
            with subprocess.Popen(["sleep", "95"]) as popen:
                yield popen
                popen.kill()

        def test_with_server(server): ...

        def test_again_with_server(server): ...

        def test_short_orphan():
            subprocess.run([sys.executable, "-c", ORPHAN, "0.05"], check=True)
        """,
        status=0,
    )
    assert "3 passed" in output, output


def test_what_a_whole_run_leaves_fails_the_run(tmp_path: Path) -> None:
    output = run_leaky(
        tmp_path,
        """
        @pytest.fixture(scope="module")
        def forgetful():
            subprocess.Popen(["sleep", "1"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

        def test_one(forgetful): ...
        """,
        status=1,
    )
    assert "1 passed" in output, output
    assert "the whole test run left behind" in output
    assert re.search(r"process: \d+ sleep 1", output)


def test_the_check_costs_less_than_ten_milliseconds_a_test() -> None:
    before = Snapshot.take()
    start_s = time.perf_counter()
    for _ in range(10):
        Snapshot.take()
        assert leaks_since(before) == []
    assert (time.perf_counter() - start_s) / 10 < 0.010


@pytest.mark.parametrize("name", ["lock", "stage"])
def test_a_folder_that_nobody_locks_is_not_excused(tmp_path: Path, name: str) -> None:
    from tests.support.leaks import _is_held

    (tmp_path / "labkit-1" / name).mkdir(parents=True)
    assert not _is_held(str(tmp_path / "labkit-1" / name), Snapshot.take(), ours=True)

"""The leak check finds what it is there for: a run of pytest of its own, in which tests leave things on purpose."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from pwd import getpwnam

import pytest

from labkit.linux.constants import MountFlag, Umount
from labkit.linux.syscalls import mount, umount2
from tests.support import PROJECT, has, requires
from tests.support.cli import wait_until
from tests.support.hierarchies import mounted_hierarchies
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
    start_s = time.process_time()  # of this process: others may be busy
    for _ in range(10):
        Snapshot.take()
        leaks_since(before)
    assert (time.process_time() - start_s) / 10 < 0.010


@pytest.mark.parametrize("name", ["lock", "stage"])
def test_a_folder_that_nobody_locks_is_not_excused(tmp_path: Path, name: str) -> None:
    from tests.support.leaks import _is_held

    (tmp_path / "labkit-1" / name).mkdir(parents=True)
    assert not _is_held(str(tmp_path / "labkit-1" / name), Snapshot.take(), ours=True)


@requires("root", "cgroups")
def test_what_root_makes_is_no_leak_of_an_ordinary_users_run(tmp_path: Path) -> None:
    """Runs of both go on side by side: root makes a mount and groups in the middle of the user's test."""
    (tmp_path / "mounted").mkdir()
    ours = [f"{hierarchy.mount}/labkit-left-{os.getpid()}" for hierarchy in mounted_hierarchies()]
    with ExitStack() as stack:
        user = stack.enter_context(_watching_as("nobody"))
        mount("labkit-left", str(tmp_path / "mounted"), "tmpfs", MountFlag(0))
        stack.callback(umount2, str(tmp_path / "mounted"), Umount(0))
        for path in ours:
            os.mkdir(path)
            stack.callback(os.rmdir, path)
        before_this_test = Snapshot.take()
        assert {*ours} <= set(before_this_test.cgroups)  # root's own run sees them
        assert any("labkit-left" in words for words in before_this_test.mounts.values())
        assert _ask(user) == []
        # What carries the user's id is the user's, wherever it lies.
        os.chown(ours[0], getpwnam("nobody").pw_uid, 0)
        assert _ask(user) == [f"cgroup: {ours[0]}"]


@requires("root", "cgroups")
def test_a_group_given_to_a_user_is_roots_leak_only_when_nobody_holds_it() -> None:
    path = f"{mounted_hierarchies()[0].mount}/labkit-left-{os.getpid()}"
    os.mkdir(path)
    try:
        os.chown(path, getpwnam("nobody").pw_uid, 0)
        assert path in Snapshot.take().cgroups
        with subprocess.Popen(["flock", "--shared", path, "cat"], stdin=subprocess.PIPE) as holder:
            assert wait_until(lambda: path not in Snapshot.take().cgroups)
            holder.communicate()
        assert path in Snapshot.take().cgroups
    finally:
        os.rmdir(path)


@contextmanager
def _watching_as(user: str) -> Iterator[subprocess.Popen[str]]:
    """Start a program of ``user`` that has looked at everything and says what is new whenever it is asked."""
    code = (
        "import os, sys; from tests.support.leaks import Snapshot, leaks_since\n"
        "os.setgroups([]); os.setresuid(*[int(sys.argv[1])] * 3); before = Snapshot.take(); print('[]', flush=True)\n"
        "for line in sys.stdin: print(leaks_since(before), flush=True)"
    )
    # Python as root, which may lie where only root can read it, and then the user.
    command = [sys.executable, "-c", code, str(getpwnam(user).pw_uid)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=PROJECT) as program:
        assert program.stdout is not None
        assert program.stdout.readline() == "[]\n"
        yield program
        program.communicate()


def _ask(program: subprocess.Popen[str]) -> object:
    assert program.stdin is not None
    assert program.stdout is not None
    program.stdin.write("\n")
    program.stdin.flush()
    return ast.literal_eval(program.stdout.readline())

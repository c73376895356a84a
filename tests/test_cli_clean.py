from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import labkit as package
from labkit.commands import clean
from labkit.container import runfolder
from labkit.measure.inner_python import is_open_to_all
from labkit.measure.scratch import scratch_folder
from tests.support import PROJECT, requires
from tests.support.cli import LABKIT, labkit, wait_until

pytestmark = requires("userns", "overlay-userns")

_PROGRAM = """
import sys
sys.path.insert(0, {project!r})
from labkit.container import Container, Limits, Namespaced, client
from labkit.linux.constants import NS
from labkit.measure.scratch import scratch_folder
holder = scratch_folder()
held = holder.__enter__()
limits = Limits(pids=20) if {limited!r} else None
box = Container(["sleep", "300"], image_like_host=True, limits=limits); box.start()
loose = Namespaced(["sh", "-c", "trap '' TERM; sleep 300 & wait"], namespaces=NS(0)); loose.start()
children = ""
while not children:  # the shell dies with the launcher, its child does not
    children = open(f"/proc/{{loose.pid}}/task/{{loose.pid}}/children").read()
print(client.launcher().process.pid, client.launcher().folder, held, children, flush=True)
sys.stdin.read()
"""


def is_running(pid: int) -> bool:
    """Tell whether ``pid`` runs; a zombie, which waits for its parent to hear of its end, does not."""
    shown = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout
    return bool(shown.strip()) and not shown.startswith("Z")


class Program:
    """Another program that uses labkit: it holds a container, a loose process, a scratch folder, perhaps a cgroup."""

    def __init__(self, *, limited: bool, prefix: tuple[str, ...] = (), cwd: Path = PROJECT) -> None:
        code = _PROGRAM.format(project=str(PROJECT), limited=limited)
        self.process = subprocess.Popen(
            [*prefix, sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=cwd
        )
        assert self.process.stdout is not None
        words = self.process.stdout.readline().split()
        self.launcher_pid, self.loose_pid = int(words[0]), int(words[3])
        self.folder, self.scratch = words[1], Path(words[2])

    def end(self) -> None:
        """Let it end by itself, and wait for its launcher, too."""
        self.process.communicate(timeout=30)
        assert wait_until(lambda: not os.path.exists(f"/proc/{self.launcher_pid}"))
        shutil.rmtree(self.scratch, ignore_errors=True)  # entered by hand, never left

    def kill_everything(self) -> None:
        """SIGKILL for the launcher and the program at the same moment."""
        os.kill(self.launcher_pid, signal.SIGKILL)
        self.process.kill()
        self.process.communicate(timeout=30)


@pytest.fixture
def program(request: pytest.FixtureRequest) -> Iterator[Program]:
    from tests.support import has

    started = Program(limited=has("cgroups"))
    yield started
    if started.process.poll() is None:
        started.end()


def test_what_belongs_to_a_living_program_is_neither_reported_nor_touched(program: Program) -> None:
    for words in (["clean", "--check"], ["clean"]):
        shown = labkit(*words).stdout
        assert program.folder not in shown
        assert str(program.scratch) not in shown
        assert f"process {program.loose_pid}" not in shown
    assert is_running(program.loose_pid)
    assert os.path.isdir(program.folder)
    assert program.scratch.is_dir()


def test_what_program_and_launcher_leave_when_both_are_killed_is_found_and_removed(program: Program) -> None:
    program.kill_everything()
    found = labkit("clean", "--check")
    assert found.returncode == 1
    assert f"left over: folder {program.folder}" in found.stdout
    assert f"left over: folder {program.scratch}" in found.stdout
    assert f"left over: process {program.loose_pid}\n" in found.stdout
    assert os.path.isdir(program.folder)  # --check only looks
    removed = labkit("clean")
    assert (removed.returncode, removed.stderr) == (0, "")
    assert not os.path.exists(program.folder)
    assert not program.scratch.exists()
    assert wait_until(lambda: not is_running(program.loose_pid))
    again = labkit("clean", "--check")
    assert program.folder not in again.stdout


def test_nothing_left_is_status_0_and_said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(clean, "find", lambda: clean.Found(clean.leftovers.Leftovers(), (), (), ()))
    arguments = clean.argparse.Namespace(check=True)
    assert clean.run(arguments) == 0
    assert capsys.readouterr().out == "labkit: nothing is left.\n"


def test_what_cannot_be_removed_is_said_and_status_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stubborn = clean.Found(clean.leftovers.Leftovers(), ("/mnt/stubborn",), (), ())
    monkeypatch.setattr(clean, "find", lambda: stubborn)
    monkeypatch.setattr(clean, "remove", lambda _: None)
    assert clean.run(clean.argparse.Namespace(check=False)) == 1
    assert capsys.readouterr().err == "labkit: mount /mnt/stubborn could not be removed.\n"


@requires("root")
def test_a_mount_in_a_dead_scratch_folder_goes_before_the_folder(program: Program) -> None:
    target = program.scratch / "mounted"
    target.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "labkit-test", target], check=True)
    try:
        assert labkit("clean", "--check").stdout.count(str(target)) == 0  # its owner lives
        program.kill_everything()
        assert f"mount {target}" in labkit("clean", "--check").stdout
        assert labkit("clean").returncode == 0
        assert not program.scratch.exists()
    finally:
        subprocess.run(["umount", "--quiet", target], check=False, stderr=subprocess.DEVNULL)


@requires("root", "program:unshare", "program:ip", "network-namespace")
def test_an_interface_is_removed_only_when_no_launcher_lives() -> None:
    """In a network namespace of its own, and with a /run of its own, so that there is no launcher."""
    script = """set -e
    mount -t tmpfs labkit-test /run
    ip link add labkit-t0 type veth peer name labkit-t1
    "$@" clean; ip -o link"""
    done = subprocess.run(
        ["unshare", "--net", "--mount", "sh", "-c", script, "sh", *LABKIT], capture_output=True, text=True, check=False,
        cwd=PROJECT,
    )  # fmt: skip
    if "not supported" in done.stderr:
        pytest.skip("this kernel has no veth")
    assert done.returncode == 0, done.stderr
    assert "removing: network interface labkit-t0" in done.stdout
    assert "labkit-t" not in done.stdout.partition("1: lo")[2]  # what ip shows afterwards


@requires("root", "program:setpriv")
def test_root_spares_what_belongs_to_another_users_living_program() -> None:
    if not is_open_to_all(Path(package.__file__)) or not is_open_to_all(Path(os.path.realpath(sys.executable))):
        pytest.skip("another user may not read this checkout or this Python")
    other = (
        "setpriv",
        "--reuid",
        "12345",
        "--regid",
        "12345",
        "--clear-groups",
        "env",
        "HOME=/tmp",
        "XDG_RUNTIME_DIR=",
    )
    started = Program(limited=False, prefix=other, cwd=Path("/"))
    try:
        assert f"process {started.loose_pid}" not in labkit("clean").stdout
        assert is_running(started.loose_pid)
    finally:
        started.end()


def test_a_scratch_folder_of_this_process_is_not_a_leftover() -> None:
    with scratch_folder() as folder:
        assert f"folder {folder}" not in clean.find().lines()


def test_the_base_folder_is_the_users_own() -> None:
    assert runfolder.base_folder().startswith("/")

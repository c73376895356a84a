"""An ordinary user: with a group given to them, with a part of one, and with none.

Root prepares the group, then a child enters it, gives up root for good and uses labkit. The child imports labkit before it
gives up root, because an ordinary user may not be able to read root's Python; so the functions below find their names in the
child, and the imports here only say the same.
"""

from __future__ import annotations

import fcntl
import inspect
import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from labkit.errors import FeatureMissing
from labkit.isolation.cgroups import Cgroup, CgroupParent, Limits, find_leftovers, remove_leftovers, remove_tree
from labkit.linux.syscalls import clone3
from tests.support import PROJECT, requires
from tests.support.hierarchies import mounted_hierarchies

from .helpers import cat

pytestmark = requires("root", "cgroups")

_UID = 65534
_PRELUDE = f"""
import sys
sys.path.insert(0, {str(PROJECT)!r})
import json, os, signal, subprocess, time
from typing import Any
from labkit.errors import *
from labkit.isolation.cgroups import *
from labkit.linux.syscalls import clone3
for folder in sys.argv[1:]:
    with open(folder + "/cgroup.procs", "w") as file:
        file.write("0")
os.setgroups([]); os.setresgid({_UID}, {_UID}, {_UID}); os.setresuid({_UID}, {_UID}, {_UID})
"""
_V2_CONTROLLERS = ("cpu", "memory", "pids")


def as_user(folders: list[str], function: Callable[[], Any]) -> Any:
    """Return what ``function`` returns in a child that is in ``folders`` and an ordinary user."""
    source = textwrap.dedent(inspect.getsource(function))
    code = f"{_PRELUDE}\n{source}\nprint(json.dumps({function.__name__}()), flush=True)"
    done = subprocess.run(
        [sys.executable, "-I", "-c", code, *folders],
        capture_output=True, text=True, timeout=60, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def _give(folder: str) -> None:
    for name in ("", "/cgroup.procs", "/tasks", "/cgroup.threads", "/cgroup.subtree_control"):
        if os.path.exists(folder + name):
            os.chown(folder + name, _UID, _UID)


def _make_in_all_hierarchies(name: str, v2_controllers: tuple[str, ...]) -> tuple[list[str], Callable[[], None]]:
    """Make ``name`` in each hierarchy and give it to the user; return the folders and how to undo it."""
    folders: list[str] = []
    tops: list[str] = []
    locks: list[int] = []
    enabled: list[str] = []
    control = ""
    for hierarchy in mounted_hierarchies():
        top = hierarchy.mount if hierarchy.version == 2 else hierarchy.own
        if hierarchy.version == 2 and set(v2_controllers) <= set(cat(f"{top}/cgroup.controllers").split()):
            control = f"{top}/cgroup.subtree_control"
            enabled = sorted(set(v2_controllers) - set(cat(control).split()))
            Path(control).write_text(" ".join(f"+{name}" for name in enabled))
        folder = f"{top}/{name}"
        os.mkdir(folder)
        tops.append(folder)
        # Held as labkit holds its own: else a `labkit clean` that runs meanwhile takes it for a leftover.
        locks.append(os.open(folder, os.O_RDONLY | os.O_DIRECTORY))
        fcntl.flock(locks[-1], fcntl.LOCK_SH)
        if hierarchy.version == 2:
            # One level more, so that the user gets exactly these controllers whatever the top enables for others.
            if control:
                Path(folder, "cgroup.subtree_control").write_text(" ".join(f"+{name}" for name in v2_controllers))
            folder += "/labkit-user"
            os.mkdir(folder)
        if os.path.exists(f"{folder}/cpuset.mems"):
            for file in ("cpuset.cpus", "cpuset.mems"):
                Path(folder, file).write_text(cat(f"{top}/{file}"))
        _give(folder)
        folders.append(folder)

    def undo() -> None:
        for folder, lock in zip(tops, locks, strict=True):
            remove_tree(folder)
            os.close(lock)
        if enabled:
            Path(control).write_text(" ".join(f"-{name}" for name in enabled))

    return folders, undo


@pytest.fixture
def delegated() -> Iterator[list[str]]:
    """A group in each hierarchy that belongs to the user."""
    folders, undo = _make_in_all_hierarchies(f"labkit-test-{os.getpid()}", _V2_CONTROLLERS)
    yield folders
    undo()


@pytest.fixture
def delegated_in_part() -> Iterator[list[str]]:
    """The user's group, without the memory controller."""
    folders, undo = _make_in_all_hierarchies(f"labkit-test-{os.getpid()}", ("cpu", "pids"))
    for folder in folders:
        if os.path.exists(f"{folder}/memory.usage_in_bytes"):
            for name in ("", "/cgroup.procs", "/tasks"):
                os.chown(folder + name, 0, 0)
    yield folders
    undo()


def test_with_a_group_of_their_own_a_user_can_limit_count_freeze_and_kill(delegated: list[str]) -> None:
    def use() -> Any:
        with CgroupParent() as parent, Cgroup.create(parent, Limits(cpus=0.25, memory_bytes=64 << 20, pids=8)) as group:
            hog = subprocess.Popen(["sh", "-c", "while :; do :; done"])
            group.attach(hog.pid)
            time.sleep(0.6)
            stats = group.stats()
            group.freeze()
            frozen = group.is_frozen
            group.kill()
            status = hog.wait(timeout=5)
            group.wait_empty(5)
        return {
            "version": parent.version, "throttled": stats.nr_throttled, "pids": stats.pids, "frozen": frozen,
            "status": status, "folders": [str(f) for f in group.folders.values()],
            "own": open("/proc/self/cgroup").read(), "uids": os.getresuid(),
        }  # fmt: skip

    seen = as_user(delegated, use)
    assert seen["uids"] == [_UID] * 3
    assert seen["throttled"] > 0
    assert (seen["pids"], seen["frozen"], seen["status"]) == (1, True, -9)
    assert all(any(folder.startswith(given + "/") for given in delegated) for folder in seen["folders"])
    # The program has left nothing and is back where it was.
    assert "labkit-leaf" not in seen["own"]
    assert all(not [entry for entry in os.scandir(folder) if entry.is_dir()] for folder in delegated)


def test_a_child_of_the_user_joins_through_descriptors(delegated: list[str]) -> None:
    def use() -> Any:
        with CgroupParent() as parent, Cgroup.create(parent, Limits(pids=8)) as group, group.join_fds() as join:
            pid, _ = clone3(0, exit_signal=signal.SIGCHLD, cgroup_fd=join.v2_fd)
            if pid == 0:
                for fd in join.task_fds:
                    os.write(fd, b"0")
                time.sleep(20)
                os._exit(0)
            deadline = time.monotonic() + 5
            while True:
                positions = open(f"/proc/{pid}/cgroup").read()
                if positions.count(f"/{group.name}\n") == len(set(group.folders.values())):
                    break
                assert time.monotonic() < deadline, positions
            group.kill()
            return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    assert as_user(delegated, use) == -9


def test_an_oom_kill_of_a_user_is_counted(delegated: list[str]) -> None:
    def use() -> Any:
        with CgroupParent() as parent, Cgroup.create(parent, Limits(memory_bytes=16 << 20, swap_bytes=0)) as group:
            hog = subprocess.Popen(
                ["sh", "-c", "read go; x=$(head -c 96M /dev/zero | tr '\\0' x)"], stdin=subprocess.PIPE
            )
            group.attach(hog.pid)
            hog.communicate(b"go\n")
            return group.stats().oom_kills

    assert as_user(delegated, use) >= 1


def test_two_programs_share_a_users_group_and_the_last_one_restores_it(delegated: list[str]) -> None:
    def use() -> Any:
        first, second = CgroupParent(), CgroupParent()
        one = Cgroup.create(first, Limits(pids=3))
        two = Cgroup.create(second, Limits(pids=3))
        first.close()
        still = open(two.folders["pids"] / "pids.max").read().strip()
        second.close()
        one.delete()
        return still

    assert as_user(delegated, use) == "3"
    assert all(not [entry for entry in os.scandir(folder) if entry.is_dir()] for folder in delegated)
    for folder in delegated:
        if os.path.exists(f"{folder}/cgroup.subtree_control"):
            assert cat(f"{folder}/cgroup.subtree_control") == ""


def test_a_part_of_the_controllers_serves_for_that_part_and_names_the_rest(delegated_in_part: list[str]) -> None:
    def use() -> Any:
        with CgroupParent() as parent:
            with Cgroup.create(parent, Limits(pids=3)) as group:
                stats = group.stats()
            try:
                Cgroup.create(parent, Limits(memory_bytes=64 << 20))
            except FeatureMissing as error:
                refused = str(error)
            return {
                "missing": parent.missing_controllers,
                "memory": stats.memory_bytes,
                "pids": stats.pids,
                "refused": refused,
            }

    seen = as_user(delegated_in_part, use)
    assert (seen["memory"], seen["pids"]) == (None, 0)
    assert "memory" in seen["missing"]
    assert seen["refused"] == seen["missing"]["memory"]


def test_without_a_group_of_their_own_the_rule_and_the_remedy_are_named(tmp_path: Path) -> None:
    def use() -> Any:
        try:
            with CgroupParent() as parent:
                Cgroup.create(parent, Limits(pids=3))
        except FeatureMissing as error:
            return str(error)
        return "nothing was refused"

    said = as_user([], use)
    assert re.search(r"systemd-run --user --scope -p Delegate=yes|Run as root", said), said


def test_nobody_else_finds_the_leftovers_of_root(delegated: list[str]) -> None:
    def use() -> Any:
        return [str(folder) for folder in find_leftovers(lambda name: False)]

    stranger = (
        next(h.own if h.version == 1 else h.mount for h in mounted_hierarchies()) + f"/labkit-roots-{os.getpid()}"
    )
    os.mkdir(stranger)
    try:
        assert stranger not in as_user(delegated, use)
    finally:
        os.rmdir(stranger)


def test_a_killed_program_of_a_user_is_cleaned_up_by_the_next_one(delegated: list[str]) -> None:
    def leave() -> Any:
        group = Cgroup.create(CgroupParent("left-behind"), Limits(pids=3))
        sleeper = subprocess.Popen(["sleep", "30"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        group.attach(sleeper.pid)
        print(json.dumps(sleeper.pid), flush=True)
        os._exit(0)

    def clean() -> Any:
        found = remove_leftovers()
        with CgroupParent() as parent, Cgroup.create(parent, Limits(pids=3)):
            pass
        return [folder.name for folder in found]

    sleeper_pid = as_user(delegated, leave)
    # On v2 the killed program's shell, and whatever starts from it, is in the leaf still.
    places = [f"{folder}/labkit-leaf" if os.path.isdir(f"{folder}/labkit-leaf") else folder for folder in delegated]
    assert "labkit-left-behind" in as_user(places, clean)
    _wait_gone(sleeper_pid)
    assert all(not [entry for entry in os.scandir(folder) if entry.is_dir()] for folder in delegated)


def _wait_gone(pid: int) -> None:
    deadline_s = time.monotonic() + 5
    while os.path.exists(f"/proc/{pid}") and Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z":
        assert time.monotonic() < deadline_s
        time.sleep(0.01)

"""The launcher ends with its program, and its children with it, whatever is killed and when."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from labkit.container import Container, Limits, Namespaced, client, leftovers, run, runfolder
from labkit.errors import InvalidSpec
from labkit.linux.constants import NS
from labkit.linux.spawn import shares_memory
from tests.support import PROJECT, has, requires

pytestmark = requires("userns", "overlay-userns")

PROGRAM = """
import sys, time
sys.path.insert(0, {project!r})
from labkit.container import Container, Limits, Namespaced, client
from labkit.linux.constants import NS
from labkit.linux.spawn import shares_memory
Container(["sh", "-c", "sleep 41 & sleep 41"], rootfs={rootfs!r}).start()
process = Namespaced(["sh", "-c", "setsid sleep 42 & sleep 42 & sleep .1; echo; wait"], namespaces=NS.UTS)
process.start()
process.stdout.read(1)
print(client.launcher().process.pid, client.launcher().name, flush=True)
time.sleep(60)
"""


@pytest.fixture
def program(rootfs: Path) -> Iterator[subprocess.Popen[str]]:
    source = PROGRAM.format(project=str(PROJECT), rootfs=str(rootfs))
    with subprocess.Popen([sys.executable, "-c", source], stdout=subprocess.PIPE, text=True) as process:
        yield process
        process.kill()


def descendants(name: str, launcher_pid: int) -> list[int]:
    """Every process whose parent chain reaches the launcher, or that carries its mark."""
    parents: dict[int, int] = {}
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            text = Path(f"/proc/{entry}/stat").read_text()
        except OSError:
            continue
        state, parent = text.rpartition(")")[2].split()[:2]
        if state != "Z":
            parents[int(entry)] = int(parent)
    found = {pid for pid, mark in leftovers.marked_processes() if os.path.basename(mark) == name} | {
        launcher_pid
    } & parents.keys()
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return sorted(found)


def wait_until_gone(name: str, launcher_pid: int) -> list[int]:
    deadline_s = time.monotonic() + 5
    while (left := descendants(name, launcher_pid)) and time.monotonic() < deadline_s:
        time.sleep(0.02)
    return left


def test_killing_the_program_ends_everything_it_started(program: subprocess.Popen[str]) -> None:
    assert program.stdout is not None
    pid_text, name = program.stdout.readline().split()
    assert len(descendants(name, int(pid_text))) >= 6
    program.kill()
    assert wait_until_gone(name, int(pid_text)) == []
    assert not any(name in path for path in runfolder.dead_folders(runfolder.base_folder()))


def test_killing_program_and_launcher_leaves_what_the_next_start_removes(
    program: subprocess.Popen[str], rootfs: Path
) -> None:
    assert program.stdout is not None
    pid_text, name = program.stdout.readline().split()
    os.kill(int(pid_text), signal.SIGKILL)
    program.kill()
    program.wait()
    time.sleep(0.1)
    found = leftovers.find()
    assert any(name in folder for folder in found.folders)
    assert found.pids  # the one that left its session and has no PID namespace
    assert any(str(found.pids[0]) in line for line in found.lines())
    client.shutdown()
    assert run(Container(["true"], rootfs=rootfs)).exit.ok  # the next start
    assert wait_until_gone(name, 0) == []
    assert not leftovers.find()


def test_what_a_program_without_pid_namespace_leaves_is_ended_with_it() -> None:
    with Namespaced(["sh", "-c", "setsid sleep 43 & echo $!"], namespaces=NS.UTS) as process:
        process.start()
        process.communicate(timeout_s=10)
        pids = [pid for pid, mark in leftovers.marked_processes() if mark == client.launcher().folder]
        assert pids == []


def test_a_dead_launcher_is_replaced(rootfs: Path) -> None:
    assert run(Container(["true"], rootfs=rootfs)).exit.ok
    first = client.launcher()
    os.kill(first.process.pid, signal.SIGKILL)
    first.process.wait()
    assert run(Container(["true"], rootfs=rootfs)).exit.ok
    assert client.launcher() is not first
    first.close()


def test_a_plan_that_cannot_be_made_is_said_and_the_launcher_goes_on(rootfs: Path) -> None:
    before = client.launcher().process.pid
    with pytest.raises(InvalidSpec, match="layers"):
        run(Container(["true"], rootfs=[rootfs] * 600))
    assert run(Container(["true"], rootfs=rootfs)).exit.ok
    assert client.launcher().process.pid == before


def test_a_hundred_containers_leave_no_descriptor_behind(rootfs: Path) -> None:
    def count() -> tuple[int, int]:
        time.sleep(0.1)  # the launcher closes its copies after it has answered
        own = len(os.listdir("/proc/self/fd"))
        return own, len(os.listdir(f"/proc/{client.launcher().process.pid}/fd")) if has("root") else 0

    run(Container(["true"], rootfs=rootfs))
    before = count()
    for _ in range(100):
        run(Container(["true"], rootfs=rootfs))
    assert count() == before


def test_a_launcher_s_own_memory_is_closed_to_children_that_enter(rootfs: Path) -> None:
    """A child on its way in shares the launcher's memory, so nobody in the container may trace it (see ptrace(2))."""
    run(Container(["true"], rootfs=rootfs))
    status = os.stat(f"/proc/{client.launcher().process.pid}/environ")
    assert status.st_uid == 0  # files of a process that is not dumpable belong to root (proc(5))


@pytest.mark.parametrize("mode", ["native", "copy"])
def test_both_kinds_of_child_make_the_same_container(mode: str, rootfs: Path) -> None:
    source = (
        f"import sys; sys.path.insert(0, {str(PROJECT)!r})\n"
        "from labkit.container import Container, run\n"
        f"done = run(Container(['sh', '-c', 'id -u; cat /proc/self/status | grep -c CapEff; ls /dev'], rootfs={str(rootfs)!r}))\n"
        "print(done.exit.code, done.text, done.stderr)\n"
        f"c = Container(['sleep', '9'], rootfs={str(rootfs)!r})\n"
        "with c:\n    c.start()\n    print(c.exec(['sh', '-c', 'echo $$ $PPID']).communicate().text)\n"
    )
    environment = os.environ | {"LABKIT_CHILD": mode}
    done = subprocess.run([sys.executable, "-c", source], env=environment, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("0 0\n1\n")
    assert "2 0" in done.stdout


BUSY = """
import sys
sys.path.insert(0, {project!r})
from labkit.container import Container, run
print("ready", flush=True)
for _ in range(2000):
    c = Container(["sh", "-c", "sleep 44 & sleep 0.01"], rootfs={rootfs!r})
    with c:
        c.start()
        c.wait()
"""


def test_killing_the_program_at_any_moment_leaves_nothing(rootfs: Path) -> None:
    source = BUSY.format(project=str(PROJECT), rootfs=str(rootfs))
    for moment in range(12):
        with subprocess.Popen([sys.executable, "-c", source], stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(0.06 + 0.0137 * moment)
            process.kill()
        prefix = f"labkit-{process.pid}-"
        base = runfolder.base_folder()
        deadline_s = time.monotonic() + 5
        while any(prefix in name for name in _names(base)) and time.monotonic() < deadline_s:
            time.sleep(0.02)
        assert [name for name in _names(base) if prefix in name] == [], moment
        assert [path for path in leftovers.find().cgroups if prefix in path.name] == [], moment
    assert _commands().count("sleep 44") == 0


def _names(folder: str) -> list[str]:
    return os.listdir(folder) if os.path.isdir(folder) else []


def _commands() -> list[str]:
    found = []
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            found.append(Path(f"/proc/{entry}/cmdline").read_bytes().rstrip(b"\0").replace(b"\0", b" ").decode())
        except OSError:
            continue
    return found


@requires("cgroups")
@pytest.mark.skipif(not shares_memory(), reason="a copy of the launcher is made once everything is known")
def test_a_child_that_waits_for_a_cgroup_that_cannot_be_made_is_ended(
    rootfs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Container(["true"], rootfs=rootfs) as first:
        first.start()
        first.wait()
    launcher_pid = client.launcher().process.pid

    def refuse(*_: object, **__: object) -> None:
        deadline_s = time.monotonic() + 5
        while not children_of(launcher_pid) and time.monotonic() < deadline_s:
            time.sleep(0.001)
        assert children_of(launcher_pid), "the child is cloned meanwhile"
        raise KeyboardInterrupt

    monkeypatch.setattr("labkit.container.container.Cgroup.create", refuse)
    if first.cgroup is not None and first.cgroup.folder("unified") is not None:
        pytest.skip("on cgroup v2 a child is cloned into its cgroup, which must be there before")
    with pytest.raises(KeyboardInterrupt):
        Container(["true"], rootfs=rootfs, limits=Limits(pids=8)).start()
    deadline_s = time.monotonic() + 5
    while children_of(launcher_pid) and time.monotonic() < deadline_s:
        time.sleep(0.001)
    assert children_of(launcher_pid) == []


def children_of(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()

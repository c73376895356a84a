"""A kernel in its sandbox, seen from inside by cells and from outside by /proc."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.sandbox.driver import Driver
from tests.support import requires

pytestmark = requires("userns", "overlay-userns")
KINDS = ("user", "mnt", "pid", "net", "ipc", "uts", "cgroup")


def test_a_cell_runs(shared: Driver) -> None:
    assert shared.text("6 * 7").strip() == "42"


def test_every_namespace_is_its_own(shared: Driver) -> None:
    links = {kind: os.readlink(f"/proc/{shared.started['kernel_pid']}/ns/{kind}") for kind in KINDS}
    assert not {os.readlink(f"/proc/self/ns/{kind}") for kind in KINDS} & set(links.values())


def test_the_kernel_is_process_2_and_root_inside_and_nobody_important_outside(shared: Driver) -> None:
    pid, uid = json.loads(shared.text("import os, json; print(json.dumps([os.getpid(), os.getuid()]))"))
    status = Path(f"/proc/{shared.started['kernel_pid']}/status").read_text()
    outside = int(next(line for line in status.splitlines() if line.startswith("Uid:")).split()[1])
    assert (pid, uid) == (2, 0)
    assert outside == (0x7000_0000 if os.geteuid() == 0 else os.geteuid())


def test_process_1_is_an_init_that_collects_orphans(shared: Driver) -> None:
    code = """
import subprocess, time, pathlib
for _ in range(5):
    subprocess.run(["sh", "-c", "(sleep 0.05 &) ; exit 0"], check=True)
deadline = time.monotonic() + 10
while time.monotonic() < deadline:
    stats = [path.read_text().rpartition(")")[2].split() for path in pathlib.Path("/proc").glob("[0-9]*/stat")]
    orphans = [stat for stat in stats if stat[1] == "1" and stat[0] == "Z" or stat[1] == "1" and stat[3] != "2" and stat[3] != "0"]
    if not orphans:
        break
    time.sleep(0.05)
print(pathlib.Path("/proc/1/cmdline").read_text().split(chr(0))[-2].rpartition("/")[2], len(orphans))
"""
    assert shared.text(code).split() == ["init.py", "0"]


def test_process_1_can_be_neither_killed_nor_traced_from_inside(shared: Driver) -> None:
    code = """
import os, signal
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGKILL, signal.SIGHUP):
    os.kill(1, number)
try:
    os.readlink("/proc/1/root")
    print("traced")
except PermissionError:
    print("refused")
"""
    assert shared.text(code).strip() == "refused"
    assert shared.text("'still here'").strip() == "'still here'"


def test_no_mount_gives_set_uid_programs_or_devices_power_but_for_the_few_in_dev(shared: Driver) -> None:
    lines = Path(f"/proc/{shared.started['kernel_pid']}/mountinfo").read_text().splitlines()
    options = {line.split()[4]: set(line.split()[5].split(",")) for line in lines}
    assert len(options) > 20
    weak = {
        path for path, words in options.items() if not words >= {"nosuid", "nodev"} and not path.startswith("/dev/")
    }
    assert weak == {"/", "/dev"}
    assert all(options[path] >= {"ro", "nosuid"} for path in weak)  # nothing can be put there


def test_the_environment_comes_from_a_list(shared: Driver) -> None:
    assert "canary" not in shared.text("import os; print(dict(os.environ))")
    environ = Path(f"/proc/{shared.started['kernel_pid']}/environ").read_bytes()
    assert b"canary" not in environ
    assert b"HOME=/root" in environ


def test_no_descriptor_of_the_server_is_inherited(shared: Driver) -> None:
    targets = shared.text(
        "import os\n"
        "for fd in os.listdir('/proc/self/fd'):\n"
        "    try: print(fd, os.readlink(f'/proc/self/fd/{fd}'))\n"
        "    except FileNotFoundError: pass"
    )
    own = (
        "/dev",
        "/run/jupyter",
        "/run/labkit",
        "/root",
        "/proc",
        "/sys/fs/cgroup",
        "anon_inode",
        "socket",
        "pipe",
        "/memfd",
    )
    assert [line for line in targets.splitlines() if not line.split()[1].startswith(own)] == []


def test_home_is_limited_in_bytes_and_files(shared: Driver) -> None:
    size, files = json.loads(
        shared.text("import os, json; s = os.statvfs('/root'); print(json.dumps([s.f_blocks * s.f_frsize, s.f_files]))")
    )
    assert size == 256 << 20
    assert files == 20_000
    code = """
import errno
try:
    with open(home + "/big", "wb") as file:
        for _ in range(300): file.write(bytes(1 << 20))
except OSError as error:
    print(errno.errorcode[error.errno])
finally:
    os.unlink(home + "/big")
"""
    assert shared.text("import os\nhome = os.path.expanduser('~')\n" + code).strip() == "ENOSPC"


def test_the_notebook_folder_can_be_written_and_the_machine_keeps_its_own(shared: Driver, course: Path) -> None:
    code = "open('data.txt', 'a').write('more'); open('new', 'w').close(); print(open('data.txt').read())"
    assert shared.text(code).split() == ["from", "the", "host", "more"]
    assert (course / "data.txt").read_text() == "from the host\n"
    assert not (course / "new").exists()


def test_work_stays_on_the_machine(shared: Driver) -> None:
    shared.text("import os; open(os.path.expanduser('~') + '/work/kept', 'w').write('kept')")
    kept = shared.folder / "work/kept"
    assert kept.read_text() == "kept"
    assert kept.stat().st_uid != 0


@pytest.mark.parametrize(
    "command",
    [
        "umount -l /usr", "umount -l /etc", "umount -l /proc", "umount -l ~/work", "mount -o remount,rw /usr", "mount -o remount,bind,rw /usr",
        "mount -o remount,suid /usr", "touch /usr/x", "mkdir /x", "mknod /tmp/sda b 8 0", "date -s 2001-01-01",
        "echo x > /proc/sys/kernel/core_pattern", "echo 1 > /proc/sys/vm/drop_caches", "dmesg", "chroot /proc/1/root",
    ],
)  # fmt: skip
def test_root_inside_may_not(shared: Driver, command: str) -> None:
    code = f"import subprocess; print(subprocess.run(['sh', '-c', {command!r}], capture_output=True).returncode)"
    assert shared.text(code).strip() != "0"


NESTED = {
    "a container of labkit's": "from labkit.container import Container, run; assert run(Container(['id', '-u'], image_like_host=True)).text == '0\\n'",
    "namespaces with unshare": """sh("unshare --user --map-root-user --pid --fork --mount-proc --net --uts --ipc sh -c 'test $$ = 1'")""",
    "a pid namespace without a user namespace": """sh("unshare --pid --fork --mount-proc sh -c 'test $(ps ax | wc -l) -le 6'")""",
    "a tmpfs": "sh('mkdir -p /tmp/t; mount -t tmpfs t /tmp/t; touch /tmp/t/x; umount /tmp/t')",
    "an overlay": (
        "sh('mkdir -p /tmp/o; mount -t tmpfs t /tmp/o; cd /tmp/o; mkdir l u w m; echo a > l/f; '"
        "'mount -t overlay o -o lowerdir=l,upperdir=u,workdir=w,userxattr m; echo b >> m/f; test $(wc -l < u/f) = 2; cd /; umount /tmp/o/m /tmp/o')"
    ),
    "an overlay over /usr and /etc": (
        "sh('mkdir -p /tmp/o; mount -t tmpfs t /tmp/o; cd /tmp/o; mkdir u w m u2 w2 m2; mount -t overlay o -o lowerdir=/usr,upperdir=u,workdir=w,userxattr m; '"
        "'mount -t overlay o -o lowerdir=/etc,upperdir=u2,workdir=w2,userxattr m2; test -e m/bin/env; test -s m2/passwd; cd /; umount /tmp/o/m /tmp/o/m2 /tmp/o')"
    ),
    "a veth pair and a bridge": (
        "sh('ip link add labkit-v0 type veth peer name labkit-v1; ip link add labkit-b0 type bridge; '"
        "'ip link set labkit-v0 master labkit-b0; ip link set labkit-b0 up; ip address add 10.9.9.1/24 dev labkit-b0; '"
        "'ip link del labkit-v0; ip link del labkit-b0')"
    ),
    "an own host name": """sh("unshare --uts sh -c 'hostname moon; test $(uname -n) = moon'")""",
    "a terminal": "import pty, os; a, b = pty.openpty(); os.close(a); os.close(b)",
}


@pytest.mark.parametrize("what", NESTED)
def test_a_lesson_can_make(shared: Driver, what: str) -> None:
    prelude = (
        "import subprocess\ndef sh(text):\n"
        "    done = subprocess.run(['sh', '-ec', text], capture_output=True, text=True)\n"
        "    assert done.returncode == 0, done.stderr\n"
    )
    shared.text(prelude + NESTED[what] + "\nprint('made')")


@requires("program:busybox")
def test_the_programs_of_the_lessons_are_there(shared: Driver) -> None:
    names = "busybox unshare nsenter ip findmnt lsns ps mount sh bash"
    found = shared.text(f"import shutil; print([name for name in {names.split()!r} if shutil.which(name) is None])")
    assert found.strip() == "[]"


@requires("cgroups")
def test_cgroups_are_delegated_below_the_limits(shared: Driver) -> None:
    code = """
from labkit.isolation.cgroups import Cgroup, Limits
with Cgroup.create(limits=Limits(memory_bytes=64 << 20, pids=10, cpus=0.5)) as group:
    print(sorted(group.limits.controllers()), group.folder("memory"))
print(open("/proc/self/cgroup").read().count("labkit"))
"""
    lines = shared.text(code).splitlines()
    assert lines[0].startswith("['cpu', 'memory', 'pids'] /sys/fs/cgroup/")
    assert lines[1] == "0"  # its own group is the root of what it sees


def test_kept_changes_are_there_again_and_a_second_kernel_does_not_share_them(
    start: Callable[..., Driver], course: Path, tmp_path: Path
) -> None:
    policy = '[mounts]\nnotebooks = "keep"\n'
    first = start(policy, XDG_DATA_HOME=str(tmp_path / "data"))
    first.text("open('data.txt', 'a').write('kept'); open('new', 'w').close()")
    second = start(policy, XDG_DATA_HOME=str(tmp_path / "data"))
    assert second.text("import os; print(os.path.exists('new'))").strip() == "False"
    first.ask("restart", now=True)
    assert first.text("import os; print(os.path.exists('new'), open('data.txt').read())").split() == [
        "True",
        "from",
        "the",
        "host",
        "kept",
    ]
    assert (course / "data.txt").read_text() == "from the host\n"


def test_a_read_only_notebook_folder_cannot_be_written(start: Callable[..., Driver]) -> None:
    driver = start('[mounts]\nnotebooks = "read-only"\n')
    assert "Read-only" in driver.run("open('data.txt', 'a')")["errors"][0][1]

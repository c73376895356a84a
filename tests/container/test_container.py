"""A container from outside (lsns, /proc, the cgroup's files) and from inside (what its program prints)."""

from __future__ import annotations

import os
import re
import signal
import stat
import subprocess
import time
from pathlib import Path

import pytest

from labkit.container import Container, MountSpec, Security, run
from labkit.errors import DeadlineExceeded, InvalidState, SetupError
from labkit.isolation.cgroups import Limits
from labkit.linux.constants import NS
from labkit.units import MiB
from tests.support import has, requires

pytestmark = requires("userns", "overlay-userns")

KINDS = ("user", "mnt", "pid", "net", "ipc", "uts", "cgroup")


def shell(rootfs: Path, script: str, **options: object) -> str:
    done = run(Container(["sh", "-c", script], rootfs=rootfs, **options), timeout_s=20)  # type: ignore[arg-type]
    assert done.exit.code == 0, (done.exit, done.stderr)
    return done.text


def test_a_program_runs_and_its_outputs_stay_apart(rootfs: Path) -> None:
    done = run(Container(["sh", "-c", "echo out; echo err >&2; exit 3"], rootfs=rootfs))
    assert (done.stdout, done.stderr, done.exit.code) == (b"out\n", b"err\n", 3)
    assert done.exit.reason == "exit status 3"


def test_every_namespace_is_its_own_seen_from_outside(rootfs: Path) -> None:
    with Container(["sleep", "20"], rootfs=rootfs) as container:
        container.start()
        for kind in KINDS:
            assert os.readlink(f"/proc/{container.pid}/ns/{kind}") != os.readlink(f"/proc/self/ns/{kind}"), kind


@requires("program:lsns")
def test_lsns_finds_the_namespaces(rootfs: Path) -> None:
    with Container(["sleep", "20"], rootfs=rootfs) as container:
        container.start()
        command = ["lsns", "--noheadings", "--output", "NS,TYPE", "--task", str(container.pid)]
        listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        own = {str(path.stat().st_ino) for path in Path("/proc/self/ns").iterdir()}
        kinds = {kind for inode, kind in map(str.split, listed.splitlines()) if inode not in own}
        assert kinds == set(KINDS)


def test_the_program_is_pid_1_and_sees_only_itself(rootfs: Path) -> None:
    assert shell(rootfs, "echo $$; ls /proc | grep -c '^[0-9]'").split()[0] == "1"
    assert "sleep 3141" not in shell(rootfs, "ps")


def test_root_inside_is_nobody_special_outside(rootfs: Path) -> None:
    with Container(["sleep", "20"], rootfs=rootfs) as container:
        container.start()
        status = Path(f"/proc/{container.pid}/status").read_text()
        uid = int(re.search(r"^Uid:\t(\d+)", status, re.MULTILINE)[1])  # type: ignore[index]
        assert uid != 0
        assert uid == os.geteuid() or uid >= 0x7000_0000
    assert shell(rootfs, "id -u").strip() == "0"


def test_capabilities_no_new_privs_and_seccomp_are_docker_s(rootfs: Path) -> None:
    status = shell(rootfs, "cat /proc/self/status")
    for name in ("CapPrm", "CapEff", "CapBnd"):
        assert f"{name}:\t00000000a80425fb" in status
    assert "CapInh:\t0000000000000000" in status
    assert "NoNewPrivs:\t1" in status
    assert "Seccomp:\t2" in status


def test_the_environment_is_path_home_and_hostname(rootfs: Path) -> None:
    names = {line.split("=")[0] for line in shell(rootfs, "env").splitlines()}
    assert names - {"PWD", "SHLVL", "OLDPWD", "_"} == {"PATH", "HOME", "HOSTNAME"}
    assert shell(rootfs, "echo $A $HOME", env={"A": "1", "HOME": "/x"}).split() == ["1", "/x"]


def test_the_host_s_umask_and_working_directory_do_not_leak_in(rootfs: Path) -> None:
    assert shell(rootfs, "umask; pwd").split() == ["0022", "/"]
    assert shell(rootfs, "pwd", cwd="/new/folder").strip() == "/new/folder"


def test_what_is_written_does_not_reach_the_lower_layer(rootfs: Path) -> None:
    text = shell(rootfs, "touch /new; rm /marker; ls /")
    assert "new" in text
    assert "marker" not in text
    assert (rootfs / "marker").exists()
    assert not (rootfs / "new").exists()


def test_a_writable_folder_keeps_the_changes(rootfs: Path, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    shell(rootfs, "echo kept > /kept", writable=tmp_path)
    assert shell(rootfs, "cat /kept", writable=tmp_path) == "kept\n"
    assert (tmp_path / "upper/kept").read_text() == "kept\n"


def test_a_readonly_root_refuses_and_dev_shm_still_takes(rootfs: Path) -> None:
    text = shell(rootfs, "touch /x 2>/dev/null || echo refused; touch /dev/shm/y && echo taken", readonly=True)
    assert text.split() == ["refused", "taken"]


def test_layers_are_stacked_topmost_first(rootfs: Path, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "marker").write_text("from the top\n")
    assert shell([tmp_path, rootfs], "cat /marker") == "from the top\n"  # type: ignore[arg-type]


def test_dev_holds_just_the_standard_names(rootfs: Path) -> None:
    expected = "core fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero"
    assert shell(rootfs, "ls /dev").split() == expected.split()
    for name, numbers in (("null", "1,3"), ("zero", "1,5"), ("full", "1,7"), ("urandom", "1,9"), ("tty", "5,0")):
        assert shell(rootfs, f"stat -c '%t,%T %a' /dev/{name}").split() == [numbers, "666"]


def test_dangerous_parts_of_proc_are_masked_or_read_only(rootfs: Path) -> None:
    mounts = shell(rootfs, "cat /proc/self/mounts")
    assert re.search(r" /proc/sys proc ro,", mounts)
    assert shell(rootfs, "cat /proc/keys; cat /proc/timer_list") == ""
    assert "refused" in shell(rootfs, "echo x 2>/dev/null > /proc/sys/kernel/hostname || echo refused")


@pytest.mark.parametrize("link", ["/dev", "/proc", "/app"])
def test_a_link_in_an_image_leads_nowhere_outside(link: str, rootfs: Path, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    canary.mkdir()
    layer = tmp_path / "layer"
    layer.mkdir()
    (layer / link[1:]).symlink_to(canary)
    for folder in (tmp_path, layer, canary):
        folder.chmod(0o777)
    container = Container(["true"], rootfs=[layer, rootfs], cwd="/app/inner" if link == "/app" else "/")
    try:
        run(container)
    except SetupError:
        pass  # the link leads to nothing in the container: refusing is right as well
    assert list(canary.iterdir()) == []


def test_the_loopback_is_up_and_the_only_interface(rootfs: Path) -> None:
    lines = shell(rootfs, "cat /proc/net/dev").splitlines()[2:]
    assert [line.split(":")[0].strip() for line in lines] == ["lo"]


def test_the_host_s_network_is_seen_when_asked_for(rootfs: Path) -> None:
    inside = shell(rootfs, "cat /proc/net/dev; ls /sys/class/net", net="host")
    for name in os.listdir("/sys/class/net"):
        assert name in inside


def test_a_bind_mount_shows_a_host_folder_read_only(rootfs: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("host\n")
    tmp_path.chmod(0o777)
    mount = MountSpec("bind", "/data", str(tmp_path), ("ro",))
    text = shell(rootfs, "cat /data/file; touch /data/x 2>/dev/null || echo refused", mounts=[mount])
    assert text.split() == ["host", "refused"]
    assert not (tmp_path / "x").exists()


def test_a_terminal_is_the_container_s_own(rootfs: Path) -> None:
    done = run(Container(["sh", "-c", "tty; echo $TERM; test -t 0 && echo yes"], rootfs=rootfs, terminal=True))
    assert done.stdout.split() == [b"/dev/pts/0", b"xterm", b"yes"]


def test_standard_input_reaches_the_program_and_ends(rootfs: Path) -> None:
    data = os.urandom(300_000)
    done = run(Container(["cat"], rootfs=rootfs, streams=("pipe", "pipe", "pipe")), data, timeout_s=20)
    assert done.stdout == data


@requires("timens")
def test_a_time_namespace_shifts_the_boot_clock(rootfs: Path) -> None:
    inside = float(shell(rootfs, "cat /proc/uptime", time_offset_s=1_000_000).split()[0])
    outside = float(Path("/proc/uptime").read_text().split()[0])
    assert 1_000_000 - 10 < inside - outside < 1_000_000 + 10


def test_exec_joins_the_same_namespaces_user_and_rules(rootfs: Path) -> None:
    with Container(["sleep", "20"], rootfs=rootfs) as container:
        container.start()
        done = container.exec(["sh", "-c", "hostname; id -u; cat /proc/self/status; cat /proc/1/cmdline"]).communicate()
        assert done.text.startswith(f"{container.spec.hostname}\n0\n")
        assert "CapBnd:\t00000000a80425fb" in done.text
        assert "Seccomp:\t2" in done.text
        assert "sleep" in done.text
        with pytest.raises(SetupError, match="No such file"):
            container.exec(["no-such-program"])
        assert container.status == "running"


def test_a_container_that_has_ended_cannot_be_entered(rootfs: Path) -> None:
    with Container(["true"], rootfs=rootfs) as container:
        container.start()
        container.wait(timeout_s=10)
        with pytest.raises(InvalidState, match="ended"):
            container.exec(["true"])
        with pytest.raises(InvalidState, match="started before"):
            container.start()


@pytest.mark.parametrize(
    ("command", "errno_name"), [("nope", "No such file"), ("/nope", "No such file"), ("/marker", "Permission denied")]
)
def test_a_command_that_cannot_run_is_named(command: str, errno_name: str, rootfs: Path) -> None:
    with pytest.raises(SetupError, match=f"could not run {command}: {errno_name}"):
        run(Container([command], rootfs=rootfs))


def test_a_program_killed_by_a_signal_says_so(rootfs: Path) -> None:
    with Container(["sleep", "20"], rootfs=rootfs) as container:
        container.start()
        container.kill(signal.SIGKILL)
        assert container.wait(timeout_s=10).code == 128 + signal.SIGKILL
        assert container.wait().reason == "killed by SIGKILL"


def test_waiting_too_long_raises_and_harms_nobody(rootfs: Path) -> None:
    with Container(["sleep", "20"], rootfs=rootfs) as container:
        container.start()
        with pytest.raises(DeadlineExceeded, match="still runs"):
            container.wait(timeout_s=0.05)
        assert container.status == "running"


def test_a_child_that_ignores_sigterm_ends_at_its_time_limit(rootfs: Path) -> None:
    began_s = time.monotonic()
    done = run(Container(["sh", "-c", "trap '' TERM; sleep 20"], rootfs=rootfs, time_limit_s=0.3))
    assert done.exit.timed_out
    assert "timed out" in done.exit.reason
    assert time.monotonic() - began_s < 5


def test_leaving_the_block_ends_everything(rootfs: Path) -> None:
    with Container(["sh", "-c", "sleep 20 & sleep 20 & echo ready; sleep 20"], rootfs=rootfs) as container:
        container.start()
        assert container.stdout is not None
        assert container.stdout.read(6) == b"ready\n"
        pid = container.pid
    assert not Path(f"/proc/{pid}").exists()


@requires("cgroups")
class TestLimits:
    def test_a_memory_hog_is_ended_by_the_kernel_and_reported(self) -> None:
        hog = "x = bytearray(200 << 20)\nx[::4096] = bytes(len(x[::4096]))\nfor i in range(0, len(x), 4096): x[i] = 1"
        limits = Limits(memory_bytes=48 * MiB, swap_bytes=0)
        container = Container(["python3", "-c", hog], image_like_host=True, limits=limits, time_limit_s=20)
        done = run(container)
        assert done.exit.oom_killed, (done.exit, done.stderr)
        assert "oom_killed" in done.exit.reason

    def test_a_fork_bomb_is_held_at_the_limit_and_reported(self, rootfs: Path) -> None:
        bomb = "for i in 1 2 3 4 5 6 7 8 9 10 11 12; do sleep 5 & done; wait"
        done = run(Container(["sh", "-c", bomb], rootfs=rootfs, limits=Limits(pids=8), time_limit_s=10))
        assert done.exit.pids_limit_hits > 0
        assert "pids limit" in done.exit.reason

    def test_a_cpu_hog_is_throttled_and_reported(self, rootfs: Path) -> None:
        hog = ["sh", "-c", "while :; do :; done"]
        done = run(Container(hog, rootfs=rootfs, limits=Limits(cpus=0.2), time_limit_s=1.0))
        assert done.exit.throttled_usec > 0
        assert "throttled" in done.exit.reason
        assert done.exit.user_s + done.exit.system_s < 0.6

    def test_the_limits_stand_in_the_cgroup_s_own_files(self, rootfs: Path) -> None:
        with Container(["sleep", "20"], rootfs=rootfs, limits=Limits(pids=17)) as container:
            container.start()
            assert container.cgroup is not None
            folder = container.cgroup.folders["pids"]
            assert (folder / "pids.max").read_text() == "17\n"
            assert str(container.pid) in (folder / "cgroup.procs").read_text().split()
        assert not folder.exists()

    def test_the_cgroup_is_mounted_confined_and_read_only(self, rootfs: Path) -> None:
        script = "cat /proc/self/cgroup; touch /sys/fs/cgroup/x 2>/dev/null || echo refused"
        mount = MountSpec("cgroup", "/sys/fs/cgroup")
        lines = shell(rootfs, script, limits=Limits(pids=20), mounts=[mount]).splitlines()
        assert lines.pop() == "refused"
        joined = [line for line in lines if re.match(r"\d+:(pids|memory|cpu)\b|0::", line)]
        assert joined
        assert all(line.endswith(":/") for line in joined)


@requires("root")
class TestAsRoot:
    def test_files_of_root_show_as_root_s_through_an_idmapped_mount(self, rootfs: Path) -> None:
        assert shell(rootfs, "stat -c %u:%g /marker").strip() == "0:0"

    def test_a_setuid_file_cannot_be_left_for_the_host(self, rootfs: Path, tmp_path: Path) -> None:
        tmp_path.chmod(0o755)
        script = "cat /bin/busybox > /sh && test -s /sh"
        shell(rootfs, script, writable=tmp_path)
        left = (tmp_path / "upper/sh").stat()
        assert left.st_uid >= 0x7000_0000
        assert not left.st_mode & stat.S_ISUID

    def test_no_user_namespace_is_possible_to_show_the_danger(self, rootfs: Path) -> None:
        wanted = NS.MNT | NS.PID | NS.IPC | NS.NET
        with Container(["sleep", "20"], rootfs=rootfs, security=Security(namespaces=wanted)) as container:
            container.start()
            assert os.readlink(f"/proc/{container.pid}/ns/user") == os.readlink("/proc/self/ns/user")


@requires("user")
class TestAsOrdinaryUser:
    def test_a_container_runs_without_any_cgroup(self, rootfs: Path) -> None:
        assert shell(rootfs, "id -u").strip() == "0"

    def test_other_users_exist_only_with_a_granted_range(self, rootfs: Path) -> None:
        container = Container(["id", "-u"], rootfs=rootfs, user="1000:1000")
        if has("subuid"):
            assert run(container).stdout == b"1000\n"
        else:
            with pytest.raises(SetupError, match="subuid"):
                run(container)

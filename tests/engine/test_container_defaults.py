"""What a program finds inside a container by default, line by line: as with Docker, or stricter, which is then said here."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engine.support import IMAGE, Daemon
from tests.support import requires

pytestmark = requires("program:docker", "program:busybox", "userns")

#: One container says all of this of itself; each part becomes an entry of the fixture ``inside``.
_QUESTIONS = {
    "environment": "env | cut -d= -f1 | sort | tr '\\n' ' '",
    "PATH": "echo $PATH",
    "HOME": "echo $HOME",
    "cwd": "pwd",
    "umask": "umask",
    "ids": "id -u; id -g",
    "pid 1": "tr '\\0' ' ' < /proc/1/cmdline | cut -c1-3",
    "processes": "ls /proc | grep -c '^[0-9]'",
    "status": "cat /proc/self/status",
    "hostname": "hostname; cat /etc/hostname; echo $HOSTNAME",
    "hosts": "cat /etc/hosts",
    "mounts": "cat /proc/mounts",
    "dockerenv": "ls /.dockerenv",
    "writable": "touch /written && echo yes",
    "dev": "ls /dev | tr '\\n' ' '",
    "dev nodes": "for n in null zero full random urandom tty; do stat -c '%n %F %t:%T %a' /dev/$n; done",
    "dev links": "for n in fd stdin stdout stderr core ptmx; do readlink /dev/$n; done",
    "shm mode": "stat -c %a /dev/shm",
    "masked": "for p in acpi keys timer_list; do [ -e /proc/$p ] && { cat /proc/$p; ls -A /proc/$p | grep -v ^/proc; }; done 2>/dev/null | wc -c; ls -A /sys/firmware | wc -l",
    "read-only": "for p in /proc/bus/x /proc/fs/x /proc/irq/x /sys/x; do touch $p 2>&1; done; echo 1 > /proc/sys/kernel/hostname",
    "cgroup": "cat /proc/self/cgroup",
    "net": "ls /sys/class/net | tr '\\n' ' '",
    "port start": "cat /proc/sys/net/ipv4/ip_unprivileged_port_start",
    "oom": "cat /proc/self/oom_score_adj",
    "unshare": "unshare -m true 2>&1; mount -t tmpfs x /tmp 2>&1; hostname other 2>&1; mknod /tmp/n c 1 3 2>&1",
    "chroot": "mkdir -p /tmp/r/bin && cp /bin/busybox /tmp/r/bin/ && busybox chroot /tmp/r /bin/busybox echo in",
    "chown": "touch /tmp/f && chown 5:6 /tmp/f && stat -c %u:%g /tmp/f",
    "address": "ip -4 -o addr show eth0; ip route",
}  # fmt: skip


def run(daemon: Daemon, *words: str, data: bytes = b"") -> str:
    """Return what ``docker run --rm WORDS`` says on both streams together."""
    done = daemon.cli("run", "--rm", *words, data=data)
    return (done.stdout + done.stderr).decode(errors="replace")


@pytest.fixture(scope="module")
def inside(daemon: Daemon) -> Iterator[dict[str, str]]:
    """Give the answers of one container."""
    script = "".join(f"echo; echo '@@ {name}'\n{{ {question}; }} 2>&1\n" for name, question in _QUESTIONS.items())
    parts = re.split(r"^@@ (.*)\n", run(daemon, IMAGE, "sh", "-c", script), flags=re.M)
    yield {name: text.strip() for name, text in zip(parts[1::2], parts[2::2], strict=True)}


def status(inside: dict[str, str], name: str) -> str:
    """Return a line of /proc/self/status."""
    return next(line.split(":", 1)[1].strip() for line in inside["status"].splitlines() if line.startswith(f"{name}:"))


def mount(inside: dict[str, str], target: str) -> tuple[str, set[str]]:
    """Return type and options of what is mounted at ``target``."""
    row = next(line.split() for line in inside["mounts"].splitlines() if line.split()[1] == target)
    return row[2], set(row[3].split(","))


def test_environment_folder_and_ids(inside: dict[str, str]) -> None:
    # PWD and SHLVL are the shell's own.
    assert set(inside["environment"].split()) - {"PWD", "SHLVL"} == {"HOME", "HOSTNAME", "PATH"}
    assert inside["PATH"] == "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    assert (inside["HOME"], inside["cwd"], inside["umask"]) == ("/root", "/", "0022")
    assert inside["ids"].split() == ["0", "0"]


def test_the_command_is_pid_1_and_sees_only_its_own_processes(inside: dict[str, str]) -> None:
    assert inside["pid 1"].startswith("sh")
    assert int(inside["processes"]) < 8


def test_capabilities_are_the_fourteen(inside: dict[str, str]) -> None:
    assert [status(inside, name) for name in ("CapPrm", "CapEff", "CapBnd")] == ["00000000a80425fb"] * 3
    assert [int(status(inside, name), 16) for name in ("CapInh", "CapAmb")] == [0, 0]
    assert status(inside, "Seccomp") == "2"


def test_stricter_than_docker_no_new_privs_is_set(inside: dict[str, str]) -> None:
    # The filter is loaded after the capabilities are gone, which the kernel allows only so (labkit.engine.objects.launch).
    assert status(inside, "NoNewPrivs") == "1"


def test_host_name_and_hosts(inside: dict[str, str]) -> None:
    first, second, third = inside["hostname"].splitlines()
    assert first == second == third
    assert re.fullmatch(r"[0-9a-f]{12}", first)
    assert re.search(r"^127\.0\.0\.1\s+localhost", inside["hosts"], re.M)
    assert re.search(r"^::1\s+localhost", inside["hosts"], re.M)
    for path in ("/etc/hosts", "/etc/hostname", "/etc/resolv.conf"):
        assert mount(inside, path)
    assert inside["dockerenv"] == "/.dockerenv"


def test_the_root_is_an_overlay_that_can_be_written_to(inside: dict[str, str]) -> None:
    assert mount(inside, "/")[0] == "overlay"
    assert inside["writable"] == "yes"


@pytest.mark.parametrize(
    ("target", "kind", "options"),
    [
        ("/proc", "proc", {"nosuid", "nodev", "noexec"}),
        ("/dev", "tmpfs", {"nosuid", "size=65536k", "mode=755"}),
        ("/dev/pts", "devpts", {"nosuid", "noexec", "mode=620", "ptmxmode=666"}),
        ("/dev/shm", "tmpfs", {"nosuid", "nodev", "noexec", "size=65536k"}),
        ("/dev/mqueue", "mqueue", {"nosuid", "nodev", "noexec"}),
        ("/sys", "sysfs", {"ro", "nosuid", "nodev", "noexec"}),
    ],
)
def test_a_system_mount_is_as_with_docker(inside: dict[str, str], target: str, kind: str, options: set[str]) -> None:
    found, its = mount(inside, target)
    assert found == kind
    assert options <= its


def test_the_cgroup_tree_is_read_only_and_shows_no_more_than_the_own_group(inside: dict[str, str]) -> None:
    row = [line.split() for line in inside["mounts"].splitlines() if line.split()[1].startswith("/sys/fs/cgroup")]
    assert row
    assert all("ro" in line[3].split(",") for line in row)
    assert all(
        line.split(":", 2)[2] == "/"
        for line in inside["cgroup"].splitlines()
        if line.split(":", 2)[1] in ("memory", "pids", "cpu")
    )


def test_devices(inside: dict[str, str]) -> None:
    names = set(inside["dev"].split())
    assert names - {"console"} == {
        "core", "fd", "full", "mqueue", "null", "ptmx", "pts", "random", "shm", "stderr", "stdin", "stdout", "tty", "urandom", "zero",
    }  # fmt: skip
    wanted = {"null": "1:3", "zero": "1:5", "full": "1:7", "random": "1:8", "urandom": "1:9", "tty": "5:0"}
    lines = inside["dev nodes"].splitlines()
    assert lines == [f"/dev/{name} character special file {numbers} 666" for name, numbers in wanted.items()]
    assert inside["dev links"].split() == [
        "/proc/self/fd",
        "/proc/self/fd/0",
        "/proc/self/fd/1",
        "/proc/self/fd/2",
        "/proc/kcore",
        "pts/ptmx",
    ]
    assert inside["shm mode"] == "1777"


def test_masked_paths_are_empty_and_read_only_ones_cannot_be_written(inside: dict[str, str]) -> None:
    assert inside["masked"].split() == ["0", "0"]
    refused = inside["read-only"].splitlines()
    assert len(refused) == 5
    assert all(
        "Read-only file system" in line or "ermission denied" in line or "nonexistent" in line or "No such" in line
        for line in refused
    )


def test_network_ports_and_oom_score(inside: dict[str, str]) -> None:
    assert inside["net"].split() == ["eth0", "lo"]
    assert inside["port start"] == "0"
    assert inside["oom"] == "0"
    assert re.search(r"inet 172\.\d+\.\d+\.\d+/16|inet 192\.168\.", inside["address"])
    assert re.search(r"^default via ", inside["address"], re.M)


def test_pid_1_has_no_other_descriptors(daemon: Daemon) -> None:
    identity = daemon.cli("run", "-d", IMAGE, "sleep", "60").stdout.decode().strip()
    try:
        assert daemon.cli("exec", identity, "ls", "/proc/1/fd").stdout.split() == [b"0", b"1", b"2"]
    finally:
        daemon.cli("rm", "-f", identity)


def test_what_docker_refuses_is_refused_and_device_nodes_besides(inside: dict[str, str]) -> None:
    lines = inside["unshare"].splitlines()
    # The last one is stricter than Docker: a user namespace may not make device nodes.
    assert len(lines) == 4
    assert all("not permitted" in line or "denied" in line for line in lines)
    assert inside["chroot"] == "in"
    assert inside["chown"] == "5:6"


def test_a_user_has_no_capabilities_and_the_root_folder_as_home(daemon: Daemon) -> None:
    said = run(daemon, "-u", "4321", IMAGE, "sh", "-c", "id -u; echo $HOME; grep CapEff /proc/self/status")
    assert said.split() == ["4321", "/", "CapEff:", "0000000000000000"]


def test_capabilities_can_be_dropped_and_added(daemon: Daemon) -> None:
    assert (
        run(daemon, "--cap-drop", "ALL", "--cap-add", "CHOWN", IMAGE, "grep", "CapEff", "/proc/self/status").split()[1]
        == "0000000000000001"
    )


def test_security_options(daemon: Daemon) -> None:
    words = ["--security-opt", "seccomp=unconfined", "--security-opt", "no-new-privileges"]
    said = run(daemon, *words, IMAGE, "grep", "-E", "^(Seccomp|NoNewPrivs):", "/proc/self/status")
    assert said.split() == ["NoNewPrivs:", "1", "Seccomp:", "0"]


def test_read_only_root_with_writable_shm(daemon: Daemon) -> None:
    said = run(daemon, "--read-only", IMAGE, "sh", "-c", "touch /x; touch /tmp/x; touch /dev/shm/x && echo shm")
    assert said.count("Read-only file system") == 2
    assert "shm" in said


@requires("root")
def test_limits_are_in_the_cgroup(daemon: Daemon) -> None:
    script = (
        "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max; cat /sys/fs/cgroup/pids/pids.max /sys/fs/cgroup/pids.max;"
        "cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us /sys/fs/cgroup/cpu.max"
    )
    said = run(
        daemon,
        "--memory",
        "64m",
        "--pids-limit",
        "50",
        "--cpus",
        ".5",
        IMAGE,
        "sh",
        "-c",
        f"{{ {script}; }} 2>/dev/null",
    )
    assert said.split()[:3] == ["67108864", "50", "50000"]


@requires("cgroups")
def test_over_the_memory_limit_it_is_killed(daemon: Daemon) -> None:
    done = daemon.cli(
        "run",
        "--name",
        "labkit-oom",
        "--memory",
        "16m",
        IMAGE,
        "sh",
        "-c",
        "exec tail -c 100000000 /dev/zero > /dev/null",
    )
    inspected = daemon.cli("inspect", "-f", "{{.State.OOMKilled}}", "labkit-oom").stdout.strip()
    daemon.cli("rm", "labkit-oom")
    assert (done.returncode, inspected) == (137, b"true")


@requires("cgroups")
def test_over_the_pids_limit_fork_fails(daemon: Daemon) -> None:
    said = run(daemon, "--pids-limit", "6", IMAGE, "sh", "-c", "for i in 1 2 3 4 5 6 7 8 9; do sleep 1 & done; wait")
    assert "fork" in said


def test_ulimit_names_hosts_and_dns(daemon: Daemon) -> None:
    assert run(daemon, "--ulimit", "nofile=100:200", IMAGE, "sh", "-c", "ulimit -n; ulimit -Hn").split() == [
        "100",
        "200",
    ]
    said = run(
        daemon, "--hostname", "inner", "--add-host", "other:10.9.8.7", IMAGE, "sh", "-c", "hostname; cat /etc/hosts"
    )
    assert said.startswith("inner\n")
    assert re.search(r"^10\.9\.8\.7\s+other$", said, re.M)
    assert re.search(r"^172\.\S+\s+inner$", said, re.M)
    said = run(daemon, "--dns", "9.8.7.6", "--dns-search", "example.org", IMAGE, "cat", "/etc/resolv.conf")
    assert said.splitlines() == ["search example.org", "nameserver 9.8.7.6"]


def test_environment_and_folder_can_be_given(daemon: Daemon) -> None:
    assert run(daemon, "-e", "A=1", "-w", "/new/place", IMAGE, "sh", "-c", "echo $A; pwd").split() == [
        "1",
        "/new/place",
    ]


def test_tmpfs_and_binds(daemon: Daemon, folder: Path) -> None:
    said = run(daemon, "--tmpfs", "/scratch", IMAGE, "grep", " /scratch ", "/proc/mounts")
    assert {"nosuid", "nodev", "noexec"} <= set(said.split()[3].split(","))
    (folder / "file").write_text("host\n")
    folder.chmod(0o755)
    said = run(daemon, "-v", f"{folder}:/v:ro", IMAGE, "sh", "-c", "cat /v/file; touch /v/new")
    assert said.startswith("host\n")
    assert "Read-only file system" in said
    run(daemon, "-v", f"{folder}:/v", IMAGE, "sh", "-c", "echo inner > /v/made")
    made = folder / "made"
    assert made.read_text() == "inner\n"
    assert made.stat().st_uid == folder.stat().st_uid


def test_a_named_volume_is_filled_from_the_image_and_keeps_its_data(daemon: Daemon) -> None:
    try:
        assert "passwd" in run(daemon, "-v", "labkitetc:/etc", IMAGE, "ls", "/etc")
        run(daemon, "-v", "labkitetc:/x", IMAGE, "sh", "-c", "echo more > /x/more")
        assert run(daemon, "-v", "labkitetc:/x", IMAGE, "sh", "-c", "cat /x/more; ls /x").split() == [
            "more",
            "group",
            "more",
            "passwd",
        ]
    finally:
        daemon.cli("volume", "rm", "labkitetc")


def test_exit_statuses(daemon: Daemon) -> None:
    wanted = {("sh", "-c", "exit 3"): 3, ("nosuchcommand",): 127, ("/etc/passwd",): 126, ("/etc",): 126}
    assert {words: daemon.cli("run", "--rm", IMAGE, *words).returncode for words in wanted} == wanted
    assert daemon.cli("run", "--rm", "--memory", "1m", IMAGE, "true").returncode == 125


def test_streams_are_separate_and_input_is_passed_on(daemon: Daemon) -> None:
    done = daemon.cli("run", "--rm", IMAGE, "sh", "-c", "echo out; echo err >&2")
    assert (done.stdout, done.stderr) == (b"out\n", b"err\n")
    data = bytes(range(256)) * 1200
    assert daemon.cli("run", "--rm", "-i", IMAGE, "cat", data=data).stdout == data


def test_stop_sends_TERM_first_and_kills_after_the_grace_period(daemon: Daemon) -> None:
    for script, code in (
        ("trap 'exit 9' TERM; while :; do sleep .05; done", b"9"),
        ("trap '' TERM; while :; do sleep .05; done", b"137"),
    ):
        identity = daemon.cli("run", "-d", IMAGE, "sh", "-c", script).stdout.decode().strip()
        daemon.cli("exec", identity, "true")
        daemon.cli("stop", "-t", "1", identity)
        said = daemon.cli(
            "inspect", "-f", "{{.State.ExitCode}} {{.State.Status}} {{.State.Pid}}", identity
        ).stdout.split()
        daemon.cli("rm", identity)
        assert said == [code, b"exited", b"0"]


def test_exec_joins_with_user_environment_and_capabilities(daemon: Daemon) -> None:
    identity = (
        daemon.cli("run", "-d", "-u", "1000", "-e", "A=1", "--hostname", "inner", IMAGE, "sleep", "60")
        .stdout.decode()
        .strip()
    )
    try:
        said = daemon.cli("exec", identity, "sh", "-c", "id -u; echo $A; hostname; cat /proc/1/comm").stdout.split()
        assert said == [b"1000", b"1", b"inner", b"sleep"]
        said = daemon.cli("exec", "-u", "0", identity, "grep", "CapEff", "/proc/self/status").stdout.split()
        assert said[1] == b"00000000a80425fb"
        assert daemon.cli("exec", identity, "sh", "-c", "exit 5").returncode == 5
    finally:
        daemon.cli("rm", "-f", identity)

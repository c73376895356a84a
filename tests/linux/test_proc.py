from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labkit.linux import proc
from labkit.linux.proc import CapabilitySets, CgroupLine, IdMapping, Ids, ProcessStat, ProcessStatus
from tests.support import in_child, requires, run_python

ids = st.integers(0, 2**32 - 1)
pids = st.integers(1, 2**22)
masks = st.integers(0, 2**41 - 1)
kib = st.none() | st.integers(0, 2**40).map(lambda number: number * 1024)
# A process may call itself anything of up to 15 bytes without NUL.
names = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=15)
four_ids = st.builds(Ids, ids, ids, ids, ids)
statuses = st.builds(
    ProcessStatus,
    name=names,
    state=st.sampled_from("RSDZTtXI"),
    pid=pids,
    parent_pid=pids,
    tracer_pid=pids,
    inner_pids=st.lists(pids, min_size=1, max_size=4).map(tuple),
    uids=four_ids,
    gids=four_ids,
    groups=st.lists(ids, max_size=4).map(tuple),
    threads=st.integers(1, 1000),
    virtual_bytes=kib,
    resident_bytes=kib,
    resident_peak_bytes=kib,
    capabilities=st.builds(CapabilitySets, masks, masks, masks, masks, masks),
    no_new_privs=st.booleans(),
    seccomp_mode=st.integers(0, 2),
)
numbers = st.integers(0, 2**60)
stats = st.builds(
    ProcessStat, pids, names, st.sampled_from("RSDZTtXI"), pids, pids, pids, numbers, numbers, pids, numbers, numbers, numbers
)  # fmt: skip


def status_text(status: ProcessStatus) -> str:
    """Write a status as the kernel does (fs/proc/array.c), with lines between that the parser leaves out."""
    words = {key: " ".join(map(str, value)) for key, value in (("groups", status.groups), ("ns", status.inner_pids))}
    uids, gids = ("\t".join(str(getattr(i, f)) for f in i.__slots__) for i in (status.uids, status.gids))
    name = status.name.replace("\\", "\\\\").replace("\n", "\\n")
    sizes = {"VmSize": status.virtual_bytes, "VmHWM": status.resident_peak_bytes, "VmRSS": status.resident_bytes}
    masks = zip(("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"), _fields(status.capabilities), strict=True)
    lines = [
        f"Name:\t{name}", "Umask:\t0022", f"State:\t{status.state} (whatever)", f"Tgid:\t{status.pid}", "Ngid:\t0",
        f"Pid:\t{status.pid}", f"PPid:\t{status.parent_pid}", f"TracerPid:\t{status.tracer_pid}",
        f"Uid:\t{uids}", f"Gid:\t{gids}", "FDSize:\t64", f"Groups:\t{words['groups']} ", f"NSpid:\t{words['ns']}",
        *(f"{key}:\t{size // 1024:8} kB" for key, size in sizes.items() if size is not None),
        f"Threads:\t{status.threads}", "SigQ:\t0/62692",
        *(f"{key}:\t{mask:016x}" for key, mask in masks),
        f"NoNewPrivs:\t{int(status.no_new_privs)}", f"Seccomp:\t{status.seccomp_mode}",
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def _fields(result: object) -> list[int]:
    return [getattr(result, name) for name in type(result).__slots__]  # type: ignore[attr-defined]


def stat_text(stat: ProcessStat) -> str:
    """Write a stat line: field 1 to 52 of proc_pid_stat(5), with a 7 in those that the parser leaves out."""
    words = ["7"] * 49
    known = {
        0: stat.parent_pid, 1: stat.process_group, 2: stat.session, 10: stat.user_ticks, 11: stat.system_ticks,
        16: stat.threads, 18: stat.start_ticks, 19: stat.virtual_bytes, 20: stat.resident_pages,
    }  # fmt: skip
    for index, value in known.items():
        words[index] = str(value)
    return f"{stat.pid} ({stat.command}) {stat.state} {' '.join(words)}\n"


@given(statuses)
def test_a_status_is_read_as_it_was_written_whatever_the_process_calls_itself(status: ProcessStatus) -> None:
    assert proc.parse_status(status_text(status)) == status


@given(stats)
def test_a_stat_line_is_read_as_it_was_written_whatever_the_command(stat: ProcessStat) -> None:
    assert proc.parse_stat(stat_text(stat)) == stat


@given(st.lists(st.builds(IdMapping, ids, ids, ids), max_size=5).map(tuple))
def test_an_id_map_is_read_as_the_kernel_writes_it(mappings: tuple[IdMapping, ...]) -> None:
    text = "".join(f"{m.inside:10} {m.outside:10} {m.count:10}\n" for m in mappings)
    assert proc.parse_id_map(text) == mappings
    assert proc.parse_id_map("\n".join(map(str, mappings))) == mappings


paths = st.text(st.characters(exclude_characters="\0\n", exclude_categories=["Cs"]), max_size=20).map("/".__add__)
words = st.text("abcdefgh_=", min_size=1, max_size=8)


@given(st.lists(st.builds(CgroupLine, st.integers(0, 20), st.lists(words, max_size=3).map(tuple), paths), max_size=5))
def test_a_cgroup_file_is_read_as_it_was_written_with_colons_in_the_path(lines: list[CgroupLine]) -> None:
    text = "".join(f"{line.hierarchy_id}:{','.join(line.controllers)}:{line.path}\n" for line in lines)
    assert proc.parse_cgroup(text) == tuple(lines)


def test_the_own_status_agrees_with_psutil_and_os() -> None:
    status, witness = proc.read_status(), psutil.Process()
    assert (status.pid, status.parent_pid) == (os.getpid(), os.getppid())
    assert (status.uids.real, status.uids.effective, status.uids.saved) == os.getresuid()
    assert (status.gids.real, status.gids.effective, status.gids.saved) == os.getresgid()
    assert set(status.groups) == set(os.getgroups())
    assert status.threads == witness.num_threads()
    assert status.inner_pids[-1] == os.getpid()
    assert status.resident_bytes == pytest.approx(witness.memory_info().rss, rel=0.2)
    assert status.virtual_bytes == pytest.approx(witness.memory_info().vms, rel=0.2)
    assert (status.resident_peak_bytes or 0) >= (status.resident_bytes or 1)


@requires("program:ps")
def test_another_process_agrees_with_ps() -> None:
    with subprocess.Popen(["sleep", "30"]) as child:
        try:
            columns = ["pid", "ppid", "pgid", "sid", "nlwp", "vsz"]
            done = subprocess.run(
                ["ps", "-o", ",".join(f"{name}=" for name in columns), "-p", str(child.pid)],
                capture_output=True, text=True, check=True,
            )  # fmt: skip
            stat = proc.read_stat(child.pid)
            seen = [
                stat.pid,
                stat.parent_pid,
                stat.process_group,
                stat.session,
                stat.threads,
                stat.virtual_bytes // 1024,
            ]
            assert seen == list(map(int, done.stdout.split()))
        finally:
            child.kill()


def test_time_spent_agrees_with_psutil() -> None:
    deadline_s = time.process_time() + 0.05
    while time.process_time() < deadline_s:
        pass
    times = psutil.Process().cpu_times()
    assert proc.read_stat().cpu_s == pytest.approx(times.user + times.system, abs=0.05)
    boot_s = psutil.boot_time() + proc.read_stat().start_ticks / os.sysconf("SC_CLK_TCK")
    assert boot_s == pytest.approx(psutil.Process().create_time(), abs=1.5)


def test_a_process_may_call_itself_something_nasty() -> None:
    def name_and_read(name: str) -> list[str]:
        import ctypes

        from labkit.linux.constants import Prctl
        from labkit.linux.proc import read_stat, read_status
        from labkit.linux.syscalls import prctl

        buffer = ctypes.create_string_buffer(name.encode())
        prctl(Prctl.SET_NAME, ctypes.addressof(buffer))
        return [read_status().name, read_stat().command]

    for name in (") S 1 (x", "a b\nc", "\\n\\", "(((", "))) 0 0"):
        assert in_child(name_and_read, name) == [name, name]


def test_a_kernel_thread_and_a_zombie_have_no_memory() -> None:
    child = subprocess.Popen(["true"])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    status = proc.read_status(child.pid)
    assert (status.state, status.resident_bytes, status.virtual_bytes) == ("Z", None, None)
    child.wait()


def test_a_process_that_is_gone_raises_what_the_kernel_answers() -> None:
    child = subprocess.Popen(["true"])
    child.wait()
    with pytest.raises(FileNotFoundError):
        proc.read_status(child.pid)


def test_the_memory_of_a_process_agrees_with_psutil_and_its_parts_add_up() -> None:
    rollup = proc.read_smaps_rollup()
    witness = psutil.Process().memory_full_info()
    assert rollup.proportional_bytes == pytest.approx(witness.pss, rel=0.1)
    assert rollup.private_bytes == pytest.approx(witness.uss, rel=0.1)
    assert rollup.private_bytes + rollup.shared_bytes == rollup.resident_bytes
    assert rollup.private_bytes <= rollup.proportional_bytes <= rollup.resident_bytes


def test_the_own_cgroups_are_the_lines_of_the_file() -> None:
    lines = Path("/proc/self/cgroup").read_text().splitlines()
    read = proc.read_cgroup()
    assert [f"{line.hierarchy_id}:{','.join(line.controllers)}:{line.path}" for line in read] == lines


@requires("userns")
def test_the_maps_of_a_new_user_namespace_agree_with_what_unshare_was_told() -> None:
    command = ["unshare", "--user", "--map-root-user", "sh", "-c", "echo ready; read line"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        assert proc.read_uid_map(child.pid) == (IdMapping(0, os.geteuid(), 1),)
        assert proc.read_gid_map(child.pid) == (IdMapping(0, os.getegid(), 1),)


def test_the_parsers_need_the_standard_library_alone() -> None:
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from labkit.linux import mountinfo, proc\n"
        "proc.read_status(); mountinfo.read_mountinfo()\n"
        "print([name for name in sys.modules if 'site-packages' in str(getattr(sys.modules[name], '__file__', ''))])"
    )
    done = run_python(code, str(Path(proc.__file__).parents[2]), flags=("-I", "-S"))
    assert (done.stdout.strip(), done.stderr) == ("[]", "")
    assert sys.version_info >= (3, 11)

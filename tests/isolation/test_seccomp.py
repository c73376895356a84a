"""The default seccomp profile, loaded for real in child processes; podman's installed profile is a second witness."""

from __future__ import annotations

import json
import platform
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from labkit.errors import FeatureMissing, InvalidSpec
from labkit.isolation import bpf, seccomp
from labkit.isolation.seccomp_groups import ALLOWED, CLOSED
from tests.support import PROJECT, ChildFailed, in_child, requires

pytestmark = requires("pyseccomp")
x86_64_only = pytest.mark.skipif(platform.machine() != "x86_64", reason="machine code and numbers of x86-64")
X86_64 = 0xC000_003E
CONDITIONAL = {"clone", "clone3", "socket", "personality"}
HEADER = Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h")
PODMAN_PROFILE = Path("/usr/share/containers/seccomp.json")


def _numbers(calls: set[str]) -> dict[str, int]:
    import pyseccomp

    found = {call: pyseccomp.resolve_syscall(pyseccomp.Arch.NATIVE, call) for call in calls}
    return {call: number for call, number in found.items() if number >= 0}


def _default() -> bytes:
    return seccomp.compile_filter(seccomp.default_profile())


def _try_calls(filter_hex: str, calls: dict[str, list[int]]) -> dict[str, int]:
    """Load the filter, make each call with its arguments, return what errno each one gave (0: none)."""
    import ctypes

    from labkit.linux.constants import Prctl
    from labkit.linux.syscalls import prctl, seccomp_set_filter

    syscall = ctypes.CDLL(None, use_errno=True).syscall
    syscall.restype = ctypes.c_long
    prctl(Prctl.SET_NO_NEW_PRIVS, 1)
    seccomp_set_filter(bytes.fromhex(filter_hex))
    answers = {}
    for name, words in calls.items():
        ctypes.set_errno(0)
        answers[name] = ctypes.get_errno() if syscall(*map(ctypes.c_long, words)) < 0 else 0
    return answers


def test_every_closed_call_fails_with_eperm_when_really_made() -> None:
    held = {"CAP_SYS_CHROOT", "CAP_MKNOD", "CAP_NET_RAW"}
    closed = {call for group in CLOSED if not held.intersection(group.capabilities) for call in group.calls}
    numbers = _numbers(closed)
    assert len(numbers) > 45
    answers = in_child(
        _try_calls, _default().hex(), {name: [number, 0, 0, 0, 0, 0, 0] for name, number in numbers.items()}
    )
    assert {name for name, errno in answers.items() if errno != 1} == set()


@x86_64_only
def test_what_would_make_namespaces_or_odd_sockets_fails_with_the_errno_documented() -> None:
    new_user, sigchld = 0x1000_0000, 17
    answers = in_child(
        _try_calls,
        _default().hex(),
        {
            "clone3": [435, 0, 0],
            "clone with a new user namespace": [56, new_user | sigchld, 0, 0, 0, 0],
            "clone with a new cgroup namespace": [56, 0x0200_0000, 0, 0, 0, 0],
            "AF_VSOCK": [41, 40, 1, 0],
            "AF_VSOCK with upper bits set": [41, 40 | 1 << 32, 1, 0],
            "AF_ALG": [41, 38, 5, 0],
            "AF_UNIX": [41, 1, 1, 0],
            "AF_INET": [41, 2, 1, 0],
            "AF_NETLINK": [41, 16, 3, 0],
            "personality: no randomisation": [135, 0x0004_0000],
            "personality: which?": [135, 0xFFFF_FFFF],
            "a call of the future": [600],
        },
    )
    assert answers == {
        "clone3": 38,
        "clone with a new user namespace": 1,
        "clone with a new cgroup namespace": 1,
        "AF_VSOCK": 1,
        "AF_VSOCK with upper bits set": 1,
        "AF_ALG": 1,
        "AF_UNIX": 0,
        "AF_INET": 0,
        "AF_NETLINK": 0,
        "personality: no randomisation": 1,
        "personality: which?": 0,
        "a call of the future": 38,
    }


@pytest.mark.parametrize(
    "command",
    [
        ["sh", "-c", "x=$(echo hello | tr a-z A-Z); test $x = HELLO && ls / > /dev/null && sleep 0.01"],
        [sys.executable, "-I", "-c", "import threading, subprocess, socket, tempfile, hashlib, asyncio, mmap\n"
         "t = threading.Thread(target=print); t.start(); t.join(); subprocess.run(['true'], check=True)\n"
         "socket.socketpair(); tempfile.TemporaryFile().write(b'x'); asyncio.run(asyncio.sleep(0)); mmap.mmap(-1, 4096)"],
        ["busybox", "sh", "-c", "busybox ps > /dev/null; busybox tar -c /etc/hostname 2> /dev/null | busybox wc -c"],
        [sys.executable, "-c", "import multiprocessing as m\nif __name__ == '__main__':\n"
         "    with m.get_context('fork').Pool(2) as p: assert p.map(abs, [-1, -2]) == [1, 2]"],
    ],
    ids=["shell", "python", "busybox", "pool"],
)  # fmt: skip
def test_ordinary_programs_run_under_the_filter(command: list[str]) -> None:
    if shutil.which(command[0]) is None:
        pytest.skip(f"there is no program {command[0]} on PATH")

    def inside(filter_hex: str, command: list[str]) -> list[object]:
        import subprocess

        from labkit.linux.constants import Prctl
        from labkit.linux.syscalls import prctl, seccomp_set_filter

        prctl(Prctl.SET_NO_NEW_PRIVS, 1)
        seccomp_set_filter(bytes.fromhex(filter_hex))
        with open("/proc/self/status") as file:
            mode = next(line.split()[1] for line in file if line.startswith("Seccomp:"))
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return [mode, done.returncode, done.stderr]

    assert in_child(inside, _default().hex(), command) == ["2", 0, ""]


def _enter_by_other_door(filter_hex: str, code_hex: str) -> int:
    """Run machine code that returns a value in eax, under the filter unless it is empty."""
    import ctypes
    import mmap

    from labkit.linux.constants import Prctl
    from labkit.linux.syscalls import prctl, seccomp_set_filter

    page = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(bytes.fromhex(code_hex))
    function = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))
    if filter_hex:
        prctl(Prctl.SET_NO_NEW_PRIVS, 1)
        seccomp_set_filter(bytes.fromhex(filter_hex))
    return function()


def _int80(number: int) -> str:
    # push rbx; mov eax, number; xor ebx, ebx; int 0x80; pop rbx; ret
    return "53b8" + number.to_bytes(4, "little").hex() + "31dbcd805bc3"


def _syscall(number: int) -> str:
    return "b8" + number.to_bytes(4, "little").hex() + "31ff0f05c3"  # mov eax, number; xor edi, edi; syscall; ret


def _ia32() -> bool:
    try:
        return in_child(_enter_by_other_door, "", _int80(20)) > 0
    except ChildFailed:
        return False


@x86_64_only
@pytest.mark.parametrize(
    "code", [_int80(20), _int80(310), _syscall(0x4000_0000 | 39)], ids=["getpid", "unshare", "x32"]
)
def test_the_32_bit_entry_kills_the_process(code: str) -> None:
    if code.startswith("53") and not _ia32():
        pytest.skip("this kernel has no 32-bit entry")
    with pytest.raises(ChildFailed, match=f"status -{signal.SIGSYS}\\b"):
        in_child(_enter_by_other_door, _default().hex(), code)


@x86_64_only
def test_a_profile_that_names_x86_filters_the_32_bit_entry_alike() -> None:
    if not _ia32():
        pytest.skip("this kernel has no 32-bit entry")
    both = seccomp.compile_filter(seccomp.default_profile(architectures=("x86", "x32"))).hex()
    assert in_child(_enter_by_other_door, both, _int80(20)) > 0
    assert in_child(_enter_by_other_door, both, _int80(310)) == -1  # unshare: -EPERM
    assert in_child(_enter_by_other_door, both, _int80(102)) == -1  # socketcall, whose family no filter can see


def _allowed(capabilities: tuple[str, ...], calls: set[str]) -> set[str]:
    program = bpf.parse(seccomp.compile_filter(seccomp.default_profile(capabilities)))
    return {
        name for name, number in _numbers(calls).items() if bpf.action_name(bpf.decide(program, number, arch=X86_64)) == "allow"
    }  # fmt: skip


@x86_64_only
def test_a_capability_opens_its_calls_and_no_others() -> None:
    calls = {call for group in CLOSED for call in group.calls} | {"clone3"}
    none = _allowed((), calls)
    assert none == set()
    assert _allowed(("CAP_SYS_TIME",), calls) == {"settimeofday", "clock_settime"}
    assert {"mount", "unshare", "setns", "clone3", "bpf"} <= _allowed(("CAP_SYS_ADMIN",), calls)
    assert _allowed(("sys_chroot",), calls) == {"chroot"}
    never = {"keyctl", "add_key", "userfaultfd", "io_uring_setup", "kexec_load", "pivot_root"}
    assert not never & _allowed(("ALL",), calls)


def test_every_call_of_linux_6_7_has_a_group_and_a_reason() -> None:
    import pyseccomp

    grouped = {call for group in (*ALLOWED, *CLOSED) for call in group.calls}
    assert sum(len(group.calls) for group in (*ALLOWED, *CLOSED)) == len(grouped), "a call stands in two groups"
    for number in range(457):
        try:
            call = pyseccomp.resolve_syscall(pyseccomp.Arch.NATIVE, number).decode()
        except ValueError:
            continue
        assert call in grouped | CONDITIONAL, call
        assert seccomp.reason_for(call), call
    assert seccomp.reason_for("no_such_call") == ""


@x86_64_only
@pytest.mark.skipif(not PODMAN_PROFILE.exists(), reason=f"no {PODMAN_PROFILE} here")
def test_what_podman_refuses_to_every_container_is_refused_here_too() -> None:
    rules = json.loads(PODMAN_PROFILE.read_text())["syscalls"]
    refused = {
        name for rule in rules if rule["action"] == "SCMP_ACT_ERRNO" and not rule["includes"] and not rule["args"]
        for name in rule["names"]
    }  # fmt: skip
    allowed = {
        name for rule in rules if rule["action"] == "SCMP_ACT_ALLOW" and not rule["includes"] for name in rule["names"]
    }
    refused -= allowed
    ours = _allowed((), refused)
    # Docker allows these two: vmsplice, whose hole of 2008 is long closed, and the old asynchronous wait.
    assert ours == {"vmsplice", "io_pgetevents"}


@x86_64_only
@pytest.mark.skipif(not HEADER.exists(), reason=f"no {HEADER} here")
def test_numbers_agree_with_the_kernels_header() -> None:
    lines = (line.split() for line in HEADER.read_text().splitlines() if line.startswith("#define __NR_"))
    header = {name.removeprefix("__NR_"): int(number) for _, name, number in lines}
    ours = _numbers({call for group in (*ALLOWED, *CLOSED) for call in group.calls} | CONDITIONAL)
    both = ours.keys() & header.keys()
    assert len(both) > 300
    assert {name: ours[name] for name in both} == {name: header[name] for name in both}


def test_a_profile_is_compiled_once() -> None:
    assert _default() is _default()


def test_without_the_library_the_error_names_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyseccomp", None)
    with pytest.raises(FeatureMissing, match="pip install pyseccomp"):
        seccomp.compile_filter.__wrapped__(seccomp.default_profile())


def test_unknown_names_are_refused_in_one_sentence() -> None:
    with pytest.raises(InvalidSpec, match="'CAP_FLY'"):
        seccomp.default_profile(("CAP_FLY",))
    with pytest.raises(InvalidSpec, match="no architecture 'z80'"):
        seccomp.compile_filter(seccomp.default_profile(architectures=("z80",)))


def test_the_module_runs_alone() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "labkit.isolation.seccomp"],
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
        cwd=PROJECT,
    )
    assert "make a Unix socket: allowed" in done.stdout
    assert "Operation not permitted" in done.stdout

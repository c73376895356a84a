"""The kernel's own interfaces: calls that act on the whole machine or that no lesson needs, through both entries; and devices.

Where the kernel can only say yes or no, its answer is what counts. Where a yes shows on the host (a key, the clock, the message
buffer, what Ctrl-Alt-Del does) that is looked at instead.
"""

from __future__ import annotations

import ctypes
import os
import secrets
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from labkit.linux import keys
from tests.attacks.canaries import granted, said, token
from tests.attacks.harness import Attack, Canary, Plain, always, is_root, try_attack
from tests.attacks.inside import low_memory, syscall, syscall32
from tests.attacks.kernels import SandboxedKernel, requires_sandbox
from tests.support import PROJECT, run_python

pytestmark = [requires_sandbox, pytest.mark.timeout(300)]
ONLY_ROOT = always("an ordinary user may not do that", for_root=False)


# -- programs --------------------------------------------------------------------------------------------------------


def calls(number: int, arguments: list[Any], entry: int) -> dict[str, Any]:
    """Make one system call; text among the arguments stands for memory with these bytes, in hexadecimal digits."""
    if entry == 64:
        ready = [bytes.fromhex(a) if isinstance(a, str) else a for a in arguments]
        return {"result": syscall(number, *ready)}
    low = [low_memory(bytes.fromhex(a)) if isinstance(a, str) else a for a in arguments]
    if entry == 32:
        return {"result": syscall32(number, *low)}
    return {"result": syscall(number | 0x40000000, *low)}  # x32: 64-bit registers, numbers of their own


def steals_a_key(name: str, numbers: list[int], entry: int) -> dict[str, Any]:
    call = syscall if entry == 64 else syscall32
    buffer = low_memory(bytes(200))
    kind, wanted = low_memory(b"user\0"), low_memory(name.encode() + b"\0")
    keyctl = numbers[0]
    call(keyctl, 1, 0, 0, 0, 0)  # a session keyring of its own, into which the one of the user is linked
    call(keyctl, 8, -4, -3, 0, 0)
    found = call(keyctl, 10, -3, kind, wanted, 0)
    length = call(keyctl, 11, found, buffer, 200, 0)
    return {"text": ctypes.string_at(buffer, length).decode()}


def sets_the_clock_error(value: int, number: int, entry: int) -> None:
    """Set a number that the clock keeps beside the time: as good as setting the time, and it hurts nobody."""
    if entry == 64:
        timex = (4).to_bytes(8, "little") + bytes(16) + value.to_bytes(8, "little") + bytes(300)
        syscall(number, 0, timex)
    else:
        timex = (4).to_bytes(4, "little") + bytes(8) + value.to_bytes(4, "little") + bytes(300)
        syscall32(number, 0, low_memory(timex))


def reads_the_messages(number: int, entry: int) -> dict[str, Any]:
    buffer = low_memory(bytes(60000))
    length = (syscall if entry == 64 else syscall32)(number, 3, buffer, 60000)
    return {"text": ctypes.string_at(buffer, length).decode(errors="replace")}


def reads_the_message_device() -> dict[str, Any]:
    fd, found = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK), b""
    while True:
        try:
            found = (found + os.read(fd, 8192))[-60000:]
        except BlockingIOError:
            return {"text": found.decode(errors="replace")}
        except BrokenPipeError:
            continue


def forgets_control_alt_delete(number: int, entry: int) -> None:
    (syscall if entry == 64 else syscall32)(number, 0xFEE1DEAD, 672274793, 0, 0)


def opens_a_device(paths: list[str]) -> dict[str, Any]:
    opened, refusal = [], OSError(2, "none is there")
    for path in paths:
        try:
            os.close(os.open(path, os.O_RDWR | os.O_NONBLOCK))
            opened.append(path)
        except OSError as error:
            refusal = error
    if not opened:
        raise refusal
    return {"text": " ".join(opened)}


def knows_where_the_kernel_lies() -> dict[str, Any]:
    with open("/proc/kallsyms") as file:
        address = file.readline().split()[0]
    if int(address, 16) == 0:
        raise OSError(1, "hidden")
    return {"text": address}


def types_into_the_terminal(text: str) -> dict[str, Any]:
    import fcntl

    places = [0, 1, 2]
    try:
        places.append(os.open("/dev/tty", os.O_RDWR))
    except OSError:
        pass
    refusal = OSError(25, "no terminal")
    for fd in places:
        try:
            for letter in text:
                fcntl.ioctl(fd, 0x5412, letter.encode())  # TIOCSTI
            return {}
        except OSError as error:
            refusal = error
    raise refusal


# -- canaries ----------------------------------------------------------------------------------------------------------


@contextmanager
def a_key(number: int, entry: int) -> Iterator[Canary]:
    """A key in the keyring of the host's user; reached if the program knows what it holds."""
    name, secret = f"labkit-{secrets.token_hex(6)}", token()
    keys.join_new_session()
    made = keys.add_key(name, secret.encode(), keys.Keyring.USER)
    try:
        yield Canary(
            {"name": name, "numbers": [number], "entry": entry}, lambda answer: secret in answer.get("text", "")
        )
    finally:
        keys.unlink_key(made, keys.Keyring.USER)


class Timex(ctypes.Structure):
    """The start of struct timex, and room for the rest. See: adjtimex(2)."""

    _fields_ = (
        ("modes", ctypes.c_uint), ("offset", ctypes.c_long), ("freq", ctypes.c_long), ("maxerror", ctypes.c_long),
        ("rest", ctypes.c_byte * 300),
    )  # fmt: skip


def clock_error(new: int | None = None) -> int:
    """Return the clock's largest error in microseconds, and set it if asked."""
    timex = Timex(modes=0 if new is None else 4, maxerror=new or 0)
    if ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.byref(timex)) < 0:
        raise OSError(ctypes.get_errno(), "adjtimex")
    return int(timex.maxerror)


@contextmanager
def the_clock(number: int, entry: int) -> Iterator[Canary]:
    before, value = clock_error(), 7_000_000 + secrets.randbelow(1_000_000)
    try:
        arguments = {"value": value, "number": number, "entry": entry}
        yield Canary(arguments, lambda _: abs(clock_error() - value) < 10_000)  # it grows with the time
    finally:
        if clock_error() != before and is_root():
            clock_error(before)


@contextmanager
def a_message(**arguments: Any) -> Iterator[Canary]:
    """A line in the kernel's message buffer; reached if the program reads it."""
    secret = token()
    if is_root():
        Path("/dev/kmsg").write_text(f"{secret}\n")
    yield Canary(arguments, lambda answer: secret in answer.get("text", ""))


@contextmanager
def control_alt_delete(number: int, entry: int) -> Iterator[Canary]:
    path = Path("/proc/sys/kernel/ctrl-alt-del")
    before = path.read_text() if path.exists() else ""
    if is_root() and before:
        path.write_text("1")
    try:
        yield Canary({"number": number, "entry": entry}, lambda _: path.exists() and path.read_text() == "0\n")
    finally:
        if is_root() and before:
            path.write_text(before)


def no_32_bit_entry() -> str:
    """Return why no program can use the entry of 32-bit programs here."""
    text = (PROJECT / "tests/attacks/inside.py").read_text() + "\nprint(syscall32(20) == os.getpid())"
    return "" if run_python(text).stdout == "True\n" else "this kernel has no entry for 32-bit programs"


def setting(path: str) -> int:
    """Return a number from /proc/sys; 0 where it is missing."""
    try:
        return int(Path("/proc/sys", path).read_text())
    except OSError:
        return 0


def closed_to_users(path: str, least: int) -> Any:
    """Return why an ordinary user cannot: the setting is ``least`` or more."""
    return lambda: f"{path} is {setting(path)}" if not is_root() and setting(path) >= least else ""


def is_past(*errors: str) -> Any:
    """Reached if the kernel got past the question whether it may: it answers with something else."""

    def canary(number: int, arguments: list[Any], entry: int) -> Any:
        @contextmanager
        def put_up(*_: Any) -> Iterator[Canary]:
            given = {"number": number, "arguments": arguments, "entry": entry}
            yield Canary(given, lambda answer: granted(answer) or answer["errno"] in errors)

        return put_up

    return canary


def both(
    title: str, numbers: tuple[int, int], arguments: list[Any], cannot: Any, canary: Any = None
) -> Iterator[Attack]:
    """Yield the attack through the entry of 64-bit programs and through the one of 32-bit programs."""
    canary = canary or is_past()
    yield Attack(title, calls, canary(numbers[0], arguments, 64), cannot)
    if numbers[1]:
        yield Attack(
            f"{title}, as a 32-bit program",
            calls,
            canary(numbers[1], arguments, 32),
            lambda: cannot() or no_32_bit_entry(),
        )


def text(words: str) -> str:
    return (words.encode() + b"\0").hex()


def packed(*fields: tuple[int, int]) -> str:
    """Return numbers one after the other, each with its size in bytes, and zeros after them."""
    return (b"".join(number.to_bytes(size, "little") for number, size in fields) + bytes(160)).hex()


ANYBODY = always("", for_root=False)
PERF = packed((1, 4), (64, 4), (9, 8), (0, 24), (0x60, 8))  # a software event, of this program, outside the kernel
X86 = os.uname().machine == "x86_64"
ATTACKS = (
    *both("a map of bpf", (321, 357), [0, packed((2, 4), (4, 4), (4, 4), (1, 4)), 72], closed_to_users("kernel/unprivileged_bpf_disabled", 1)),
    *both("an event of perf", (298, 336), [PERF, 0, -1, -1, 0], closed_to_users("kernel/perf_event_paranoid", 3)),
    *both("the page faults of userfaultfd", (323, 374), [1], ANYBODY),
    *both("a ring of io_uring", (425, 425), [1, packed()], closed_to_users("kernel/io_uring_disabled", 1)),
    *both("another kernel by kexec", (246, 283), [0, 0, 0, 0], ONLY_ROOT),
    *both("a module, removed", (176, 129), [text("labkit_none"), 0], ONLY_ROOT, is_past("ENOENT")),
    *both("a module, loaded", (313, 350), [-1, text(""), 0], ONLY_ROOT, is_past("EBADF", "EINVAL")),
    *both("the ports of devices", (173, 101), [0x80, 1, 1], ONLY_ROOT),
    *both("a place to swap to", (167, 87), [text("/labkit-none"), 0], ONLY_ROOT, is_past("ENOENT")),
    *both("the accounting of processes", (163, 51), [text("/labkit-none")], ONLY_ROOT, is_past("ENOENT")),
    *both("the quotas of a file system", (179, 131), [0x800007 << 8, text("/labkit-none"), 0, 0], ANYBODY, is_past("ENOENT", "ENODEV")),
    *both("a watch over the whole file system", (300, 338), [0, 0], ONLY_ROOT),
    *both("the time of day", (164, 79), [0, packed((0, 8))], ONLY_ROOT),
    *both("a keyring", (250, 288), [0, -3, 1], ANYBODY),
    *both("a new key", (248, 286), [text("user"), text("labkit-new"), text("x"), 1, -2], ANYBODY),
    Attack("a key of the host", steals_a_key, lambda *_: a_key(250, 64)),
    Attack("a key of the host, as a 32-bit program", steals_a_key, lambda *_: a_key(288, 32), no_32_bit_entry),
    Attack("the clock", sets_the_clock_error, lambda *_: the_clock(305, 64), ONLY_ROOT),
    Attack("the clock, as a 32-bit program", sets_the_clock_error, lambda *_: the_clock(343, 32), lambda: ONLY_ROOT() or no_32_bit_entry()),
    Attack("the messages of the kernel", reads_the_messages, lambda *_: a_message(number=103, entry=64), ONLY_ROOT),
    Attack("the messages of the kernel, as a 32-bit program", reads_the_messages, lambda *_: a_message(number=103, entry=32),
           lambda: ONLY_ROOT() or no_32_bit_entry()),
    Attack("the messages of the kernel, from their device", reads_the_message_device, lambda *_: a_message(), ONLY_ROOT),
    Attack("what Control-Alt-Delete does", forgets_control_alt_delete, lambda *_: control_alt_delete(169, 64), ONLY_ROOT),
    Attack("what Control-Alt-Delete does, as a 32-bit program", forgets_control_alt_delete, lambda *_: control_alt_delete(88, 32),
           lambda: ONLY_ROOT() or no_32_bit_entry()),
    Attack("where the kernel lies in memory", knows_where_the_kernel_lies, said(), ONLY_ROOT),
    *(
        Attack(f"the device {path}", opens_a_device, said(paths=[path]), lambda path=path: cannot_open(path))
        for path in ("/dev/mem", "/dev/kvm", "/dev/fuse", "/dev/net/tun", "/dev/loop-control", "/dev/userfaultfd",
                     "/dev/vhost-vsock", "/dev/hwrng", "/dev/rtc0", "/dev/vda", "/dev/port", "/dev/cpu_dma_latency")
    ),
)  # fmt: skip


def cannot_open(path: str) -> str:
    """Return why a program of this user cannot open the device; what root's device answers stands in the way of all."""
    try:
        os.close(os.open(path, os.O_RDWR | os.O_NONBLOCK))
    except FileNotFoundError:
        return f"there is no {path} here"
    except OSError as error:
        return f"{path} answers {error.strerror}"
    return ""


@pytest.mark.skipif(not X86, reason="the numbers of the calls are those of x86-64")
@pytest.mark.parametrize("attack", ATTACKS, ids=str)
def test_no_interface_of_the_kernel_is_reached(attack: Attack, kernel: SandboxedKernel, tmp_path: Path) -> None:
    try_attack(attack, kernel, Plain(tmp_path), tmp_path)


@pytest.mark.skipif(not X86, reason="x32 is of x86-64 only")
@pytest.mark.parametrize("number", [250, 321, 298, 425, 246], ids=["keyctl", "bpf", "perf", "io_uring", "kexec"])
def test_the_numbers_of_x32_are_no_way_around_the_filter(number: int, kernel: SandboxedKernel, tmp_path: Path) -> None:
    """Most kernels have no x32, and then nothing is proved by "no such call": here the filter must answer, not the kernel."""
    attack = Attack("x32", calls, said(number=number, arguments=[0, 0, 0], entry=0))
    with attack.canary(kernel, tmp_path) as canary, kernel.answer(attack, canary.arguments) as answer:
        assert answer["errno"] == "EPERM" or answer["errno"].startswith("it was killed"), answer


TERMINAL = """
import sys
sys.path.insert(0, {project!r})
from tests.attacks.terminal import main
main({mode!r}, {folder!r}, {text!r})
"""


def typed(mode: str, folder: Path, text: str) -> str:
    """Run a server of kernels in a terminal; return what appeared on its input while the attack was going on."""
    (folder / mode).mkdir()
    code = TERMINAL.format(project=str(PROJECT), mode=mode, folder=str(folder / mode), text=text)
    command = shlex.join([sys.executable, "-c", code])
    done = subprocess.run(
        ["script", "--quiet", "--return", "--command", command, "/dev/null"],
        capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, timeout=120,
    )  # fmt: skip
    lines = [line for line in done.stdout.splitlines() if line.startswith("typed: ")]
    assert done.returncode == 0 and len(lines) == 1, done.stdout + done.stderr
    return lines[0]


def test_no_terminal_of_the_server_is_typed_into(tmp_path: Path) -> None:
    text = token()
    if setting("dev/tty/legacy_tiocsti") or is_root():
        assert text in typed("plain", tmp_path, text)
    assert text not in typed("sandbox", tmp_path, text)

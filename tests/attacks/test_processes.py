"""Processes of the host: signals, memory, descriptors, environments, priorities; and what System V and POSIX share between them."""

from __future__ import annotations

import ctypes
import os
import re
import resource
import secrets
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from labkit.linux.ipc import shared_segment
from labkit.sandbox.view import HOME
from tests.attacks.canaries import Process, process, token
from tests.attacks.harness import Answer, Attack, Canary, Plain, always, is_root, try_attack
from tests.attacks.inside import libc, pids, read, syscall
from tests.attacks.kernels import SandboxedKernel, environment_of, requires_sandbox

pytestmark = [requires_sandbox, pytest.mark.timeout(300)]
ONLY_ROOT = always("an ordinary user may not do that", for_root=False)
SERVER_TOKEN = token()


# -- programs --------------------------------------------------------------------------------------------------------


def kills(pid: int, **_: Any) -> None:
    os.kill(pid, 9)


def kills_by_descriptor(pid: int, **_: Any) -> None:
    syscall(424, os.pidfd_open(pid), 9, 0, 0)


def kills_whoever_bears_the_name(**_: Any) -> None:
    for pid in pids():
        try:
            if "labkit-" + "canary" in read(f"/proc/{pid}/cmdline"):
                os.kill(pid, 9)
                return
        except OSError:
            continue
    raise ProcessLookupError(3, "none bears it")


def kills_by_asynchronous_input(pid: int, **_: Any) -> None:
    """The kernel itself sends the signal that fcntl(2) orders, when there is something to read."""
    import fcntl

    end, other = socket.socketpair()
    fcntl.fcntl(end, 10, 9)  # F_SETSIG, SIGKILL
    fcntl.fcntl(end, fcntl.F_SETOWN, pid)
    fcntl.fcntl(end, fcntl.F_SETFL, fcntl.fcntl(end, fcntl.F_GETFL) | 0o20000)  # O_ASYNC
    other.send(b"x")


def traces(pid: int, **_: Any) -> None:
    syscall(101, 0x4206, pid, 0, 0)  # PTRACE_SEIZE


def reads_memory(pid: int, address: int, length: int, **_: Any) -> dict[str, Any]:
    buffer = ctypes.create_string_buffer(length)
    local = (ctypes.c_size_t * 2)(ctypes.addressof(buffer), length)
    remote = (ctypes.c_size_t * 2)(address, length)
    if libc.process_vm_readv(pid, local, 1, remote, 1, 0) < 0:
        raise OSError(ctypes.get_errno(), "process_vm_readv")
    return {"text": buffer.raw.decode()}


def reads_memory_as_a_file(pid: int, address: int, length: int, **_: Any) -> dict[str, Any]:
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as file:
        file.seek(address)
        return {"text": file.read(length).decode()}


def reads_the_environment(pid: int, **_: Any) -> dict[str, Any]:
    return {"text": read(f"/proc/{pid}/environ")}


def reads_an_open_file(pid: int, fd: int, **_: Any) -> dict[str, Any]:
    return {"text": read(f"/proc/{pid}/fd/{fd}")}


def takes_a_descriptor(pid: int, fd: int, **_: Any) -> dict[str, Any]:
    return {"text": os.pread(syscall(438, os.pidfd_open(pid), fd, 0), 100, 0).decode()}


def moves_into_a_namespace_of(pid: int, **_: Any) -> None:
    for name in ("net", "uts", "ipc"):
        fd = os.open(f"/proc/{pid}/ns/{name}", os.O_RDONLY)
        if libc.setns(fd, 0) < 0:
            raise OSError(ctypes.get_errno(), "setns")


def makes_slow(pid: int, **_: Any) -> None:
    os.setpriority(os.PRIO_PROCESS, pid, 19)


def limits_the_files_of(pid: int, **_: Any) -> None:
    import resource

    resource.prlimit(pid, resource.RLIMIT_NOFILE, (77, 77))


def binds_to_one_cpu(pid: int, **_: Any) -> None:
    os.sched_setaffinity(pid, {min(os.sched_getaffinity(0))})


def makes_first_to_be_killed(pid: int, **_: Any) -> None:
    with open(f"/proc/{pid}/oom_score_adj", "w") as file:
        file.write("777")


def looks_for_the_name(**_: Any) -> dict[str, Any]:
    found = []
    for pid in pids():
        try:
            found.append(read(f"/proc/{pid}/cmdline").replace("\0", " "))
        except OSError:
            continue
    return {"text": "\n".join(found)}


def reads_every_environment(**_: Any) -> dict[str, Any]:
    texts = [" ".join(f"{name}={value}" for name, value in os.environ.items())]
    for pid in pids():
        try:
            texts.append(read(f"/proc/{pid}/environ", 65536))
        except OSError:
            continue
    return {"text": " ".join(texts)}


def reads_every_descriptor(**_: Any) -> dict[str, Any]:
    texts = []
    for name in os.listdir("/proc/self/fd"):
        for place in (f"/proc/self/fd/{name}", f"/proc/self/fd/{name}/labkit-secret"):
            try:
                texts.append(read(place))
            except OSError:
                continue
        try:
            texts.append(os.pread(int(name), 1000, 0).decode(errors="replace"))
        except OSError:
            continue
    return {"text": " ".join(texts)}


def attaches_a_segment(segment: int) -> dict[str, Any]:
    libc.shmat.restype = ctypes.c_void_p
    address = libc.shmat(segment, None, 0o10000)
    if address in (None, ctypes.c_void_p(-1).value):
        raise OSError(ctypes.get_errno(), "shmat")
    return {"text": ctypes.string_at(address, 24).decode(errors="replace")}


def opens_a_queue(name: str) -> dict[str, Any]:
    queue = libc.mq_open(name.encode(), os.O_RDONLY | os.O_NONBLOCK)
    if queue < 0:
        raise OSError(ctypes.get_errno(), "mq_open")
    buffer = ctypes.create_string_buffer(8192)
    length = libc.mq_receive(queue, buffer, 8192, None)
    return {"text": buffer.raw[: max(0, length)].decode()}


# -- canaries ----------------------------------------------------------------------------------------------------------


def dead(target: Process, _: Answer) -> bool:
    """Reached if the process has ended."""
    return target.is_dead()


def traced(target: Process, _: Answer) -> bool:
    """Reached if somebody traces it."""
    return "TracerPid:\t0\n" not in Path(f"/proc/{target.pid}/status").read_text()


def in_its_namespaces(target: Process, answer: Answer) -> bool:
    """Reached if the kernel let the program in."""
    return answer["errno"] == ""


def a_process(reached: Any = None, **options: Any) -> Any:
    return lambda _, folder: process(folder, reached, **options)


def on_all_cpus(pid: int) -> None:
    """Let the canary run wherever this process may."""
    os.sched_setaffinity(pid, os.sched_getaffinity(0))


@contextmanager
def a_segment(*_: Any) -> Iterator[Canary]:
    """System V shared memory with a secret."""
    libc.shmat.restype = ctypes.c_void_p
    secret = token()
    with shared_segment(4096) as segment:
        address = libc.shmat(segment, None, 0)
        ctypes.memmove(address, secret.encode(), len(secret))
        libc.shmdt(ctypes.c_void_p(address))
        yield Canary({"segment": segment}, lambda answer: secret in answer.get("text", ""))


@contextmanager
def a_queue(*_: Any) -> Iterator[Canary]:
    """A POSIX message queue with a secret."""
    name, secret = f"/labkit-{secrets.token_hex(4)}", token()
    queue = libc.mq_open(name.encode(), os.O_RDWR | os.O_CREAT | os.O_NONBLOCK, 0o600, None)
    if queue < 0:
        raise OSError(ctypes.get_errno(), "mq_open")
    libc.mq_send(queue, secret.encode(), len(secret), 0)
    try:
        yield Canary({"name": name}, lambda answer: secret in answer.get("text", ""))
    finally:
        os.close(queue)
        libc.mq_unlink(name.encode())


@contextmanager
def a_token_of_the_server(*_: Any) -> Iterator[Canary]:
    yield Canary({}, lambda answer: SERVER_TOKEN in answer.get("text", ""))


@contextmanager
def an_open_file(_: Any, folder: Path) -> Iterator[Canary]:
    """A file and a folder that the server has open, in descriptors which programs would inherit."""
    secret = token()
    (folder / "labkit-secret").write_text(secret)
    fds = [os.open(folder / "labkit-secret", os.O_RDONLY), os.open(folder, os.O_RDONLY)]
    for fd in fds:
        os.set_inheritable(fd, True)
    try:
        yield Canary({}, lambda answer: secret in answer.get("text", ""))
    finally:
        for fd in fds:
            os.close(fd)


def one_cpu() -> str:
    """Return why a process cannot be bound to fewer CPUs."""
    return "" if len(os.sched_getaffinity(0)) > 1 else "this machine has one CPU"


ATTACKS = (
    Attack("kill a process by its number", kills, a_process(dead)),
    Attack("kill a process by a descriptor of it", kills_by_descriptor, a_process(dead)),
    Attack("kill a process that is found by its name", kills_whoever_bears_the_name, a_process(dead)),
    Attack("kill a process by asynchronous input", kills_by_asynchronous_input, a_process(dead)),
    Attack("trace a process", traces, a_process(traced)),
    Attack("read the memory of a process", reads_memory, a_process()),
    Attack("read the memory of a process as a file", reads_memory_as_a_file, a_process()),
    Attack("read the environment of a process", reads_the_environment, a_process()),
    Attack("read a file that a process has open", reads_an_open_file, a_process()),
    Attack("take a descriptor of a process", takes_a_descriptor, a_process()),
    Attack("enter the namespaces of a process", moves_into_a_namespace_of, a_process(in_its_namespaces), ONLY_ROOT),
    Attack(
        "make a process slow", makes_slow,
        a_process(lambda target, _: os.getpriority(os.PRIO_PROCESS, target.pid) == 19),
    ),
    Attack(
        "limit the files of a process", limits_the_files_of,
        a_process(lambda target, _: resource.prlimit(target.pid, resource.RLIMIT_NOFILE)[0] == 77),
    ),
    Attack(
        "bind a process to one CPU", binds_to_one_cpu,
        a_process(lambda target, _: len(os.sched_getaffinity(target.pid)) == 1, prepare=on_all_cpus), one_cpu,
    ),
    Attack(
        "make a process the first to be killed", makes_first_to_be_killed,
        a_process(lambda target, _: Path(f"/proc/{target.pid}/oom_score_adj").read_text() == "777\n"),
    ),
    Attack("see the processes of the host", looks_for_the_name,
           a_process(lambda _, answer: "labkit-canary" in answer.get("text", ""))),
    Attack("read the server's token in an environment", reads_every_environment, a_token_of_the_server, in_kernel=True),
    Attack("read the server's token from a child", reads_every_environment, a_token_of_the_server),
    Attack("use a descriptor of the server", reads_every_descriptor, an_open_file, in_kernel=True),
    Attack("attach shared memory of the host", attaches_a_segment, a_segment),
    Attack("read a message queue of the host", opens_a_queue, a_queue),
)  # fmt: skip


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SandboxedKernel]:
    """A sandboxed kernel whose server has a token in its environment, and files open for everybody."""
    folder = tmp_path_factory.mktemp("attacks")
    with environment_of(JUPYTERHUB_API_TOKEN=SERVER_TOKEN), an_open_file(None, folder):
        made = SandboxedKernel(folder)
        yield made
        made.close()


@pytest.mark.parametrize("attack", ATTACKS, ids=str)
def test_no_process_of_the_host_is_reached(attack: Attack, kernel: SandboxedKernel, tmp_path: Path) -> None:
    plain = Plain(tmp_path, {"JUPYTERHUB_API_TOKEN": SERVER_TOKEN})
    try_attack(attack, kernel, plain, tmp_path)


def test_the_kernel_has_no_descriptor_that_it_does_not_need(kernel: SandboxedKernel, tmp_path: Path) -> None:
    """The server's open file was there when the kernel started: nothing of it may be among the kernel's descriptors."""
    attack = Attack("", reads_every_descriptor, an_open_file, in_kernel=True)
    with kernel.answer(attack, {}) as answer:
        assert not re.search(r"labkit-[0-9a-f]{16}\b", answer["text"])
    links = kernel.run(
        "import os\nfor fd in os.listdir('/proc/self/fd'):\n"
        "    try: print(os.readlink(f'/proc/self/fd/{fd}'))\n    except OSError: pass"
    ).split("\n")
    allowed = ("socket:", "pipe:", "anon_inode:", "/dev/null", "/run/jupyter/", "/proc/", f"{HOME}/", "")
    assert not [link for link in links if not link.startswith(allowed)]


def test_the_server_runs_as_the_user_it_is_said_to() -> None:
    assert is_root() == (subprocess.run(["id", "-u"], capture_output=True, text=True, check=True).stdout == "0\n")

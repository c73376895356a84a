"""Limits: what a student's programs may use up, whether they can lift a limit, and whether somebody else notices."""

from __future__ import annotations

import contextlib
import os
import resource
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.attacks.canaries import said
from tests.attacks.harness import Attack, Canary, Plain, try_attack, wait_until
from tests.attacks.inside import libc
from tests.attacks.kernels import SMALL, SandboxedKernel, requires_sandbox

pytestmark = [requires_sandbox, pytest.mark.timeout(400)]
MIB = 1 << 20
#: More than the policy of the attacked kernel allows, and nothing to the host.
PROCESSES, MEMORY_MIB, DISK_MIB, FILES, DESCRIPTORS = 200, 600, 96, 4000, 1500


# -- programs --------------------------------------------------------------------------------------------------------


def forks(count: int, mark: str) -> dict[str, Any]:
    libc.prctl(15, mark.encode(), 0, 0, 0)  # PR_SET_NAME, by which the host counts them
    made, parent = 0, os.getpid()
    for _ in range(count):
        try:
            child = os.fork()
        except OSError:
            break
        if child == 0:
            libc.prctl(1, 9, 0, 0, 0)  # PR_SET_PDEATHSIG, which tells nothing of a parent that has ended before
            while os.getppid() == parent:
                import signal

                signal.pause()
            os._exit(0)
        made += 1
    return {"count": made}


def forks_after_lifting_every_limit(count: int, mark: str) -> dict[str, Any]:
    import glob
    import resource

    tops = ["/sys/fs/cgroup", "/sys/fs/cgroup/*", "/sys/fs/cgroup/*/..", "/sys/fs/cgroup/*/*", "/sys/fs/cgroup/.."]
    for top in tops:
        for name, value in (("pids.max", "max"), ("memory.max", "max"), ("memory.limit_in_bytes", "-1")):
            for path in glob.glob(f"{top}/{name}"):
                try:
                    with open(path, "w") as file:
                        file.write(value)
                except OSError:
                    continue
        for path in glob.glob(f"{top}/cgroup.procs"):  # and out of the group, upwards
            try:
                with open(path, "w") as file:
                    file.write(str(os.getpid()))
            except OSError:
                continue
    try:
        resource.setrlimit(resource.RLIMIT_NPROC, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    except (OSError, ValueError):
        pass
    libc.prctl(15, mark.encode(), 0, 0, 0)
    made, parent = 0, os.getpid()
    for _ in range(count):
        try:
            child = os.fork()
        except OSError:
            break
        if child == 0:
            libc.prctl(1, 9, 0, 0, 0)
            while os.getppid() == parent:
                import signal

                signal.pause()
            os._exit(0)
        made += 1
    return {"count": made}


def starts_threads(count: int, mark: str) -> dict[str, Any]:
    import threading

    threading.stack_size(65536)
    libc.prctl(15, mark.encode(), 0, 0, 0)
    event = threading.Event()
    made = 0
    for _ in range(count):
        try:
            threading.Thread(target=event.wait, daemon=True).start()
        except RuntimeError:
            break
        made += 1
    return {"count": made}


def takes_memory(size_mib: int) -> dict[str, Any]:
    kept = [bytearray(b"x") * (8 << 20) for _ in range(size_mib // 8)]
    return {"taken_mib": 8 * len(kept)}


def takes_memory_in_children(size_mib: int) -> dict[str, Any]:
    """Several processes, none of which is large; what counts is what they have at the same time."""
    import select
    import signal
    import time

    read_end, write_end = os.pipe()
    pids, parent = [], os.getpid()
    for number in range(size_mib // 60):
        pids.append(os.fork())
        if pids[-1] == 0:
            libc.prctl(1, 9, 0, 0, 0)
            if os.getppid() != parent:
                os._exit(0)
            kept = bytearray(b"x") * (60 << 20)
            os.write(write_end, bytes([number]) if kept else b"")
            while True:
                signal.pause()
    os.close(write_end)
    taken: set[int] = set()
    ended: set[int] = set()
    deadline_s = time.monotonic() + 30
    # However slow the machine is: until each has what it wants, or has been killed for wanting it.
    while len(taken | ended) < len(pids) and time.monotonic() < deadline_s:
        if select.select([read_end], [], [], 0.05)[0]:
            taken.update(os.read(read_end, 1000))
        ended |= {number for number, pid in enumerate(pids) if number not in ended and os.waitpid(pid, os.WNOHANG)[0]}
    return {"taken_mib": 60 * len(taken - ended)}


def fills(places: list[str], size_mib: int) -> dict[str, Any]:
    """Write files of 8 MiB until it is enough or the disk is full, in one place after the other; tidy up."""
    most = 0
    for place in places:
        folder, done = os.path.join(os.path.expanduser(place), "labkit-fill"), 0
        try:
            os.makedirs(folder, exist_ok=True)
            for number in range(size_mib // 8):
                with open(f"{folder}/{number}", "wb") as file:
                    file.write(b"x" * (8 << 20))
                done += 8
        except OSError:
            pass
        import shutil

        shutil.rmtree(folder, ignore_errors=True)
        most = max(most, done)
    return {"taken_mib": most}


def makes_files(places: list[str], count: int) -> dict[str, Any]:
    most = 0
    for place in places:
        folder, done = os.path.join(os.path.expanduser(place), "labkit-files"), 0
        try:
            os.makedirs(folder, exist_ok=True)
            for number in range(count):
                os.close(os.open(f"{folder}/{number}", os.O_CREAT | os.O_WRONLY))
                done += 1
        except OSError:
            pass
        import shutil

        shutil.rmtree(folder, ignore_errors=True)
        most = max(most, done)
    return {"count": most}


def opens_files(count: int) -> dict[str, Any]:
    import resource

    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    made = []
    for _ in range(count):
        try:
            made.append(os.open("/dev/null", os.O_RDONLY))
        except OSError:
            break
    for fd in made:
        os.close(fd)
    return {"count": len(made)}


def makes_a_large_file(path: str, size_bytes: int) -> None:
    with open(path, "wb") as file:
        file.truncate(size_bytes)


def makes_inotify_instances(count: int) -> dict[str, Any]:
    made = 0
    while made < count and libc.inotify_init() >= 0:
        made += 1
    return {"count": made}


def watches_files(count: int) -> dict[str, Any]:
    fd, made = libc.inotify_init(), 0
    for folder, _, names in os.walk("/usr"):
        for name in names:
            if libc.inotify_add_watch(fd, f"{folder}/{name}".encode(), 2) < 0:
                import ctypes

                if ctypes.get_errno() == 28:  # ENOSPC: the user's watches are used up
                    return {"count": made}
                continue
            made += 1
            if made == count:
                return {"count": made}
    return {"count": made}


def makes_user_namespaces(count: int) -> dict[str, Any]:
    """Each in a process of its own would be stopped by the number of processes: here one in the other, and then again."""
    made = 0
    read_end, write_end = os.pipe()
    for _ in range(count):
        child = os.fork()
        if child == 0:
            for _ in range(40):
                if libc.unshare(0x10000000) < 0:
                    break
                os.write(write_end, b".")
            os._exit(0)
        os.waitpid(child, 0)
    os.close(write_end)
    while block := os.read(read_end, 65536):
        made += len(block)
    return {"count": made}


def runs_before_all_others() -> None:
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))


def becomes_more_important() -> None:
    os.setpriority(os.PRIO_PROCESS, 0, -10)


def is_never_killed_for_memory() -> None:
    with open("/proc/self/oom_score_adj", "w") as file:
        file.write("-900")


def raises_a_limit() -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_NOFILE, (1 << 20, 1 << 20))


# -- canaries ----------------------------------------------------------------------------------------------------------


@contextmanager
def counted(count: int, least: int) -> Iterator[Canary]:
    """Reached if the host counts ``least`` processes or threads of a name that only these have."""
    mark = f"lk{secrets.token_hex(5)}"
    yield Canary({"count": count, "mark": mark}, lambda _: count_of(mark) >= least)


def count_of(mark: str) -> int:
    """Count the threads of all processes of that name."""
    total = 0
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (folder / "comm").read_text().strip() == mark:
                total += len(os.listdir(folder / "task"))
    return total


def more_than(limit: int, what: str, **arguments: Any) -> Callable[..., Any]:
    """Reached if the program got more than ``limit``."""
    return lambda *_: contextlib.nullcontext(Canary(arguments, lambda answer: answer.get(what, 0) > limit))


def in_places(size: str, value: int, limit: int, what: str) -> Callable[..., Any]:
    """The places that a program can write to: inside the sandbox's, else a folder of the test's."""

    def canary(kernel: SandboxedKernel | None, folder: Path) -> Any:
        inside = ["~", "/tmp", "/var/tmp", "/dev/shm", "/run", "/", "/mnt", str(Path.cwd() / "notebooks")]
        arguments = {"places": inside if kernel else [str(folder)], size: value}
        return contextlib.nullcontext(Canary(arguments, lambda answer: answer.get(what, 0) > limit))

    return canary


@contextmanager
def a_large_file(kernel: SandboxedKernel | None, folder: Path) -> Iterator[Canary]:
    outside = (kernel.work if kernel else folder) / f"labkit-{secrets.token_hex(4)}"
    path = f"{kernel.inner_work}/{outside.name}" if kernel else str(outside)
    size_bytes = 1 << 36
    try:
        yield Canary(
            {"path": path, "size_bytes": size_bytes},
            lambda _: outside.exists() and outside.stat().st_size >= size_bytes,
        )
    finally:
        outside.unlink(missing_ok=True)


def without(capability: int, words: str) -> Callable[[], str]:
    """Return why this user cannot, unless it has the capability."""

    def why() -> str:
        line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("CapEff"))
        return "" if int(line.split()[1], 16) >> capability & 1 else f"this user has no {words}"

    return why


SYS_NICE, SYS_RESOURCE = 23, 24
ATTACKS = (
    Attack("more processes", forks, lambda *_: counted(PROCESSES, 150)),
    Attack("more threads", starts_threads, lambda *_: counted(PROCESSES, 150)),
    Attack("more processes, after lifting every limit", forks_after_lifting_every_limit, lambda *_: counted(PROCESSES, 150)),
    Attack("more memory", takes_memory, more_than(400, "taken_mib", size_mib=MEMORY_MIB)),
    Attack("more memory, in many processes", takes_memory_in_children, more_than(400, "taken_mib", size_mib=MEMORY_MIB)),
    Attack("more room in memory and on disk", fills, in_places("size_mib", DISK_MIB, 64, "taken_mib")),
    Attack("more files", makes_files, in_places("count", FILES, 2500, "count")),
    Attack("more open files", opens_files, more_than(600, "count", count=DESCRIPTORS)),
    Attack("a file of 64 GiB that takes no disk", makes_a_large_file, a_large_file),
    Attack("more inotify instances of the user", makes_inotify_instances, more_than(70, "count", count=100)),
    Attack("more inotify watches of the user", watches_files, more_than(8500, "count", count=10_000)),
    Attack("a place before all others in the queue for the CPU", runs_before_all_others, said(), without(SYS_NICE, "CAP_SYS_NICE")),
    Attack("a higher priority", becomes_more_important, said(), without(SYS_NICE, "CAP_SYS_NICE")),
    Attack("never to be killed for memory", is_never_killed_for_memory, said(), without(SYS_RESOURCE, "CAP_SYS_RESOURCE")),
    Attack("a higher limit of open files", raises_a_limit, said(), lambda: cannot_raise()),
)  # fmt: skip


def cannot_raise() -> str:
    """Return why this user cannot have a million open files."""
    if resource.getrlimit(resource.RLIMIT_NOFILE)[1] >= 1 << 20:
        return ""
    return without(SYS_RESOURCE, "CAP_SYS_RESOURCE")()


@pytest.mark.parametrize("attack", ATTACKS, ids=str)
def test_no_limit_is_passed(attack: Attack, kernel: SandboxedKernel, tmp_path: Path) -> None:
    try_attack(attack, kernel, Plain(tmp_path), tmp_path)


# -- what another student notices --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SandboxedKernel]:
    """Another student's kernel."""
    made = SandboxedKernel(tmp_path_factory.mktemp("other"), policy="")
    yield made
    made.close()


BOMBS = {
    "fork bomb": "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass",
    "fork bomb of a shell": "import subprocess\nsubprocess.run(['bash', '-c', ':(){ :|:& };:; sleep 60'])",
    "memory hog": "import os\nfor _ in range(4):\n    if os.fork() == 0: break\nkept = []\nwhile True: kept.append(bytearray(b'x') * (1 << 24))",
    "disk fill": "import os\nnumber = 0\nwhile True:\n    try:\n        open(f'/tmp/{number % 400}', 'ab').write(b'x' * (1 << 20)); number += 1\n"
                 "    except OSError: number += 1",
    "CPU hog": "import os\nfor _ in range(8): os.fork()\nwhile True: pass",
    "output flood": "while True: print('x' * 100_000)",
}  # fmt: skip


#: For how long the other kernel is asked again and again, and how often it must have answered for that to say something.
ASKED_S, LEAST_ANSWERS = 2.0, 10


@pytest.mark.parametrize("bomb", BOMBS)
def test_another_kernel_answers_within_a_second_while_a_bomb_goes_off(
    bomb: str, other: SandboxedKernel, tmp_path: Path
) -> None:
    """Each of its answers: the slowest counts, not the usual one.

    Up to three times, as other programs of this machine may take the processors for a second; a hole is there every time.
    """
    slowest_s: list[float] = []
    victim = SandboxedKernel(tmp_path, policy=SMALL.replace("[limits]", "[limits]\ncpus = 0.5"))
    try:
        while len(slowest_s) < 3 and min(slowest_s, default=9.0) >= 1:
            if slowest_s:
                victim.restart()
            victim.client.execute(BOMBS[bomb])
            slowest_s.append(max(times_of_answers(other)))
    finally:
        started_s = time.monotonic()
        victim.close()
        ended_s = time.monotonic() - started_s
    assert min(slowest_s) < 1, slowest_s
    assert ended_s < 20.0


def times_of_answers(kernel: SandboxedKernel) -> list[float]:
    """Ask for ``1 + 1`` all the time for `ASKED_S`; return how long each answer took."""
    took_s: list[float] = []
    end_s = time.monotonic() + ASKED_S
    while time.monotonic() < end_s or len(took_s) < LEAST_ANSWERS:
        took_s.append(time_of_answer(kernel))
    return took_s


def time_of_answer(kernel: SandboxedKernel) -> float:
    """Return how long ``1 + 1`` takes, from the request to the end of the answer."""
    started_s = time.monotonic()
    assert kernel.run("print(1 + 1)") == "2\n"
    return time.monotonic() - started_s


def bombers(mark: str) -> int:
    """Count the shells of one bomb."""
    found = 0
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            found += mark.encode() in (folder / "cmdline").read_bytes()
    return found


def test_a_bombed_kernel_answers_again_after_a_restart(tmp_path: Path) -> None:
    kernel, mark = SandboxedKernel(tmp_path), f"labkit{secrets.token_hex(6)}"
    try:
        kernel.client.execute(
            f"import subprocess\nsubprocess.run(['bash', '-c', ': {mark}; :(){{ :|:& }};:; sleep 60'])"
        )
        assert wait_until(lambda: bombers(mark) > 20, timeout_s=20)
        kernel.restart()
        assert kernel.run("print(1 + 1)") == "2\n"
        assert wait_until(lambda: bombers(mark) == 0, timeout_s=20)
    finally:
        kernel.close()

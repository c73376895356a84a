"""The targets of the attacks: canaries on the host, and what counts as success, seen from outside.

Each target puts up what one attack is aimed at, tells the attacker where it is (a real one would find out), and afterwards looks
at the host: is the canary dead, does it have a tracer, did the message arrive? Where success leaves no trace, the attacker must know
something that it could only have learned by succeeding. All canaries go with this process; the key has a time limit.

See: `labkit.measure.attacks`, `labkit.measure.attacker`.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import select
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labkit.errors import FeatureMissing
from labkit.isolation.namespaces import namespace_id
from labkit.linux.constants import NS
from labkit.linux.fds import Fd
from labkit.linux.keys import Keyring, add_key, link_key, set_key_timeout, unlink_key
from labkit.linux.proc import ProcessStatus, read_status
from labkit.measure.witness import canary_process, is_mounted, unmount
from labkit.units import MiB, format_bytes

__all__ = ["BOMB_PROCESSES", "HOG_BYTES", "TARGETS", "Attempt", "Stage", "Target", "children_of"]

BOMB_PROCESSES = 64
HOG_BYTES = 128 * MiB
_KEY_S = 60
_DEATH_S = _ASLEEP_S = 0.5
_SECTOR_BYTES = 512


@dataclass(frozen=True, slots=True)
class Stage:
    """Where an attack takes place: a folder of the host's, and where the attacker finds one that it may write to."""

    folder: Path
    writable: str

    @property
    def jail(self) -> Path:
        """The folder that the attacker is put into by chroot(2) at the weakest levels."""
        return self.folder / "jail"


@dataclass(frozen=True, slots=True)
class Attempt:
    """What came of it: the attacker's answer and its PID on the host, while it is still there."""

    answer: dict[str, Any]
    pid: int


@dataclass(frozen=True, slots=True)
class Target:
    """What the attacker is told, and how success is judged: (succeeded, in words)."""

    request: dict[str, Any]
    judge: Callable[[Attempt], tuple[bool, str]]


@contextmanager
def _escape_chroot(stage: Stage) -> Iterator[Target]:
    token = secrets.token_hex(16)
    file = stage.folder / "outside"
    file.write_text(token)
    yield Target({"file": str(file)}, lambda attempt: _knows("the file outside", attempt.answer.get("text") == token))


def _knows(what: str, knows: bool) -> tuple[bool, str]:  # noqa: FBT001
    return knows, f"it {'knows' if knows else 'does not know'} what stands in {what}"


@contextmanager
def _kill_process(_: Stage) -> Iterator[Target]:
    with canary_process() as pid, Fd(os.pidfd_open(pid)) as pidfd:

        def judge(attempt: Attempt) -> tuple[bool, str]:
            poll = select.poll()
            poll.register(pidfd, select.POLLIN)
            # Death takes a moment; where the kernel refused the signal there is nothing to wait for.
            is_dead = bool(poll.poll(0 if attempt.answer["errno"] else _DEATH_S * 1000))
            return is_dead, f"the canary {'is dead' if is_dead else 'lives'}"

        yield Target({"canary_pid": pid}, judge)


@contextmanager
def _mount(stage: Stage) -> Iterator[Target]:
    mount_point = stage.folder / "mounts"
    mount_point.mkdir(exist_ok=True)

    def judge(attempt: Attempt) -> tuple[bool, str]:
        shows = is_mounted(mount_point)
        inside_only = not shows and not attempt.answer["errno"]
        return shows, f"the host {'sees' if shows else 'does not see'} it{', it shows inside only' * inside_only}"

    try:
        yield Target({"mount_point": str(mount_point)}, judge)
    finally:
        unmount(mount_point)


@contextmanager
def _read_secret(_: Stage) -> Iterator[Target]:
    secret = next((path for path in ("/etc/shadow", "/etc/gshadow") if _is_secret(path)), None)
    if secret is None:
        raise FeatureMissing("This machine has no /etc/shadow that is root's alone.")
    size_bytes = os.stat(secret).st_size
    yield Target({"secret": secret}, lambda attempt: _has_read(secret, attempt.answer.get("bytes") == size_bytes))


def _is_secret(path: str) -> bool:
    try:
        status = os.stat(path)
    except OSError:
        return False
    return status.st_size > 0 and not status.st_mode & 0o004


def _has_read(what: str, read: bool) -> tuple[bool, str]:  # noqa: FBT001
    return read, f"it has {'' if read else 'not '}read {what}"


@contextmanager
def _read_disk(_: Stage) -> Iterator[Target]:
    device = os.stat("/").st_dev
    if os.major(device) == 0:  # no disk of its own: overlay, Btrfs, network
        with open("/proc/partitions") as file:
            rows = [line.split() for line in file]
        numbers = [(int(row[0]), int(row[1])) for row in rows[1:] if len(row) == 4]
        if not numbers:
            raise FeatureMissing("This machine has no disk.")
        device = os.makedev(*numbers[0])
    offset, digest = _sector(device)
    request = {"major": os.major(device), "minor": os.minor(device), "offset": offset, "length": _SECTOR_BYTES}

    def judge(attempt: Attempt) -> tuple[bool, str]:
        found = attempt.answer.get("sha256")
        return _has_read("the disk", found is not None and found == (digest or found))

    yield Target(request, judge)


def _sector(device: int) -> tuple[int, str]:
    """Return a sector of the disk that holds something, and its digest; (0, "") where this user may not look either."""
    number = f"{os.major(device)}:{os.minor(device)}"
    try:
        with open(f"/sys/dev/block/{number}/uevent") as file:
            names = dict(line.strip().split("=", 1) for line in file if "=" in line)
        with open(f"/dev/{names['DEVNAME']}", "rb") as disk:
            # Past the superblock of ext4, which changes by itself.
            for offset in range(8 * _SECTOR_BYTES, MiB, _SECTOR_BYTES):
                disk.seek(offset)
                sector = disk.read(_SECTOR_BYTES)
                if any(sector):
                    return offset, hashlib.sha256(sector).hexdigest()
    except (OSError, KeyError):
        pass
    return 0, ""


@contextmanager
def _rename_host(_: Stage) -> Iterator[Target]:
    def judge(attempt: Attempt) -> tuple[bool, str]:
        is_host = namespace_id(attempt.pid, NS.UTS) == namespace_id("self", NS.UTS)
        where = "the host's name" if is_host else "a name of its own, in its UTS namespace"
        return is_host and not attempt.answer["errno"], f"what it sees is {where}"

    yield Target({}, judge)


@contextmanager
def _write_sysctl(_: Stage) -> Iterator[Target]:
    # No namespace has a core_pattern of its own, and a "|program" in it is run by the kernel as the machine's root.
    path = Path("/proc/sys/kernel/core_pattern")
    value = path.read_text()

    def judge(attempt: Attempt) -> tuple[bool, str]:
        answer = attempt.answer
        taken = answer.get("value") == value and answer.get("written") == len(value.encode())
        return taken, f"the kernel {'took' if taken else 'did not take'} the value"

    yield Target({"sysctl": str(path)}, judge)


@contextmanager
def _steal_key(_: Stage) -> Iterator[Target]:
    name, token = f"labkit-{secrets.token_hex(8)}", secrets.token_hex(16)
    try:
        # Made in a keyring of this process, which may then set the time limit; found in that of the user.
        number = add_key(name, token.encode(), Keyring.PROCESS)
        set_key_timeout(number, _KEY_S)
        link_key(number, Keyring.USER)
        unlink_key(number, Keyring.PROCESS)
    except OSError as error:
        raise FeatureMissing(f"This machine keeps no keys for this user ({error.strerror}).") from error
    try:
        yield Target({"key": name}, lambda attempt: _knows("the key", attempt.answer.get("text") == token))
    finally:
        with suppress(OSError):  # it has expired
            unlink_key(number, Keyring.USER)


@contextmanager
def _trace_process(_: Stage) -> Iterator[Target]:
    with canary_process() as pid:

        def judge(_: Attempt) -> tuple[bool, str]:
            is_traced = read_status(pid).tracer_pid != 0
            return is_traced, f"the canary has {'a' if is_traced else 'no'} tracer"

        yield Target({"canary_pid": pid}, judge)


@contextmanager
def _abstract_socket(_: Stage) -> Iterator[Target]:
    name, token = f"labkit-{secrets.token_hex(8)}", secrets.token_hex(16)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as service:
        service.bind("\0" + name)
        service.listen(1)
        service.settimeout(0)

        def judge(_: Attempt) -> tuple[bool, str]:
            try:
                with service.accept()[0] as connection:
                    arrived = connection.recv(64) == token.encode()
            except BlockingIOError:
                arrived = False
            return arrived, f"the canary got {'the' if arrived else 'no'} message"

        yield Target({"socket": name, "token": token}, judge)


@contextmanager
def _new_namespace(_: Stage) -> Iterator[Target]:
    def judge(attempt: Attempt) -> tuple[bool, str]:
        parent_pid = read_status(attempt.pid).parent_pid
        is_new = namespace_id(attempt.pid, NS.USER) != namespace_id(parent_pid, NS.USER)
        return is_new, f"it is in {'another' if is_new else 'the same'} user namespace"

    yield Target({}, judge)


@contextmanager
def _setuid(stage: Stage) -> Iterator[Target]:
    def judge(attempt: Attempt) -> tuple[bool, str]:
        ids = [_once_asleep(pid).uids for pid in children_of(attempt.pid)]
        gained = any(each.real != each.effective for each in ids)
        return gained, f"{'a' if gained else 'no'} process has more rights than its user"

    program = shutil.which("sleep") or "/bin/sleep"
    yield Target({"folder": stage.writable, "program": os.path.realpath(program)}, judge)


@contextmanager
def _fork_bomb(_: Stage) -> Iterator[Target]:
    def judge(attempt: Attempt) -> tuple[bool, str]:
        count = len(children_of(attempt.pid))
        return count >= BOMB_PROCESSES, f"the host counts {count} of {BOMB_PROCESSES} processes"

    yield Target({"count": BOMB_PROCESSES}, judge)


@contextmanager
def _memory_hog(_: Stage) -> Iterator[Target]:
    def judge(attempt: Attempt) -> tuple[bool, str]:
        peak_bytes = read_status(attempt.pid).resident_peak_bytes or 0
        return peak_bytes >= HOG_BYTES, f"the host sees {format_bytes(peak_bytes)} of {format_bytes(HOG_BYTES)}"

    yield Target({"size_bytes": HOG_BYTES}, judge)


def _once_asleep(pid: int) -> ProcessStatus:
    """Return the status of a program that sleeps once it runs: while execve is under way, it still has its old ids."""
    deadline_s = time.monotonic() + _ASLEEP_S
    while (status := read_status(pid)).state != "S" and time.monotonic() < deadline_s:
        time.sleep(0.001)  # the state of a process that is nobody's child of ours announces nothing
    return status


def children_of(pid: int) -> list[int]:
    """Return the children of process ``pid``, zombies included. See: proc_pid_task(5)."""
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return [int(word) for word in file.read().split()]


#: How each attack's target is put up and taken down.
TARGETS: dict[str, Callable[[Stage], AbstractContextManager[Target]]] = {
    "escape_chroot": _escape_chroot,
    "kill_process": _kill_process,
    "mount": _mount,
    "read_secret": _read_secret,
    "read_disk": _read_disk,
    "rename_host": _rename_host,
    "write_sysctl": _write_sysctl,
    "steal_key": _steal_key,
    "trace_process": _trace_process,
    "abstract_socket": _abstract_socket,
    "new_namespace": _new_namespace,
    "setuid": _setuid,
    "fork_bomb": _fork_bomb,
    "memory_hog": _memory_hog,
}

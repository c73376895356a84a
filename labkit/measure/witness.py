"""The host's side of the isolation matrix: canaries to be found, and the comparison of what was seen inside with what is.

A canary is a small thing on the host that nobody else needs: a sleeping process, a listening socket, a memory segment, a
folder and a file. All of them go with this process even if it is killed, except the folder, which ``labkit clean`` removes.

Each judge gets what one probe saw and answers with three things: what the host shows, what the inside shows, and whether that is
the same thing. Two things may look the same and yet not be (two host names, two empty lists of processes); then the number of
the namespace decides.

See: `labkit.measure.isolation`, `labkit.measure.inside`.
"""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labkit.isolation.namespaces import namespace_id
from labkit.linux.constants import NS, Umount
from labkit.linux.ipc import shared_segment
from labkit.linux.mountinfo import read_mountinfo
from labkit.linux.proc import read_cgroup
from labkit.linux.syscalls import umount2
from labkit.measure.inside import boot_id, netns_cookie
from labkit.measure.scratch import scratch_folder

__all__ = ["JUDGES", "Canaries", "Witness", "canaries", "canary_process", "is_mounted", "kernel_words", "unmount"]

#: The longest that a canary process lives if nobody ends it.
_CANARY_S = 60
#: Two clocks that are read one after the other differ by less than this.
_CLOCK_TOLERANCE_S = 5.0

Judgement = tuple[str, str, bool]


@dataclass(frozen=True, slots=True)
class Canaries:
    """What was put up, and the request that tells the probes what to look for."""

    process_pid: int
    listener: socket.socket
    segment: int
    segment_bytes: int
    mount_point: Path
    file: Path

    @property
    def request(self) -> dict[str, Any]:
        """What the probes are told."""
        return {
            "canary_pid": self.process_pid,
            "port": self.listener.getsockname()[1],
            "segment": self.segment,
            "mount_point": str(self.mount_point),
            "file": str(self.file),
        }


@contextmanager
def canary_process() -> Iterator[int]:
    """Keep a process that only sleeps, and give its PID; it stays ours to wait for, so the PID is not used again."""
    process = subprocess.Popen(
        ["sleep", str(_CANARY_S)], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    with process:
        try:
            yield process.pid
        finally:
            process.kill()


@contextmanager
def canaries() -> Iterator[Canaries]:
    """Put the canaries up, and take them down. Raises: OSError."""
    with ExitStack() as stack:
        folder = stack.enter_context(scratch_folder())
        mount_point, file = folder / "mounts", folder / "file"
        mount_point.mkdir()
        file.touch()
        stack.callback(unmount, mount_point)
        process_pid = stack.enter_context(canary_process())
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        listener.settimeout(0)
        # An unusual size, by which the segment is told from another one that has its number.
        segment_bytes = 4096 * (1 + secrets.randbelow(900))
        segment = stack.enter_context(shared_segment(segment_bytes))
        yield Canaries(process_pid, listener, segment, segment_bytes, mount_point, file)


def is_mounted(folder: Path) -> bool:
    """Tell whether this process's mount namespace shows a mount on ``folder``."""
    return any(mount.mount_point == str(folder) for mount in read_mountinfo())


def unmount(folder: Path) -> None:
    """Remove whatever is mounted on ``folder``."""
    while is_mounted(folder):
        umount2(str(folder), Umount.DETACH)


@dataclass(frozen=True, slots=True)
class Witness:
    """What a judge needs: the canaries, the PID of the process inside, and all that its probes saw."""

    host: Canaries
    pid: int
    seen: Mapping[str, Any]

    def same_namespace(self, kind: NS) -> bool:
        """Tell whether the process inside is in this process's namespace of ``kind``."""
        return namespace_id(self.pid, kind) == namespace_id("self", kind)


def _pid(witness: Witness, value: int) -> Judgement:
    return str(witness.pid), str(value), value == witness.pid


def _processes(witness: Witness, value: str) -> Judgement:
    inside = "there is no such process" if value == "ESRCH" else "it is there" + (" (EPERM)" if value else "")
    return f"canary {witness.host.process_pid}", inside, value != "ESRCH"


def _proc(witness: Witness, value: dict[str, Any]) -> Judgement:
    count = sum(name.isdigit() for name in os.listdir("/proc"))
    canary = "the canary among them" if value["canary"] else "no canary"
    return f"{count} processes", f"{value['count']} processes, {canary}", bool(value["canary"])


def _hostname(witness: Witness, value: str) -> Judgement:
    own = socket.gethostname()
    return own, value, value == own and witness.same_namespace(NS.UTS)


def _mounts(witness: Witness, value: dict[str, Any]) -> Judgement:
    if value["errno"] == 0:
        shows = is_mounted(witness.host.mount_point)
        return "shows" if shows else "does not show", "mounted a tmpfs", shows
    ids = {mount.mount_id for mount in read_mountinfo()}
    shared = len(ids.intersection(value["ids"]))
    refused = (
        f"may not mount ({os.strerror(value['errno'])}); {shared} of its {len(value['ids'])} mounts are the host's"
    )
    return f"{len(ids)} mounts", refused, shared > 0


def _interfaces(witness: Witness, value: dict[str, Any]) -> Judgement:
    names = [name for _, name in socket.if_nameindex()]
    same = names == value["names"] and netns_cookie() == value["cookie"] and witness.same_namespace(NS.NET)
    return ", ".join(names), ", ".join(value["names"]) or "none", same


def _loopback(witness: Witness, value: str) -> Judgement:
    try:
        witness.host.listener.accept()[0].close()
        arrived = True
    except BlockingIOError:
        arrived = False
    return "got a connection" if arrived else "got none", value or "connected", arrived


def _sysv_ipc(witness: Witness, value: int | None) -> Judgement:
    found = value == witness.host.segment_bytes
    return f"segment {witness.host.segment}", "found it" if found else "no such segment", found


def _uid(witness: Witness, value: dict[str, Any]) -> Judgement:
    owner = witness.host.file.stat().st_uid
    inside = f"{value['owner']}, and is itself {value['uid']} (map: {'; '.join(value['map'])})"
    return f"owner {owner}", f"owner {inside}", value["owner"] == owner and witness.same_namespace(NS.USER)


def _cgroup(witness: Witness, value: dict[str, str]) -> Judgement:
    paths = {str(line.hierarchy_id): line.path for line in read_cgroup(witness.pid)}
    # The deepest one tells most: in hierarchies that labkit does not use, both are at the top.
    key = max(paths, key=lambda number: len(paths[number]), default="0")
    inside = value.get(key, "")
    return paths.get(key, ""), inside, paths == value and witness.same_namespace(NS.CGROUP)


def _clock(witness: Witness, value: float) -> Judgement:
    own = time.clock_gettime(time.CLOCK_BOOTTIME)
    return f"{own / 3600:.1f} h", f"{value / 3600:.1f} h", abs(own - value) < _CLOCK_TOLERANCE_S


def _kernel(_: Witness, value: dict[str, str]) -> Judgement:
    release, number = os.uname().release, boot_id()
    return kernel_words(release, number), kernel_words(value["release"], value["boot_id"]), number == value["boot_id"]


def kernel_words(release: str, number: str) -> str:
    """Return a kernel as a reader sees it: its release, and the beginning of the number of its boot."""
    return f"{release}, boot {number[:8]}"


#: For each probe, how what it saw is compared with the host.
JUDGES: dict[str, Callable[[Witness, Any], Judgement]] = {
    "pid": _pid,
    "processes": _processes,
    "proc": _proc,
    "hostname": _hostname,
    "mounts": _mounts,
    "interfaces": _interfaces,
    "loopback": _loopback,
    "sysv_ipc": _sysv_ipc,
    "uid": _uid,
    "cgroup": _cgroup,
    "clock": _clock,
    "kernel": _kernel,
}

"""The isolation matrix with a machine beside the namespaces: what a program in a guest can see of the host, and two questions more.

The same canaries are put up on the host, and a micro guest's own programs look for each of them. Two questions only make sense where
machines take part: whose kernel is it (by its boot id, a random number that each boot of a kernel draws), and whom does
a panic take down. The second is tried in the guest, for real; in namespaces it is not, for their kernel is the host's.

Two things may look the same and not be (two empty lists, two counters); between kernels the boot id decides, as between namespaces their
number does.

Leaves out: what leaks through the hardware that both share (caches, timing); attacks on QEMU itself.
See: `labkit.measure.isolation`; proc_sys_kernel(5) (random/boot_id), Documentation/admin-guide/sysrq.rst.
"""

from __future__ import annotations

import os
import secrets
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from labkit.errors import GuestError
from labkit.linux.constants import NS, NS_FILES
from labkit.linux.mountinfo import read_mountinfo
from labkit.linux.proc import read_cgroup
from labkit.measure.clock import now_ms
from labkit.measure.hostfacts import host_facts
from labkit.measure.inside import boot_id
from labkit.measure.isolation import KERNEL_PROBE, PROBES, Finding, Isolation, IsolationMatrix, Probe, probe_isolation
from labkit.measure.witness import Canaries, canaries, kernel_words
from labkit.vm.guest import Guest

__all__ = ["MACHINE_PROBES", "PLACE", "machine_matrix", "probe_machine", "probe_shared_kernel"]

MACHINE_PROBES: tuple[Probe, ...] = (
    *PROBES,
    KERNEL_PROBE,
    Probe("panic", "a panic of the kernel", "caused in the guest by /proc/sysrq-trigger; then the host looks around", "a machine"),
)  # fmt: skip
PLACE = "micro VM"
_BOOT_ID = "/proc/sys/kernel/random/boot_id"
_PROBE_MIB = 96
_CLOCK_TOLERANCE_S = 5.0

#: What the host shows, what the inside shows, and whether the inside sees the host's.
_Answer = tuple[str, str, bool]


@dataclass(frozen=True, slots=True)
class _Look:
    """A guest, the canaries, and whether the guest's kernel turned out to be the host's."""

    guest: Guest
    host: Canaries
    same_kernel: bool

    def text(self, *command: str) -> str:
        """Return what a command in the guest wrote."""
        return self.guest.exec(command, timeout_s=20).text.strip()


def _pid(look: _Look) -> _Answer:
    """A program in the guest has a number; the host looks for a process with the program's unusual arguments."""
    mark = f"600.{secrets.randbelow(10**6):06}"
    inside = look.text("sh", "-c", f"sleep {mark} > /dev/null 2>&1 & echo $!")
    found = [pid for pid in _host_pids() if mark.encode() in _command_line(pid)]
    return f"process {found[0]}" if found else "no such process", inside, bool(found)


def _processes(look: _Look) -> _Answer:
    pid = look.host.process_pid
    answer = look.guest.exec(["kill", "-0", str(pid)])
    same = answer.status == 0 and look.text("cat", f"/proc/{pid}/cmdline") == _command_line(pid).decode()
    return f"canary {pid}", "it is there" if same else "there is no such process", same


def _proc(look: _Look) -> _Answer:
    inside = [word for word in look.text("ls", "/proc").split() if word.isdigit()]
    mine = _command_line(look.host.process_pid).decode().replace("\0", " ").strip()
    found = mine in [line.strip() for line in look.text("ps", "-o", "args").splitlines()]
    canary = "the canary among them" if found else "no canary"
    return f"{len(_host_pids())} processes", f"{len(inside)} processes, {canary}", found


def _hostname(look: _Look) -> _Answer:
    name = f"labkit-{secrets.token_hex(3)}"
    look.text("hostname", name)
    inside, own = look.text("hostname"), socket.gethostname()
    return own, inside, own == inside


def _mounts(look: _Look) -> _Answer:
    source = f"labkit-{secrets.token_hex(3)}"
    script = f"mkdir -p /tmp/mounted && mount -t tmpfs -o size=4k {source} /tmp/mounted"
    done = look.guest.exec(["sh", "-c", script])
    shows = any(mount.source == source for mount in read_mountinfo())
    return "shows" if shows else "does not show", "may not mount" if done.status else "mounted a tmpfs", shows


def _interfaces(look: _Look) -> _Answer:
    inside = look.text("ls", "/sys/class/net").split()
    host = [name for _, name in socket.if_nameindex()]
    return ", ".join(host), ", ".join(inside) or "none", sorted(inside) == sorted(host) and look.same_kernel


def _loopback(look: _Look) -> _Answer:
    port = look.host.listener.getsockname()[1]
    done = look.guest.exec(["nc", "-w", "2", "127.0.0.1", str(port)], timeout_s=20)
    try:
        look.host.listener.accept()[0].close()
    except BlockingIOError:
        return "got none", done.stderr.decode(errors="replace").strip().rpartition(": ")[2] or "no answer", False
    return "got a connection", "connected", True


def _sysv_ipc(look: _Look) -> _Answer:
    rows = [line.split() for line in look.text("sh", "-c", "cat /proc/sysvipc/shm 2>/dev/null").splitlines()[1:]]
    wanted = (str(look.host.segment), str(look.host.segment_bytes))
    found = any((row[1], row[3]) == wanted for row in rows if len(row) > 3)
    return f"segment {wanted[0]}", "found it" if found else "no such segment", found


def _uid(look: _Look) -> _Answer:
    owner = look.host.file.stat().st_uid
    done = look.guest.exec(["stat", "-c", "%u", str(look.host.file)])
    inside = f"owner {done.text.strip()}" if done.status == 0 else "it has no such file"
    return f"owner {owner}", f"{inside}, and is itself {look.text('id', '-u')}", done.status == 0 and look.same_kernel


def _cgroup(look: _Look) -> _Answer:
    host = max((line.path for line in read_cgroup(look.guest.pid)), key=len, default="")
    inside = look.text("sh", "-c", "cat /proc/self/cgroup 2>/dev/null").rpartition(":")[2] or "none"
    return f"its QEMU: {host}", inside, host == inside and look.same_kernel


def _clock(look: _Look) -> _Answer:
    own, inside = time.clock_gettime(time.CLOCK_BOOTTIME), float(look.text("cat", "/proc/uptime").split()[0])
    return f"{own / 3600:.1f} h", f"{inside:.1f} s", abs(own - inside) < _CLOCK_TOLERANCE_S and look.same_kernel


def _kernel(look: _Look) -> _Answer:
    own, inside = boot_id(), look.text("cat", _BOOT_ID)
    return kernel_words(os.uname().release, own), kernel_words(look.text("uname", "-r"), inside), own == inside


def _panic(look: _Look) -> _Answer:
    """The last one, because it ends the guest."""
    before = boot_id()
    try:
        look.guest.exec(["sh", "-c", "echo c > /proc/sysrq-trigger"], timeout_s=30)
    except GuestError:
        reason = look.guest.console.panic()
        alive = boot_id() == before and os.path.exists(f"/proc/{look.host.process_pid}")
        return "goes on" if alive else "is gone", f"panicked ({reason}), and its QEMU ended", not alive
    return "goes on", "did not panic", False


_LOOKS: dict[str, Callable[[_Look], _Answer]] = {
    "pid": _pid, "processes": _processes, "proc": _proc, "hostname": _hostname, "mounts": _mounts, "interfaces": _interfaces,
    "loopback": _loopback, "sysv_ipc": _sysv_ipc, "uid": _uid, "cgroup": _cgroup, "clock": _clock, "kernel": _kernel,
    "panic": _panic,
}  # fmt: skip


def probe_machine() -> Isolation:
    """Boot a micro guest, let it look for the host, let it panic, and return what was found; takes some seconds.

    Raises: FeatureMissing without QEMU or guest kernel, GuestError.
    """
    began_ms = now_ms()
    with canaries() as host, Guest(_PROBE_MIB) as guest:
        same = guest.exec(["cat", _BOOT_ID]).text.strip() == boot_id()
        look = _Look(guest, host, same)
        findings = tuple(Finding(probe.name, probe.title, *_LOOKS[probe.name](look)) for probe in MACHINE_PROBES)
    return Isolation((), findings, now_ms() - began_ms, place=PLACE)


def probe_shared_kernel(namespaces: NS) -> Isolation:
    """Probe ``namespaces`` as `probe_isolation` does, and look whose kernel it is. Raises: as `probe_isolation`."""
    found = probe_isolation(namespaces, probes=MACHINE_PROBES[:-1])
    panic = MACHINE_PROBES[-1]
    why = "not tried: it would be the host's" if found.finding("kernel").sees_host else "not tried"
    findings = (*found.findings, Finding(panic.name, panic.title, "", why, None))
    return Isolation(found.namespaces, findings, found.elapsed_ms, found.note)


def machine_matrix(choices: Sequence[NS] = (NS(0), NS(sum(NS_FILES)))) -> IsolationMatrix:
    """Probe ``choices`` of namespaces and a machine; by default none, all, and the machine. Raises: as the probes do."""
    columns = (*(probe_shared_kernel(choice) for choice in choices), probe_machine())
    return IsolationMatrix(host_facts(), columns)


def _host_pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def _command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""

"""The isolation matrix: what a process in given namespaces can still see of the host.

Canaries are put up on the host: a process, a mount, a System V segment, a listening socket, ... . Then a process is started in the
namespaces asked for, looks for each of them, and reports. A probe *sees the host's* when it found the canary, or
shows the same value as the host; nothing here is derived from a table of what namespaces are supposed to do.

Leaves out: files, which are the same until something is mounted over them; key rings, devices (`labkit.measure.attacks`).
See: namespaces(7) and `labkit.isolation.namespaces.describe`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from labkit.linux.constants import NS
from labkit.measure.hostfacts import HostFacts
from labkit.measure.record import Result

__all__ = ["PROBES", "Finding", "Isolation", "IsolationMatrix", "Probe", "isolation_matrix", "probe_isolation"]


@dataclass(frozen=True, slots=True)
class Probe(Result):
    """One question to a process inside: ``name`` for programs, ``title`` for a table's first column, and how it is found out."""

    name: str
    title: str
    method: str
    hidden_by: str


@dataclass(frozen=True, slots=True)
class Finding(Result):
    """The answer to one probe: what the host shows, what the process inside shows, and whether these are the same thing.

    ``sees_host`` is None where the probe could not be made here; ``inside`` then says why.
    """

    probe: str
    title: str
    host: str
    inside: str
    sees_host: bool | None

    @property
    def verdict(self) -> str:
        """``sees the host's``, ``own``, or ``unknown``."""
        return "unknown" if self.sees_host is None else "sees the host's" if self.sees_host else "own"


@dataclass(frozen=True, slots=True)
class Isolation(Result):
    """All findings for one choice of namespaces (names as in ``/proc/PID/ns``). ``note`` says what had to be added."""

    namespaces: tuple[str, ...]
    findings: tuple[Finding, ...]
    elapsed_ms: float
    note: str = ""

    def finding(self, probe: str) -> Finding:
        """Return the finding of ``probe``. Raises: KeyError."""
        return {finding.probe: finding for finding in self.findings}[probe]


@dataclass(frozen=True, slots=True)
class IsolationMatrix(Result):
    """Findings for several choices, each one a column."""

    host: HostFacts
    columns: tuple[Isolation, ...]


PROBES: tuple[Probe, ...] = (
    Probe("pid", "its own PID", "getpid(2) inside, compared with the PID that the host knows", "pid"),
    Probe("processes", "processes", "kill(2) with signal 0 to a canary process, by the PID it has on the host", "pid"),
    Probe("proc", "processes in /proc", "the entries of /proc, compared with the host's", "pid and mnt"),
    Probe("hostname", "host name", "a host name that it sets itself: the host looks whether it shows outside", "uts"),
    Probe("mounts", "new mounts", "a mount that it makes: the host looks whether it shows outside", "mnt"),
    Probe("interfaces", "network interfaces", "if_nameindex(3) inside, compared with the host's", "net"),
    Probe("loopback", "sockets on 127.0.0.1", "connect(2) to a canary that listens on the host", "net"),
    Probe("sysv_ipc", "System V shared memory", "shmget(2) with the key of a canary segment", "ipc"),
    Probe("mqueue", "POSIX message queues", "mq_open(3) with the name of a canary queue", "ipc"),
    Probe("uid", "user ids", "the uid map of its user namespace, compared with the host's", "user"),
    Probe(
        "cgroup", "place in the cgroup tree", "/proc/self/cgroup, compared with what the host reads for it", "cgroup"
    ),
    Probe("clock", "time since boot", "CLOCK_BOOTTIME, compared with the host's", "time"),
)


def probe_isolation(namespaces: NS, *, timeout_s: float = 10.0) -> Isolation:
    """Start a process in ``namespaces``, let it look, and return what it found; takes about 50 ms.

    An ordinary user may make most kinds only beside a user namespace: labkit's launcher is in one, which the note says.
    Raises: SetupError, DeadlineExceeded.
    """
    raise NotImplementedError


def isolation_matrix(choices: Iterable[NS] | None = None) -> IsolationMatrix:
    """Probe each of ``choices``; by default none, each kind alone, and all together."""
    raise NotImplementedError

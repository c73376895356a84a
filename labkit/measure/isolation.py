"""The isolation matrix: what a process in given namespaces can still see of the host.

Canaries are put up on the host: a process, a mount, a System V segment, a listening socket, ... . Then a process is started in the
namespaces asked for, looks for each of them, and reports. A probe *sees the host's* when it found the canary, or
shows the same value as the host; nothing here is derived from a table of what namespaces are supposed to do.

Leaves out: files, which are the same until something is mounted over them; key rings, devices (`labkit.measure.attacks`).
See: namespaces(7), `labkit.isolation.namespaces.describe`; `labkit.measure.inside` for the looking, `labkit.measure.witness` for
the canaries and the comparison.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from labkit.container.container import Namespaced
from labkit.container.spec import MountSpec
from labkit.errors import LabkitError
from labkit.isolation.cgroups import Limits
from labkit.linux.constants import NS, NS_FILES
from labkit.measure.clock import now_ms
from labkit.measure.hostfacts import HostFacts, host_facts
from labkit.measure.inner_python import answer_of, inner_command, open_package
from labkit.measure.record import Result
from labkit.measure.witness import JUDGES, Witness, canaries

__all__ = [
    "KERNEL_PROBE",
    "PROBES",
    "Finding",
    "Isolation",
    "IsolationMatrix",
    "Probe",
    "isolation_matrix",
    "probe_isolation",
]


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
    """All findings for one choice of namespaces (names as in ``/proc/PID/ns``). ``note`` says what had to be added.

    ``place`` is where the process was if that was no set of namespaces of this kernel: a machine with a kernel of its own.
    """

    namespaces: tuple[str, ...]
    findings: tuple[Finding, ...]
    elapsed_ms: float
    note: str = ""
    place: str = ""

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
    Probe("processes", "processes", "kill(2) with signal 0 to a canary, by the PID that the host knows", "pid"),
    Probe("proc", "processes in /proc", "a canary process is looked for in /proc", "pid and mnt"),
    Probe("hostname", "host name", "where it has a name of its own to give, the host looks whether it shows", "uts"),
    Probe("mounts", "new mounts", "it mounts something, and the host looks whether that shows", "mnt"),
    Probe("interfaces", "network interfaces", "if_nameindex(3) inside, compared with the host's", "net"),
    Probe("loopback", "servers on 127.0.0.1", "connect(2) to a canary that listens on the host", "net"),
    Probe("sysv_ipc", "shared memory (System V)", "a canary segment is looked for by its number", "ipc"),
    Probe("uid", "user ids", "the owner of a canary file, as stat(2) inside gives it", "user"),
    Probe("cgroup", "its place in the cgroups", "/proc/self/cgroup, compared with what the host reads", "cgroup"),
    Probe("clock", "time since boot", "CLOCK_BOOTTIME inside, compared with the host's", "time"),
)
#: A question that no namespace changes the answer of; asked beside machines (`labkit.measure.machine_isolation`).
KERNEL_PROBE = Probe(
    "kernel", "the kernel", "the number that a kernel draws at its boot (boot_id), on both sides", "a machine"
)
INSIDE_HOSTNAME = "labkit-inside"
#: A week: nobody takes it for a measuring error.
TIME_OFFSET_S = 7 * 24 * 3600


def probe_isolation(namespaces: NS, *, timeout_s: float = 10.0, probes: Sequence[Probe] = PROBES) -> Isolation:
    """Start a process in ``namespaces``, let it look, and return what it found for ``probes``; takes about 50 ms.

    Raises: SetupError, FeatureMissing, DeadlineExceeded.
    """
    began_ms = now_ms()
    with canaries() as host, open_package() as package:
        command = inner_command("inside", host.request, package_parent=package)
        mounts = [MountSpec("proc", "/proc")] if NS.PID in namespaces and NS.MNT in namespaces else []
        with Namespaced(
            command, namespaces=namespaces, hostname=INSIDE_HOSTNAME if NS.UTS in namespaces else "", mounts=mounts,
            time_offset_s=TIME_OFFSET_S if NS.TIME in namespaces else 0, cwd="/", time_limit_s=timeout_s, streams=("pipe", "pipe", "pipe"),
        ) as process:  # fmt: skip
            process.limits = Limits()  # a cgroup to be in, where one can be made: the probe "cgroup" looks for it
            process.start()
            seen = _answer(process)
            witness = Witness(host, process.pid, seen)
            findings = tuple(_finding(probe, witness) for probe in probes)
    return Isolation(names_of(namespaces), findings, now_ms() - began_ms, _note(namespaces))


def _answer(process: Namespaced) -> dict[str, Any]:
    line = process.stdout.readline() if process.stdout else b""
    answer = answer_of(line)
    if answer is None:
        said = process.stderr.read().decode(errors="replace").strip() if process.stderr else ""
        raise LabkitError(f"The probes gave no answer: {said.splitlines()[-1] if said else process.wait().reason}.")
    return answer


def names_of(namespaces: NS) -> tuple[str, ...]:
    """Return the kinds in ``namespaces`` by their names in ``/proc/PID/ns``."""
    return tuple(name for kind, name in NS_FILES.items() if kind in namespaces)


def _note(namespaces: NS) -> str:
    notes = []
    if os.geteuid() != 0:
        notes.append(
            "labkit's launcher is in a user and a mount namespace, without which an ordinary user may make no others"
        )
    if NS.PID in namespaces and NS.MNT in namespaces:
        notes.append("with both pid and mnt, a new /proc is mounted")
    return "; ".join(notes)


def _finding(probe: Probe, witness: Witness) -> Finding:
    answer = witness.seen[probe.name]
    if "error" in answer:
        return Finding(probe.name, probe.title, "", f"could not look: {answer['error']}", None)
    host, inside, sees_host = JUDGES[probe.name](witness, answer["value"])
    return Finding(probe.name, probe.title, host, inside, sees_host)


def isolation_matrix(choices: Iterable[NS] | None = None) -> IsolationMatrix:
    """Probe each of ``choices``; by default none, each kind alone, and all together."""
    wanted = (NS(0), *NS_FILES, NS(sum(NS_FILES))) if choices is None else tuple(choices)
    return IsolationMatrix(host_facts(), tuple(probe_isolation(choice) for choice in wanted))

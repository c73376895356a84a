"""What the kernel says about one process in ``/proc/PID``: each file a text, each text parsed once here.

``/proc`` has no binary interface. Its files are lines with fields, and the traps are in the fields: a command name may
hold spaces and parentheses, a number may be in pages, ticks or KiB, a process may be gone before the second file is
opened. So each ``parse_*`` takes a text and gives a result whose names carry the units, and each ``read_*`` opens the
file of a process and parses it.

Leaves out: fields that no lesson and no part of labkit uses; mounts (`labkit.linux.mountinfo`).
See: proc(5), proc_pid_stat(5), proc_pid_status(5), proc_pid_smaps(5), user_namespaces(7), cgroups(7).
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import Literal

__all__ = [
    "CapabilitySets",
    "CgroupLine",
    "IdMapping",
    "Ids",
    "MemoryRollup",
    "Pid",
    "ProcessStat",
    "ProcessStatus",
    "parse_cgroup",
    "parse_id_map",
    "parse_smaps_rollup",
    "parse_stat",
    "parse_status",
    "read_cgroup",
    "read_gid_map",
    "read_smaps_rollup",
    "read_stat",
    "read_status",
    "read_text",
    "read_uid_map",
    "sizes_bytes",
]

Pid = int | Literal["self"]
_KIB = 1024


@dataclass(frozen=True, slots=True)
class Ids:
    """The four user or group ids of a process."""

    real: int
    effective: int
    saved: int
    filesystem: int


@dataclass(frozen=True, slots=True)
class CapabilitySets:
    """The five sets of capabilities(7) as bit masks."""

    inheritable: int
    permitted: int
    effective: int
    bounding: int
    ambient: int


@dataclass(frozen=True, slots=True)
class ProcessStatus:
    """A process as ``status`` shows it. ``inner_pids`` are its PIDs in each PID namespace, the reader's first.

    The sizes are None for kernel threads and zombies, which have no memory. ``seccomp_mode``: 0 none, 1 strict,
    2 filter.
    """

    name: str
    state: str
    pid: int
    parent_pid: int
    tracer_pid: int
    inner_pids: tuple[int, ...]
    uids: Ids
    gids: Ids
    groups: tuple[int, ...]
    threads: int
    virtual_bytes: int | None
    resident_bytes: int | None
    resident_peak_bytes: int | None
    capabilities: CapabilitySets
    no_new_privs: bool
    seccomp_mode: int


@dataclass(frozen=True, slots=True)
class ProcessStat:
    """A process as ``stat`` shows it; a tick is 1/sysconf(SC_CLK_TCK) s, ``start_ticks`` counts from boot."""

    pid: int
    command: str
    state: str
    parent_pid: int
    process_group: int
    session: int
    user_ticks: int
    system_ticks: int
    threads: int
    start_ticks: int
    virtual_bytes: int
    resident_pages: int

    @property
    def cpu_s(self) -> float:
        """User and system time together."""
        return (self.user_ticks + self.system_ticks) / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class IdMapping:
    """One line of a map: ``count`` ids from ``inside`` on are those from ``outside`` on in the parent namespace."""

    inside: int
    outside: int
    count: int

    def __str__(self) -> str:
        return f"{self.inside} {self.outside} {self.count}"


@dataclass(frozen=True, slots=True)
class CgroupLine:
    """A process's place in one hierarchy; v2 has ``hierarchy_id`` 0 and names no controllers."""

    hierarchy_id: int
    controllers: tuple[str, ...]
    path: str


@dataclass(frozen=True, slots=True)
class MemoryRollup:
    """What a process's memory costs. ``proportional_bytes`` (PSS) divides each shared page by its number of users.

    Of ``resident_bytes`` (RSS) the private part would be free if the process ended; the sum of PSS over all processes
    is what they use together, the sum of RSS counts shared pages many times.
    """

    resident_bytes: int
    proportional_bytes: int
    private_bytes: int
    shared_bytes: int
    swap_bytes: int


def parse_status(text: str) -> ProcessStatus:
    """Return the fields of ``/proc/PID/status``. Raises: KeyError for a kernel before Linux 4.10, which lacks some."""
    fields = dict(line.split(":\t", 1) for line in text.split("\n") if ":\t" in line)
    uids, gids = (Ids(*map(int, fields[key].split())) for key in ("Uid", "Gid"))
    masks = (int(fields[key], 16) for key in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"))
    virtual, resident, peak = (_kib(fields.get(key)) for key in ("VmSize", "VmRSS", "VmHWM"))
    return ProcessStatus(
        name=_unescape_name(fields["Name"]),
        state=fields["State"][0],
        pid=int(fields["Pid"]),
        parent_pid=int(fields["PPid"]),
        tracer_pid=int(fields["TracerPid"]),
        inner_pids=tuple(map(int, fields["NSpid"].split())),
        uids=uids,
        gids=gids,
        groups=tuple(map(int, fields["Groups"].split())),
        threads=int(fields["Threads"]),
        virtual_bytes=virtual,
        resident_bytes=resident,
        resident_peak_bytes=peak,
        capabilities=CapabilitySets(*masks),
        no_new_privs=fields["NoNewPrivs"].strip() == "1",
        seccomp_mode=int(fields.get("Seccomp", "0")),  # absent from kernels built without it
    )


def _unescape_name(text: str) -> str:
    # A process may call itself anything (PR_SET_NAME); the kernel escapes newlines and backslashes only.
    return re.sub(r"\\(n|\\)", lambda match: "\n" if match.group(1) == "n" else "\\", text)


def parse_stat(text: str) -> ProcessStat:
    """Return the fields of ``/proc/PID/stat``; the command may hold anything, so the *last* ``)`` ends it."""
    before, _, after = text.rpartition(")")
    pid, _, command = before.partition(" (")
    state, *words = after.split()
    numbers = [int(word) for word in words]  # numbers[0] is field 4 of the man page
    return ProcessStat(
        pid=int(pid),
        command=command,
        state=state,
        parent_pid=numbers[0],
        process_group=numbers[1],
        session=numbers[2],
        user_ticks=numbers[10],
        system_ticks=numbers[11],
        threads=numbers[16],
        start_ticks=numbers[18],
        virtual_bytes=numbers[19],
        resident_pages=numbers[20],
    )


def parse_id_map(text: str) -> tuple[IdMapping, ...]:
    """Return the lines of a ``uid_map`` or ``gid_map``; none: nobody has written the map yet."""
    return tuple(IdMapping(*map(int, line.split())) for line in text.splitlines() if line)


def parse_cgroup(text: str) -> tuple[CgroupLine, ...]:
    """Return a process's place in each hierarchy; a path beginning ``/..`` is outside the reader's cgroup namespace."""
    rows = (line.split(":", 2) for line in text.split("\n") if line)
    return tuple(CgroupLine(int(number), tuple(filter(None, names.split(","))), path) for number, names, path in rows)


def parse_smaps_rollup(text: str) -> MemoryRollup:
    """Return what the whole address space of a process costs."""
    sizes = sizes_bytes(text)
    return MemoryRollup(
        resident_bytes=sizes["Rss"],
        proportional_bytes=sizes["Pss"],
        private_bytes=sizes["Private_Clean"] + sizes["Private_Dirty"],
        shared_bytes=sizes["Shared_Clean"] + sizes["Shared_Dirty"],
        swap_bytes=sizes["Swap"],
    )


def sizes_bytes(text: str) -> dict[str, int]:
    """Return the lines ``Name:  N kB`` of a file as bytes; the kernel means KiB."""
    rows = (line.split() for line in text.splitlines() if line.endswith(" kB"))
    return {row[0].removesuffix(":"): int(row[1]) * _KIB for row in rows}


def _kib(text: str | None) -> int | None:
    return None if text is None else int(text.split()[0]) * _KIB


def read_text(path: str) -> str:
    """Return the whole file ``path``. Raises: OSError."""
    # Names of files and commands are bytes; those that are no UTF-8 survive the round trip this way.
    with open(path, errors="surrogateescape", newline="\n") as file:
        return file.read()


def read_status(pid: Pid = "self") -> ProcessStatus:
    """Return the status of ``pid``. Raises: OSError with ENOENT once it is gone."""
    return parse_status(read_text(f"/proc/{pid}/status"))


def read_stat(pid: Pid = "self") -> ProcessStat:
    """Return the counters of ``pid``. Raises: OSError with ENOENT once it is gone."""
    return parse_stat(read_text(f"/proc/{pid}/stat"))


def read_uid_map(pid: Pid = "self") -> tuple[IdMapping, ...]:
    """Return the user ids of the user namespace of ``pid``, with the outside as the reader's namespace sees it."""
    return parse_id_map(read_text(f"/proc/{pid}/uid_map"))


def read_gid_map(pid: Pid = "self") -> tuple[IdMapping, ...]:
    """Return the group ids of the user namespace of ``pid``, with the outside as the reader's namespace sees it."""
    return parse_id_map(read_text(f"/proc/{pid}/gid_map"))


def read_cgroup(pid: Pid = "self") -> tuple[CgroupLine, ...]:
    """Return where ``pid`` is in each cgroup hierarchy, as seen from the reader's cgroup namespace."""
    return parse_cgroup(read_text(f"/proc/{pid}/cgroup"))


def read_smaps_rollup(pid: Pid = "self") -> MemoryRollup:
    """Return what the memory of ``pid`` costs. Raises: OSError (EACCES for another user's, ESRCH for a zombie)."""
    return parse_smaps_rollup(read_text(f"/proc/{pid}/smaps_rollup"))


def main() -> int:
    """Print what /proc says about this process: its status, its cgroups, its ids and its memory."""
    for title, found in (
        ("status", read_status()), ("stat", read_stat()), ("uid_map", read_uid_map()), ("cgroup", read_cgroup()),
        ("smaps_rollup", read_smaps_rollup()),
    ):  # fmt: skip
        print(f"/proc/self/{title}: {found}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

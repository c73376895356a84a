"""cgroup v2: one tree, one folder for all controllers of a group, one vocabulary.

A group has a controller's files only if its *parent* lists that controller in ``cgroup.subtree_control``, and a group
other than the root can list one only while no process is in it ("no internal processes"): processes live in the
leaves. ``cgroup.events`` tells when a group has become empty or has frozen; a reader waits for a change with poll(2).

Leaves out: threaded groups, memory.min and memory.low, io.weight, io.latency.
See: Documentation/admin-guide/cgroup-v2.rst in the kernel's source, cgroups(7).
"""

from __future__ import annotations

import errno
import os
import select
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress

from labkit.errors import DeadlineExceeded
from labkit.isolation.cgroups import files
from labkit.isolation.cgroups.limits import CPU_PERIOD_USEC, Limits, quota_usec
from labkit.isolation.cgroups.stats import Events, Stats, parse_keyed, sum_nested

__all__ = [
    "enable_controllers",
    "freeze",
    "gather",
    "is_frozen",
    "is_hierarchy_root",
    "kill",
    "limit_writes",
    "read_events",
    "read_stats",
    "thaw",
    "wait_flag",
]

Write = tuple[str, str, str]


def limit_writes(limits: Limits, previous: Limits, *, device: str) -> Iterator[Write]:
    """Yield (controller, file, text) for each limit that differs from ``previous``."""
    if limits.cpus != previous.cpus:
        quota = "max" if limits.cpus is None else str(quota_usec(limits.cpus))
        yield "cpu", "cpu.max", f"{quota} {CPU_PERIOD_USEC}"
    if limits.cpu_weight != previous.cpu_weight:
        yield "cpu", "cpu.weight", str(limits.cpu_weight or 100)
    for name, new, old in (
        ("memory.max", limits.memory_bytes, previous.memory_bytes),
        ("memory.high", limits.memory_high_bytes, previous.memory_high_bytes),
        ("memory.swap.max", limits.swap_bytes, previous.swap_bytes),
        ("pids.max", limits.pids, previous.pids),
    ):
        if new != old:
            yield name.partition(".")[0], name, _or_max(new)
    if limits.cpuset is not None and limits.cpuset != previous.cpuset:
        yield "cpuset", "cpuset.cpus", limits.cpuset
    rates = (limits.io_read_bytes_per_s, limits.io_write_bytes_per_s)
    if rates != (previous.io_read_bytes_per_s, previous.io_write_bytes_per_s):
        yield "io", "io.max", f"{device} rbps={_or_max(rates[0])} wbps={_or_max(rates[1])}"


def _or_max(value: int | None) -> str:
    return "max" if value is None else str(value)


def read_stats(folder: str, controllers: Iterable[str]) -> Stats:
    """Return the group's counters; CPU use is counted even where no controller is enabled (hybrid)."""
    cpu = parse_keyed(files.try_read(f"{folder}/cpu.stat") or "")
    has_memory, has_pids, has_io = ("memory" in controllers, "pids" in controllers, "io" in controllers)
    memory = parse_keyed(files.try_read(f"{folder}/memory.events") or "") if has_memory else {}
    pids = parse_keyed(files.try_read(f"{folder}/pids.events") or "") if has_pids else {}
    io = (files.try_read(f"{folder}/io.stat") or "") if has_io else None
    return Stats(
        memory_bytes=files.read_number(f"{folder}/memory.current") if has_memory else None,
        memory_peak_bytes=files.read_number(f"{folder}/memory.peak") if has_memory else None,
        swap_bytes=files.read_number(f"{folder}/memory.swap.current") if has_memory else None,
        pids=files.read_number(f"{folder}/pids.current") if has_pids else None,
        cpu_usage_usec=cpu.get("usage_usec"),
        cpu_user_usec=cpu.get("user_usec"),
        cpu_system_usec=cpu.get("system_usec"),
        throttled_usec=cpu.get("throttled_usec"),
        nr_throttled=cpu.get("nr_throttled"),
        nr_periods=cpu.get("nr_periods"),
        oom_kills=memory.get("oom_kill"),
        pids_limit_hits=pids.get("max"),
        io_read_bytes=None if io is None else sum_nested(io, "rbytes"),
        io_write_bytes=None if io is None else sum_nested(io, "wbytes"),
    )


def read_events(folder: str) -> Events:
    """Return the group's flags and event counters."""
    flags = parse_keyed(files.try_read(f"{folder}/cgroup.events") or "")
    memory = parse_keyed(files.try_read(f"{folder}/memory.events") or "")
    pids = parse_keyed(files.try_read(f"{folder}/pids.events") or "")
    return Events(
        populated=bool(flags.get("populated")),
        frozen=bool(flags.get("frozen")),
        oom_kills=memory.get("oom_kill"),
        memory_limit_hits=memory.get("max"),
        memory_high_hits=memory.get("high"),
        pids_limit_hits=pids.get("max"),
    )


def is_hierarchy_root(folder: str) -> bool:
    """Tell whether ``folder`` is the real root of the tree, which alone may have processes and child groups at once."""
    return not os.path.exists(f"{folder}/cgroup.type")


def enable_controllers(folder: str, controllers: Iterable[str]) -> tuple[str, ...]:
    """Enable for the children of ``folder`` those of ``controllers`` that are not yet; return the ones it enabled.

    Raises: OSError with EBUSY while processes are in ``folder``, ENOENT for a controller it does not have.
    """
    path = f"{folder}/cgroup.subtree_control"
    missing = tuple(sorted(set(controllers) - set(files.read_text(path).split())))
    if missing:
        files.write_text(path, " ".join(f"+{name}" for name in missing))
    return missing


def gather(folder: str, procs_path: str) -> None:
    """Move every process that ``procs_path`` lists into ``folder``, with all that they fork meanwhile.

    Who enters a frozen group stops at once, so each round finds fewer that can still fork.
    """
    files.write_text(f"{folder}/cgroup.freeze", "1")
    try:
        while outside := set(files.read_pids(procs_path)) - set(files.read_pids(f"{folder}/cgroup.procs")):
            for pid in outside:
                with suppress(ProcessLookupError):
                    files.write_text(f"{folder}/cgroup.procs", str(pid))
    finally:
        thaw(folder)


def freeze(folder: str, *, timeout_s: float) -> None:
    """Stop every process of the group and below. Raises: DeadlineExceeded if one does not stop in time."""
    files.write_text(f"{folder}/cgroup.freeze", "1")
    try:
        wait_flag(folder, "frozen", value=1, timeout_s=timeout_s)
    except DeadlineExceeded:
        thaw(folder)
        raise


def thaw(folder: str) -> None:
    """Let the processes of the group go on."""
    files.write_text(f"{folder}/cgroup.freeze", "0")


def is_frozen(folder: str) -> bool:
    """Tell whether every process of the group has stopped."""
    return bool(parse_keyed(files.try_read(f"{folder}/cgroup.events") or "").get("frozen"))


def kill(folder: str) -> bool:
    """Have the kernel kill the group and everything below it in one step; False before Linux 5.14."""
    try:
        files.write_text(f"{folder}/cgroup.kill", "1")
    except FileNotFoundError:
        return not os.path.isdir(folder)  # a group that is gone has nobody left to kill
    return True


def wait_flag(folder: str, flag: str, *, value: int, timeout_s: float) -> None:
    """Wait until ``flag`` in ``cgroup.events`` has ``value``. Raises: DeadlineExceeded."""
    deadline_s = time.monotonic() + timeout_s
    try:
        fd = os.open(f"{folder}/cgroup.events", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        poll = select.poll()
        poll.register(fd, select.POLLPRI)
        # The read arms the notification: poll returns once the file has changed since.
        while parse_keyed(_pread(fd)).get(flag, value) != value:
            left_s = deadline_s - time.monotonic()
            if left_s <= 0:
                raise DeadlineExceeded(f"{folder} was not {flag} {value} within {timeout_s} s.")
            poll.poll(left_s * 1000)
    finally:
        os.close(fd)


def _pread(fd: int) -> str:
    try:
        return os.pread(fd, 4096, 0).decode()
    except OSError as error:
        if error.errno == errno.ENODEV:  # deleted while we waited
            return ""
        raise

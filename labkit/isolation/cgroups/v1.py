"""cgroup v1: each controller has files of its own, in units of its own; here they are given v2's meaning.

::

    cpus=0.5             cpu.cfs_quota_us        50000, of cpu.cfs_period_us 100000
    cpu_weight=100       cpu.shares              1024
    memory_bytes=64M     memory.limit_in_bytes   67108864
    swap_bytes=16M       memory.memsw.limit_in_bytes   83886080 (memory and swap together)
    pids=32              pids.max                32
    cpuset="0"           cpuset.cpus             0, and cpuset.mems must not be empty
    io_read_bytes_per_s  blkio.throttle.read_bps_device   "254:0 1048576"

v1 has no ``memory.high``: ``memory.soft_limit_in_bytes`` matters only while the whole machine is short of memory.

See: Documentation/admin-guide/cgroup-v1/ in the kernel's source.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import replace

from labkit.errors import DeadlineExceeded, FeatureMissing
from labkit.isolation.cgroups import files
from labkit.isolation.cgroups.limits import Limits, quota_usec, shares_from_weight
from labkit.isolation.cgroups.stats import Events, Stats, parse_keyed

__all__ = ["copy_cpuset", "freeze", "is_frozen", "limit_writes", "read_events", "read_stats", "thaw"]

Write = tuple[str, str, str]
_USEC_PER_TICK = 10_000  # USER_HZ is 100 on every architecture that labkit runs on


def limit_writes(limits: Limits, previous: Limits, *, device: str) -> Iterator[Write]:
    """Yield (controller, file, text) for each limit that differs from ``previous``, in an order the kernel accepts.

    Raises: FeatureMissing for ``memory_high_bytes``.
    """
    if limits.memory_high_bytes is not None:
        raise FeatureMissing("cgroup v1 has no memory.high.", remedy="Use memory_bytes, or a machine with cgroup v2.")
    if limits.cpus != previous.cpus:
        yield "cpu", "cpu.cfs_quota_us", "-1" if limits.cpus is None else str(quota_usec(limits.cpus))
    if limits.cpu_weight != previous.cpu_weight:
        yield "cpu", "cpu.shares", str(shares_from_weight(limits.cpu_weight or 100))
    yield from _memory_writes(limits, previous)
    if limits.pids != previous.pids:
        yield "pids", "pids.max", "max" if limits.pids is None else str(limits.pids)
    if limits.cpuset is not None and limits.cpuset != previous.cpuset:
        yield "cpuset", "cpuset.cpus", limits.cpuset
    if limits.io_read_bytes_per_s != previous.io_read_bytes_per_s:
        yield "io", "blkio.throttle.read_bps_device", f"{device} {limits.io_read_bytes_per_s or 0}"
    if limits.io_write_bytes_per_s != previous.io_write_bytes_per_s:
        yield "io", "blkio.throttle.write_bps_device", f"{device} {limits.io_write_bytes_per_s or 0}"


def _memory_writes(limits: Limits, previous: Limits) -> Iterator[Write]:
    """Yield memory before memory+swap, or after it: the kernel never lets the first be the larger one."""
    writes: list[Write] = []
    if limits.memory_bytes != previous.memory_bytes:
        text = "-1" if limits.memory_bytes is None else str(limits.memory_bytes)
        writes.append(("memory", "memory.limit_in_bytes", text))
    new, old = _memory_and_swap(limits), _memory_and_swap(previous)
    if new != old:
        write = ("memory", "memory.memsw.limit_in_bytes", "-1" if new is None else str(new))
        growing = old is not None and (new is None or new > old)
        writes.insert(0 if growing else len(writes), write)
    yield from writes


def _memory_and_swap(limits: Limits) -> int | None:
    if limits.memory_bytes is None or limits.swap_bytes is None:
        return None
    return limits.memory_bytes + limits.swap_bytes


def copy_cpuset(parent: str, folder: str) -> None:
    """Give a new group its parent's CPUs and memory nodes: v1 starts them empty, and then no process may enter.

    Raises: InvalidSpec, InvalidState, FeatureMissing.
    """
    for name in ("cpuset.cpus", "cpuset.mems"):
        if not files.read_text(f"{folder}/{name}").strip():
            files.write_limit(f"{folder}/{name}", files.read_text(f"{parent}/{name}").strip())


def read_stats(folders: Mapping[str, str]) -> Stats:
    """Return the counters of the controllers in ``folders``, in v2's units."""
    stats = Stats()
    if folder := folders.get("memory"):
        stats = _with_memory(stats, folder)
    if folder := folders.get("pids"):
        hits = parse_keyed(files.try_read(f"{folder}/pids.events") or "")
        stats = replace(stats, pids=files.read_number(f"{folder}/pids.current"), pids_limit_hits=hits.get("max"))
    if folder := folders.get("cpu"):
        throttling = parse_keyed(files.try_read(f"{folder}/cpu.stat") or "")
        stats = replace(
            stats,
            nr_periods=throttling.get("nr_periods"),
            nr_throttled=throttling.get("nr_throttled"),
            throttled_usec=_div(throttling.get("throttled_time"), 1000),
        )
    if folder := folders.get("cpuacct"):
        ticks = parse_keyed(files.try_read(f"{folder}/cpuacct.stat") or "")
        stats = replace(
            stats,
            cpu_usage_usec=_div(files.read_number(f"{folder}/cpuacct.usage"), 1000),
            cpu_user_usec=_times(ticks.get("user"), _USEC_PER_TICK),
            cpu_system_usec=_times(ticks.get("system"), _USEC_PER_TICK),
        )
    if folder := folders.get("io"):
        stats = _with_io(stats, folder)
    return stats


def _with_memory(stats: Stats, folder: str) -> Stats:
    used = files.read_number(f"{folder}/memory.usage_in_bytes")
    both = files.read_number(f"{folder}/memory.memsw.usage_in_bytes")
    kills = parse_keyed(files.try_read(f"{folder}/memory.oom_control") or "")
    return replace(
        stats,
        memory_bytes=used,
        memory_peak_bytes=files.read_number(f"{folder}/memory.max_usage_in_bytes"),
        swap_bytes=None if both is None or used is None else max(0, both - used),
        oom_kills=kills.get("oom_kill"),
    )


def _with_io(stats: Stats, folder: str) -> Stats:
    text = files.try_read(f"{folder}/blkio.throttle.io_service_bytes")
    if text is None:
        return stats
    words = [line.split() for line in text.splitlines()]
    read, written = (
        sum(int(fields[2]) for fields in words if len(fields) == 3 and fields[1] == kind) for kind in ("Read", "Write")
    )
    return replace(stats, io_read_bytes=read, io_write_bytes=written)


def read_events(folders: Mapping[str, str]) -> Events:
    """Return the event counters of the controllers in ``folders``."""
    memory, pids = folders.get("memory"), folders.get("pids")
    kills = parse_keyed(files.try_read(f"{memory}/memory.oom_control") or "") if memory else {}
    hits = parse_keyed(files.try_read(f"{pids}/pids.events") or "") if pids else {}
    any_folder = next(iter(folders.values()), None)
    return Events(
        populated=bool(any_folder and files.try_read(f"{any_folder}/cgroup.procs")),
        frozen="freezer" in folders and is_frozen(folders["freezer"]),
        oom_kills=kills.get("oom_kill"),
        memory_limit_hits=files.read_number(f"{memory}/memory.failcnt") if memory else None,
        pids_limit_hits=hits.get("max"),
    )


def freeze(folder: str, *, timeout_s: float) -> None:
    """Stop every process of the freezer group ``folder``. Raises: DeadlineExceeded if one does not stop in time."""
    deadline_s = time.monotonic() + timeout_s
    while True:
        # Written again each time: a child forked meanwhile joins unfrozen, and only a new write catches it.
        files.write_text(f"{folder}/freezer.state", "FROZEN")
        if is_frozen(folder):
            return
        if time.monotonic() > deadline_s:
            thaw(folder)
            raise DeadlineExceeded(f"{folder} did not freeze within {timeout_s} s: a process is stuck in the kernel.")
        time.sleep(0.001)  # v1 announces no change of freezer.state, so there is nothing to wait for


def thaw(folder: str) -> None:
    """Let the processes of the freezer group ``folder`` go on."""
    files.write_text(f"{folder}/freezer.state", "THAWED")


def is_frozen(folder: str) -> bool:
    """Tell whether every process of the freezer group ``folder`` has stopped."""
    return (files.try_read(f"{folder}/freezer.state") or "").strip() == "FROZEN"


def _times(value: int | None, by: int) -> int | None:
    return None if value is None else value * by


def _div(value: int | None, by: int) -> int | None:
    return None if value is None else value // by

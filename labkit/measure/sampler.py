"""What a cgroup uses, looked at several times a second: the source of every live chart.

The kernel only counts up (CPU time, throttled time, times that a limit was hit), so a rate is the difference of two readings over
the time between them. Memory and the number of processes are states, read as they are. Beside the cgroup's own figures stand
those that the host sees of the process, through psutil: the two agree, because a container is processes of the host.

Leaves out: I/O, per-CPU figures, sampling faster than 50 times a second (a look takes a few milliseconds, most of them psutil's, which
reads through all processes of the machine to find the children).
See: Documentation/admin-guide/cgroup-v2.rst, Documentation/accounting/psi.rst, proc_pid_stat(5).
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, Self

import psutil

from labkit.errors import FeatureMissing, InvalidSpec, InvalidState, LabkitError
from labkit.isolation.cgroups import Cgroup, Pressure, Stats
from labkit.measure.record import Result

__all__ = ["Sample", "Sampler"]

log = logging.getLogger(__name__)

_MOST_HZ = 50.0


@dataclass(frozen=True, slots=True)
class Sample(Result):
    """One look. Rates are since the look before; 100 % is one CPU. None: this machine keeps no such figure.

    ``throttled_percent`` is the share of the scheduler's periods (100 ms) in which the group was stopped because its share was
    used up. ``pressure_*`` is the time lost to waiting, of the cgroup or, on v1, of the whole machine (``pressure_scope``).
    ``host_*`` is what the host sees of the process, its children included.
    """

    time_s: float
    cpu_percent: float | None = None
    throttled_percent: float | None = None
    throttled_usec: int | None = None
    memory_bytes: int | None = None
    memory_peak_bytes: int | None = None
    pids: int | None = None
    oom_kills: int | None = None
    pids_limit_hits: int | None = None
    pressure_cpu_percent: float | None = None
    pressure_memory_percent: float | None = None
    pressure_scope: str = ""
    host_cpu_percent: float | None = None
    host_resident_bytes: int | None = None
    host_processes: int | None = None


class Sampler:
    """Looks at ``cgroup`` (and at process ``pid`` of the host), by itself after `start`, or whenever `take` is called.

    It keeps the last ``keep`` samples. ``stopped`` is the Event that ends its thread; leaving the block sets it. A group that
    is deleted ends it, too.
    """

    def __init__(self, cgroup: Cgroup, pid: int | None = None, *, rate_hz: float = 5.0, keep: int = 300) -> None:
        if not 0 < rate_hz <= _MOST_HZ:
            raise InvalidSpec(f"A rate of {rate_hz:g} Hz cannot be kept: it must be above 0 and at most {_MOST_HZ:g}.")
        self.cgroup = cgroup
        self.pid = pid
        self.rate_hz = rate_hz
        self.stopped = threading.Event()
        self._kept: deque[Sample] = deque(maxlen=keep)
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._began_s = time.monotonic()
        self._before: _Reading | None = None

    @property
    def samples(self) -> tuple[Sample, ...]:
        """The samples that are kept, oldest first."""
        with self._lock:
            return tuple(self._kept)

    @property
    def latest(self) -> Sample | None:
        """The newest sample, if there is one."""
        with self._lock:
            return self._kept[-1] if self._kept else None

    def take(self) -> Sample:
        """Look now, keep the sample and return it. Raises: OSError, LabkitError once the group is deleted.

        The first sample has no rates: they need a look before.
        """
        with self._lock:
            now = _Reading(time.monotonic(), self.cgroup.stats(), _host_view(self.pid))
            sample = _sample(self.cgroup, self._before, now, began_s=self._began_s)
            self._before = now
            self._kept.append(sample)
            return sample

    def start(self) -> Self:
        """Begin to look ``rate_hz`` times a second, in a thread of its own. Raises: InvalidState if it has begun before."""
        if self._thread is not None:
            raise InvalidState("This sampler was started before: make a new one.")
        self._thread = threading.Thread(target=self._run, name=f"labkit-sampler-{self.cgroup.name}", daemon=True)
        self._thread.start()
        return self

    def _run(self) -> None:
        next_s = time.monotonic()
        while not self.stopped.is_set():
            try:
                self.take()
            except (OSError, LabkitError) as error:
                log.debug("the sampler of %s ends: %s", self.cgroup.name, error)
                break
            # From the appointed time on, not from now: otherwise the time that a look takes would add up. What was missed
            # (the machine was busy) is not made up for.
            next_s = max(next_s + 1 / self.rate_hz, time.monotonic())
            self.stopped.wait(next_s - time.monotonic())
        self.stopped.set()

    def stop(self) -> None:
        """End the thread and wait for it; safe to call twice."""
        self.stopped.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


@dataclass(frozen=True, slots=True)
class _HostView:
    """What the host sees of the process and its descendants: CPU seconds so far, resident memory, how many they are."""

    cpu_s: float
    resident_bytes: int
    processes: int


@dataclass(frozen=True, slots=True)
class _Reading:
    at_s: float
    stats: Stats
    host: _HostView | None


def _host_view(pid: int | None) -> _HostView | None:
    if pid is None:
        return None
    try:
        top = psutil.Process(pid)
        family = [top, *top.children(recursive=True)]
    except psutil.NoSuchProcess:
        return None
    cpu_s, resident_bytes, count = 0.0, 0, 0
    for process in family:
        try:
            times = process.cpu_times()
            # Of a child that has ended, the parent remembers the time.
            cpu_s += times.user + times.system + times.children_user + times.children_system
            resident_bytes += process.memory_info().rss
            count += 1
        except psutil.NoSuchProcess:
            continue  # ended while we looked
    return _HostView(cpu_s, resident_bytes, count)


def _sample(cgroup: Cgroup, before: _Reading | None, now: _Reading, *, began_s: float) -> Sample:
    stats, host = now.stats, now.host
    cpu, memory = _pressure(cgroup, "cpu"), _pressure(cgroup, "memory")
    elapsed_s = now.at_s - before.at_s if before else 0.0
    old = before.stats if before else Stats()
    old_host = before.host if before else None
    return Sample(
        time_s=now.at_s - began_s,
        cpu_percent=_rate(old.cpu_usage_usec, stats.cpu_usage_usec, elapsed_s * 1e4),
        throttled_percent=_share(old, stats),
        throttled_usec=stats.throttled_usec,
        memory_bytes=stats.memory_bytes,
        memory_peak_bytes=stats.memory_peak_bytes,
        pids=stats.pids,
        oom_kills=stats.oom_kills,
        pids_limit_hits=stats.pids_limit_hits,
        pressure_cpu_percent=cpu.some.avg10_percent if cpu else None,
        pressure_memory_percent=memory.some.avg10_percent if memory else None,
        pressure_scope=cpu.scope if cpu else "",
        host_cpu_percent=_rate(old_host.cpu_s, host.cpu_s, elapsed_s / 100) if host and old_host else None,
        host_resident_bytes=host.resident_bytes if host else None,
        host_processes=host.processes if host else None,
    )


def _rate(before: float | None, now: float | None, per: float) -> float | None:
    """Return the growth of a counter divided by ``per``; None without a look before. It never runs backwards."""
    return None if before is None or now is None or per <= 0 else max(0.0, now - before) / per


def _share(before: Stats, now: Stats) -> float | None:
    if None in (before.nr_periods, now.nr_periods, before.nr_throttled, now.nr_throttled):
        return None
    periods = (now.nr_periods or 0) - (before.nr_periods or 0)
    return 100.0 * ((now.nr_throttled or 0) - (before.nr_throttled or 0)) / periods if periods > 0 else 0.0


def _pressure(cgroup: Cgroup, resource: Literal["cpu", "memory"]) -> Pressure | None:
    try:
        return cgroup.pressure(resource)
    except FeatureMissing:
        return None

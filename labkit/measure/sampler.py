"""What a cgroup uses, looked at several times a second: the source of every live chart.

The kernel only counts up (CPU time, throttled time, times that a limit was hit), so a rate is the difference of two readings over
the time between them. Memory and the number of processes are states, read as they are. Beside the cgroup's own figures stand
those that the host sees of the process, through psutil: the two agree, because a container is processes of the host.

Leaves out: I/O, per-CPU figures, sampling faster than 50 times a second (a reading costs about a third of a millisecond).
See: Documentation/admin-guide/cgroup-v2.rst, Documentation/accounting/psi.rst, proc_pid_stat(5).
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from labkit.isolation.cgroups import Cgroup
from labkit.measure.record import Result

__all__ = ["Sample", "Sampler"]


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
        self.cgroup = cgroup
        self.pid = pid
        self.rate_hz = rate_hz
        self.stopped = threading.Event()
        self._kept: deque[Sample] = deque(maxlen=keep)

    @property
    def samples(self) -> tuple[Sample, ...]:
        """The samples that are kept, oldest first."""
        return tuple(self._kept)

    @property
    def latest(self) -> Sample | None:
        """The newest sample, if there is one."""
        return self._kept[-1] if self._kept else None

    def take(self) -> Sample:
        """Look now, keep the sample and return it. Raises: InvalidState once the group is deleted."""
        raise NotImplementedError

    def start(self) -> Self:
        """Begin to look ``rate_hz`` times a second, in a thread of its own."""
        raise NotImplementedError

    def stop(self) -> None:
        """End the thread and wait for it; safe to call twice."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

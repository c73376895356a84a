"""How many fit: containers alive at once, and one after another.

A container that waits costs three things. The pages of its program, charged to its cgroup (where there is none: PSS, that is, shared
pages divided by their users); what the same program costs in no container is taken off. The kernel's own memory for namespaces,
mounts and cgroups: much of it is charged to whoever makes the container, so it is read for the whole machine before and after, and
the machine should do little else meanwhile. And what the launcher remembers.

Leaves out: memory that a busy container would need.
See: proc_pid_smaps(5), proc_meminfo(5), Documentation/admin-guide/cgroup-v2.rst ("Memory").
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import psutil

from labkit.container.client import launcher
from labkit.container.container import Container, Namespaced
from labkit.errors import FeatureMissing, InvalidSpec
from labkit.isolation.cgroups import Limits, default_parent
from labkit.isolation.cgroups.tree import walk
from labkit.linux.constants import NS
from labkit.linux.mountinfo import read_mountinfo
from labkit.linux.proc import read_smaps_rollup, read_status, read_text, sizes_bytes
from labkit.measure.clock import time_ms
from labkit.measure.contenders import LIMITS, full_container
from labkit.measure.hostfacts import HostFacts, host_facts
from labkit.measure.record import Result
from labkit.measure.rootfs import busybox_rootfs
from labkit.measure.stats import median

__all__ = ["MOST_ALIVE", "Counters", "Density", "Series", "count_now", "measure_density", "measure_series"]

#: The most containers that `measure_density` keeps alive at once.
MOST_ALIVE = 200
_ALIVE_S = 120.0
_WAITING = ("/bin/sleep", str(int(_ALIVE_S)))


@dataclass(frozen=True, slots=True)
class Counters(Result):
    """What could leak, counted. ``cgroups`` are those of this program; None where the launcher does not let us look."""

    descriptors: int
    processes: int
    cgroups: int
    mounts: int
    launcher_descriptors: int | None
    launcher_bytes: int


@dataclass(frozen=True, slots=True)
class Density(Result):
    """``count`` containers alive at once. Lists have one figure a container, or none where this machine does not tell.

    ``cgroup_bytes``: charged to the container's cgroup. ``process_bytes``: PSS of its program. ``program_*``: the same program in
    no container, by its cgroup and by its private pages. ``kernel_bytes``: growth of the kernel's own memory, all together;
    ``launcher_bytes``: that of the launcher.
    """

    host: HostFacts
    count: int
    start_ms: tuple[float, ...]
    cgroup_bytes: tuple[int, ...]
    process_bytes: tuple[int, ...]
    program_cgroup_bytes: int | None
    program_process_bytes: int
    kernel_bytes: int
    launcher_bytes: int

    @property
    def each_bytes(self) -> float:
        """What one container costs beyond its program: the median of its pages, and its share of kernel and launcher."""
        share = (self.kernel_bytes + self.launcher_bytes) / self.count
        if self.cgroup_bytes and self.program_cgroup_bytes is not None:
            return median(self.cgroup_bytes) - self.program_cgroup_bytes + share
        return median(self.process_bytes) - self.program_process_bytes + share


@dataclass(frozen=True, slots=True)
class Series(Result):
    """Containers started one after another: does the thousandth start as fast as the first, and is anything left?"""

    host: HostFacts
    samples_ms: tuple[float, ...]
    before: Counters
    after: Counters

    @property
    def first_ms(self) -> float:
        """The median of the first tenth."""
        return median(self.samples_ms[: max(1, len(self.samples_ms) // 10)])

    @property
    def last_ms(self) -> float:
        """The median of the last tenth."""
        return median(self.samples_ms[-max(1, len(self.samples_ms) // 10) :])

    @property
    def slowing(self) -> float:
        """How many times as long a start takes at the end as at the beginning."""
        return self.last_ms / self.first_ms


def count_now() -> Counters:
    """Return the counters of this moment."""
    pid = launcher().process.pid
    parent = default_parent()
    folders = [f"{base.folder}/{parent.name}" for base in parent.places.bases.values()]
    try:
        launcher_descriptors = _settled_count(f"/proc/{pid}/fd")
    except PermissionError:
        launcher_descriptors = None  # it hides itself from ordinary users, its owner included
    return Counters(
        descriptors=len(os.listdir("/proc/self/fd")),
        processes=len(psutil.Process().children(recursive=True)),
        cgroups=sum(len(walk(folder)) for folder in folders if os.path.isdir(folder)),
        mounts=len(read_mountinfo()),
        launcher_descriptors=launcher_descriptors,
        launcher_bytes=read_status(pid).resident_bytes or 0,
    )


def _settled_count(folder: str) -> int:
    """Count until two counts agree: the launcher reports an end a moment before it closes the pipe it reported through."""
    count, before = len(os.listdir(folder)), -1
    while count != before:
        time.sleep(0.01)
        count, before = len(os.listdir(folder)), count
    return count


def _kernel_bytes() -> int:
    sizes = sizes_bytes(read_text("/proc/meminfo"))
    return sum(sizes.get(name, 0) for name in ("Slab", "KernelStack", "PageTables", "Percpu"))


def measure_density(count: int = 50, *, progress: Callable[[int, int], object] | None = None) -> Density:
    """Start ``count`` containers that wait, measure while all are alive, end them.

    Raises: InvalidSpec below 1 and above `MOST_ALIVE`.
    """
    if not 1 <= count <= MOST_ALIVE:
        raise InvalidSpec(f"{count} containers at once are not measured here: choose from 1 to {MOST_ALIVE}.")
    with busybox_rootfs() as rootfs, ExitStack() as stack:
        program_cgroup_bytes, program_process_bytes = _program_alone(rootfs)
        limits = usable_limits(rootfs)
        launcher_pid = launcher().process.pid
        kernel_before_bytes, launcher_before_bytes = _kernel_bytes(), read_status(launcher_pid).resident_bytes or 0
        alive: list[Container] = []
        start_ms = []
        for number in range(count):
            container = stack.enter_context(
                Container(
                    _WAITING, rootfs=rootfs, limits=limits, time_limit_s=_ALIVE_S, streams=("null", "null", "null")
                )
            )
            start_ms.append(time_ms(container.start))
            alive.append(container)
            if progress is not None:
                progress(number + 1, count)
        return Density(
            host=host_facts(),
            count=count,
            start_ms=tuple(start_ms),
            cgroup_bytes=tuple(size for container in alive if (size := _charged_bytes(container)) is not None),
            process_bytes=tuple(read_smaps_rollup(container.pid).proportional_bytes for container in alive),
            program_cgroup_bytes=program_cgroup_bytes,
            program_process_bytes=program_process_bytes,
            kernel_bytes=_kernel_bytes() - kernel_before_bytes,
            launcher_bytes=(read_status(launcher_pid).resident_bytes or 0) - launcher_before_bytes,
        )


def _program_alone(rootfs: Path) -> tuple[int | None, int]:
    """Return what the waiting program costs in no container: charged to its cgroup, and its private pages.

    Of two that run, the second one: the pages of the file are charged to whoever touches them first, and shared then.
    """
    command = [str(rootfs / "bin/busybox"), "sleep", str(int(_ALIVE_S))]
    with ExitStack() as stack:
        for _ in range(2):
            process = Namespaced(command, namespaces=NS(0), cwd="/", env={}, streams=("null", "null", "null"))
            process.limits = Limits()  # a cgroup to be counted in, without limits
            stack.enter_context(process)
            process.start()
        return _charged_bytes(process), read_smaps_rollup(process.pid).private_bytes


def _charged_bytes(container: Container | Namespaced) -> int | None:
    return None if container.cgroup is None else container.cgroup.stats().memory_bytes


def usable_limits(rootfs: Path) -> Limits | None:
    """Return the limits of the race's container if this user can set them here; otherwise None."""
    try:
        full_container(rootfs, LIMITS)
    except FeatureMissing:
        return None
    return LIMITS


def measure_series(count: int = 1000, *, progress: Callable[[int, int], object] | None = None) -> Series:
    """Start, wait for and delete ``count`` containers one after another; a thousand take a few seconds.

    Raises: InvalidSpec below 10, of which neither a first nor a last tenth can be told.
    """
    if count < 10:
        raise InvalidSpec(f"{count} containers are no series: choose at least 10.")
    with busybox_rootfs() as rootfs:
        limits = usable_limits(rootfs)
        before = count_now()
        samples_ms = []
        for number in range(count):
            samples_ms.append(time_ms(lambda: full_container(rootfs, limits)))
            if progress is not None:
                progress(number + 1, count)
        after = count_now()
    return Series(host_facts(), tuple(samples_ms), before, after)

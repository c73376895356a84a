"""What a virtual machine costs while it is there: memory, size on disk, and time for programs that run in it.

The same static busybox computes and makes system calls on the host, in a container and in a micro guest, turn by turn. Under KVM the guest's
instructions are the CPU's own; under emulation each of them is translated, and the result says so. The memory of an idle guest is that
of its QEMU; what the guest was given and has not touched yet takes none.

Leaves out: disk and network; memory that a guest gives back.
See: `labkit.vm.guest`, proc_pid_smaps(5) (smaps_rollup), `labkit.measure.overhead` for containers.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from labkit.container.container import Container
from labkit.errors import FeatureMissing, GuestError, InvalidSpec, LabkitError
from labkit.linux.proc import read_smaps_rollup
from labkit.measure.clock import time_ms
from labkit.measure.hostfacts import HostFacts, host_facts
from labkit.measure.machines import MICRO_MIB
from labkit.measure.record import Result
from labkit.measure.rootfs import busybox_rootfs
from labkit.measure.stats import median
from labkit.setup.parts import find_busybox
from labkit.units import MiB
from labkit.vm.accel import accelerator
from labkit.vm.guest import Guest

__all__ = ["LOADS", "MachineCosts", "MachineLoad", "measure_machine"]

#: name, title, and what busybox is asked to do.
LOADS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("cpu", "computing", ("sh", "-c", "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done")),
    ("syscalls", "system calls", ("dd", "if=/dev/zero", "of=/dev/null", "bs=1", "count=50000")),
)
_LIMIT_S = 60.0


@dataclass(frozen=True, slots=True)
class MachineLoad(Result):
    """One load, run as a process of the host, in a container and in the guest, turn by turn; each with its start.

    ``container_ms`` is empty where there can be no containers.
    """

    name: str
    title: str
    process_ms: tuple[float, ...]
    machine_ms: tuple[float, ...]
    container_ms: tuple[float, ...] = ()

    @property
    def ratio(self) -> float:
        """How many times as long the median run takes in the guest."""
        return median(self.machine_ms) / median(self.process_ms)

    @property
    def container_ratio(self) -> float:
        """How many times as long the median run takes in a container. Raises: InvalidSpec where there was none."""
        return median(self.container_ms) / median(self.process_ms)


@dataclass(frozen=True, slots=True)
class MachineCosts(Result):
    """What one micro guest takes: memory given and used, the size of what it boots, and its loads."""

    host: HostFacts
    accelerator: str
    given_bytes: int
    used_bytes: int
    kernel_bytes: int
    initramfs_bytes: int
    program_bytes: int
    loads: tuple[MachineLoad, ...]

    def load(self, name: str) -> MachineLoad:
        """Return the row of one load. Raises: KeyError."""
        return {load.name: load for load in self.loads}[name]

    @property
    def fit(self) -> int:
        """How many idle guests fit into 80 % of this machine's memory: arithmetic from one, not a measurement."""
        return int(0.8 * self.host.memory_bytes / self.used_bytes)


def measure_machine(n: int = 5, *, memory_mib: int = MICRO_MIB) -> MachineCosts:
    """Boot a micro guest, weigh it, and run each load ``n`` times in it and beside it.

    Raises: InvalidSpec for n below 1, FeatureMissing without QEMU, kernel or busybox; GuestError.
    """
    if n < 1:
        raise InvalidSpec(f"{n} runs tell nothing: choose at least 1.")
    busybox = find_busybox()
    if busybox is None:
        raise FeatureMissing("This machine has no static busybox.", remedy="Run `labkit setup`.")
    with busybox_rootfs() as rootfs, Guest(memory_mib) as guest:
        used_bytes = read_smaps_rollup(guest.pid).proportional_bytes
        contained = _contained(rootfs)
        times = [_run_all(busybox, contained, guest) for _ in range(n)]
        loads = tuple(
            MachineLoad(
                name, title, *(tuple(sample for one in times for sample in one[name][place]) for place in range(3))
            )
            for name, title, _ in LOADS
        )
        return MachineCosts(
            host_facts(), str(accelerator()), memory_mib * MiB, used_bytes, guest.spec.kernel.stat().st_size,
            len(guest.spec.initramfs), Path(busybox).stat().st_size, loads,
        )  # fmt: skip


def _run_all(
    busybox: Path, contained: Callable[[Sequence[str]], object] | None, guest: Guest
) -> dict[str, tuple[list[float], list[float], list[float]]]:
    """Run each load once in each place; return the milliseconds as process, in the guest, in a container (none without)."""
    times = {}
    for name, _, words in LOADS:
        command = ["/bin/busybox", *words]
        process_ms = time_ms(_outside([str(busybox), *words]))
        container_ms = [] if contained is None else [time_ms(partial(contained, command))]
        times[name] = ([process_ms], [time_ms(_inside(guest, command))], container_ms)
    return times


def _contained(rootfs: Path) -> Callable[[Sequence[str]], object] | None:
    """Return how to run a command in a full container without a limit on CPU time; None where there can be none."""

    def run(command: Sequence[str]) -> None:
        with Container(command, rootfs=rootfs, time_limit_s=_LIMIT_S, streams=("null", "null", "null")) as container:
            container.start()
            ended = container.wait()
        if not ended.ok:
            raise LabkitError(f"A load ended with {ended.reason} in a container.")

    try:
        run(["/bin/busybox", "true"])
    except LabkitError:
        return None
    return run


def _outside(command: Sequence[str]) -> Callable[[], object]:
    return lambda: subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_LIMIT_S, check=True)


def _inside(guest: Guest, command: Sequence[str]) -> Callable[[], object]:
    def run() -> None:
        done = guest.exec(command, timeout_s=_LIMIT_S)
        if done.status:
            raise GuestError(f"A load ended with status {done.status} in the guest.")

    return run

"""How many machines fit: micro guests alive together, weighed, and what of that is shared.

The memory of a guest is that of its QEMU. PSS (proportional set size) divides each shared page by its users: of several QEMUs the
program's own pages are shared, the guests' pages are not. The kernel could find equal pages and merge them (KSM), but only in
memory that was offered to it, and QEMU's file of memory is not.

As many guests are started as are asked for, at most `MOST_GUESTS`, and never more than 80 % of the machine's memory would hold. How many would
fit is then arithmetic, and marked so, unless the 80 % were really reached.

Leaves out: guests that work; balloons; swap.
See: proc_pid_smaps(5) (smaps_rollup), Documentation/admin-guide/mm/ksm.rst, `labkit.measure.density` for containers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from labkit.errors import FeatureMissing, InvalidSpec
from labkit.linux.proc import read_smaps_rollup, read_text, sizes_bytes
from labkit.measure.hostfacts import HostFacts, host_facts
from labkit.measure.machines import MICRO_MIB
from labkit.measure.record import Result
from labkit.measure.stats import median
from labkit.setup.parts import find_busybox
from labkit.units import MiB
from labkit.vm.accel import accelerator
from labkit.vm.distribution import find_disk
from labkit.vm.guest import Guest
from labkit.vm.kernel import find_kernel
from labkit.vm.micro import micro_spec

__all__ = ["MOST_GUESTS", "MachineDensity", "MachineSize", "Together", "machine_sizes", "measure_machine_density"]

MOST_GUESTS = 32
FULL = 0.8


@dataclass(frozen=True, slots=True)
class Together(Result):
    """So many guests alive at one time: the PSS of each one's QEMU, and how much less memory the host had left than before."""

    count: int
    proportional_bytes: tuple[int, ...]
    taken_bytes: int

    @property
    def each_bytes(self) -> float:
        """The median guest."""
        return median(self.proportional_bytes)


@dataclass(frozen=True, slots=True)
class MachineDensity(Result):
    """Guests together, a row a count; ``free_bytes`` is what the host had left before, ``was_full`` whether 80 % were reached."""

    host: HostFacts
    accelerator: str
    given_bytes: int
    free_bytes: int
    rows: tuple[Together, ...]
    was_full: bool

    @property
    def fit(self) -> int:
        """How many guests fit until 80 % of the machine's memory are taken, other programs included."""
        last = self.rows[-1]
        if self.was_full:
            return last.count
        room_bytes = self.free_bytes - (1 - FULL) * self.host.memory_bytes
        return max(last.count, int(room_bytes / last.each_bytes))

    @property
    def is_extrapolated(self) -> bool:
        """Whether `fit` is arithmetic from the guests that ran, rather than their number."""
        return not self.was_full


@dataclass(frozen=True, slots=True)
class MachineSize(Result):
    """What lies on the disk before anything starts."""

    name: str
    title: str
    size_bytes: int


def measure_machine_density(
    counts: Sequence[int] = (1, 2, 4, 8), *, memory_mib: int = MICRO_MIB, progress: Callable[[int, int], object] | None = None
) -> MachineDensity:  # fmt: skip
    """Boot guests until each of ``counts`` is reached, weigh them all each time, and end them.

    Raises: InvalidSpec for counts that do not rise or are more than `MOST_GUESTS`, FeatureMissing without QEMU; GuestError.
    """
    if not counts or list(counts) != sorted(set(counts)) or not 1 <= counts[0] <= counts[-1] <= MOST_GUESTS:
        raise InvalidSpec(f"The numbers of guests must rise, from 1 to at most {MOST_GUESTS}, not {list(counts)}.")
    free_bytes = available_bytes()
    least_bytes = (1 - FULL) * host_facts().memory_bytes
    rows: list[Together] = []
    was_full = False
    with ExitStack() as stack:
        alive: list[Guest] = []
        while len(alive) < counts[-1] and not was_full:
            # A guest may come to use all that it was given: it must fit before it starts.
            was_full = available_bytes() - memory_mib * MiB < least_bytes
            if not was_full:
                alive.append(stack.enter_context(Guest(memory_mib)))
                if progress is not None:
                    progress(len(alive), counts[-1])
            if alive and (len(alive) in counts or was_full):
                rows.append(_weigh(alive, free_bytes))
    if not rows:
        raise FeatureMissing("Four fifths of this machine's memory are taken already.", remedy="End other programs.")
    return MachineDensity(host_facts(), str(accelerator()), memory_mib * MiB, free_bytes, tuple(rows), was_full)


def _weigh(alive: Sequence[Guest], free_bytes: int) -> Together:
    weights = tuple(read_smaps_rollup(guest.pid).proportional_bytes for guest in alive)
    return Together(len(alive), weights, free_bytes - available_bytes())


def available_bytes() -> int:
    """Return how much memory new programs could have without swapping, by the kernel's estimate."""
    return sizes_bytes(read_text("/proc/meminfo"))["MemAvailable"]


def machine_sizes() -> tuple[MachineSize, ...]:
    """Return the sizes of what is started: a program, a micro guest's kernel and archive, a distribution's disk where there is one.

    Raises: FeatureMissing without a guest kernel or busybox.
    """
    spec = micro_spec()
    sizes = [
        MachineSize("process", "program", _room_bytes(find_busybox() or spec.kernel)),
        MachineSize("microvm", "micro VM: kernel and archive", _room_bytes(spec.kernel) + len(spec.initramfs)),
    ]
    generic = find_kernel("hostroot")
    modules = sum(_room_bytes(path) for path in generic.modules.rglob("*") if path.is_file())
    sizes.append(MachineSize("vm-hostroot", "host-root VM: kernel and modules", _room_bytes(generic.path) + modules))
    try:
        disk = find_disk()
    except FeatureMissing:
        return tuple(sizes)
    title = "VM with a distribution: kernel and disk"
    return (*sizes, MachineSize("vm-distribution", title, _room_bytes(spec.kernel) + _room_bytes(disk.path)))


def _room_bytes(path: Path) -> int:
    """Return the room that a file takes: holes of a disk take none."""
    return path.stat().st_blocks * 512

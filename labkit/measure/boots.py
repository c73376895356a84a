"""Boots, one after another, and where the time of each went: of a machine with the memory and the processors that one chooses.

See: `labkit.vm.timeline`, `labkit.measure.scenes`.
"""

from __future__ import annotations

from dataclasses import dataclass

from labkit.measure.record import Result
from labkit.measure.scenes import Stage
from labkit.vm.guest import Guest

__all__ = ["BootRun", "Boots", "boot_once"]


@dataclass(frozen=True, slots=True)
class BootRun(Result):
    """One boot: what the machine was given, and its phases."""

    memory_mib: int
    cpus: int
    stages: tuple[Stage, ...]

    @property
    def ready_s(self) -> float:
        """When it was ready, since the start of QEMU."""
        return self.stages[-1].start_s + self.stages[-1].elapsed_s

    @property
    def name(self) -> str:
        """What it is called in a picture."""
        return f"{self.memory_mib} MiB, {self.cpus} CPU{'s' if self.cpus > 1 else ''}"


@dataclass(frozen=True, slots=True)
class Boots(Result):
    """The boots so far, the oldest first; ``source`` says where they are from if not from here."""

    runs: tuple[BootRun, ...] = ()
    source: str = ""

    def with_run(self, run: BootRun) -> Boots:
        """Return these and one more; what came from elsewhere does not stay beside what was measured here."""
        return Boots((*(() if self.source else self.runs), run))


def boot_once(memory_mib: int, cpus: int) -> BootRun:
    """Boot a micro guest, and end it. Raises: FeatureMissing, GuestError."""
    with Guest(memory_mib, cpus=cpus) as guest:
        stages = tuple(Stage(phase.name, phase.start_s, phase.elapsed_s) for phase in guest.timeline.phases())
        return BootRun(memory_mib, cpus, stages)

"""What isolation costs a program that runs: nothing while it computes, a little at each system call.

A container is processes of the host's kernel. Its instructions run on the CPU as anybody's; only where the kernel is asked for
something may it have more to do: a seccomp filter runs at each call, a cgroup is charged for each page.

Leaves out: network and disk (lessons of their own), virtual machines (`labkit.vm`).
See: seccomp(2), Documentation/admin-guide/cgroup-v2.rst.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from labkit.container.container import Container, Namespaced, run
from labkit.container.spec import MountSpec
from labkit.errors import FeatureMissing, InvalidSpec, LabkitError
from labkit.isolation.cgroups import Limits
from labkit.linux.constants import NS
from labkit.measure.hostfacts import HostFacts, host_facts
from labkit.measure.inner_python import answer_of, inner_command, open_package
from labkit.measure.record import Result
from labkit.measure.stats import median
from labkit.units import MiB

__all__ = ["LOADS", "Overhead", "OverheadRow", "measure_overhead"]


@dataclass(frozen=True, slots=True)
class OverheadRow(Result):
    """One load, run as a bare process and in a full container, turn by turn."""

    name: str
    title: str
    process_ms: tuple[float, ...]
    container_ms: tuple[float, ...]

    @property
    def ratio(self) -> float:
        """How many times as long the median run takes in the container."""
        return median(self.container_ms) / median(self.process_ms)


@dataclass(frozen=True, slots=True)
class Overhead(Result):
    """The rows of all loads."""

    host: HostFacts
    rows: tuple[OverheadRow, ...]

    def row(self, name: str) -> OverheadRow:
        """Return the row of one load. Raises: KeyError."""
        return {row.name: row for row in self.rows}[name]


#: name and title of each load
LOADS: tuple[tuple[str, str], ...] = (
    ("cpu", "computing"),
    ("syscalls", "system calls"),
    ("memory", "fresh memory, page by page"),
    ("processes", "starting processes"),
)
#: No limit on CPU time: a throttled program is slow on purpose.
_LIMITS = Limits(memory_bytes=256 * MiB, pids=64)
_PACKAGE_INSIDE = "/opt/labkit-loads"
_TIME_LIMIT_S = 30.0


def measure_overhead(n: int = 5, *, progress: Callable[[int, int], object] | None = None) -> Overhead:
    """Run each load ``n`` times in each place, turn by turn; takes about half a second a round.

    Raises: InvalidSpec for n below 1, SetupError.
    """
    if n < 1:
        raise InvalidSpec(f"{n} runs tell nothing: choose at least 1.")
    outside: list[dict[str, float]] = []
    inside: list[dict[str, float]] = []
    with open_package() as package:
        limits = _usable_limits(package)
        for number in range(n):
            outside.append(_run(_process(package)))
            inside.append(_run(_container(package, limits)))
            if progress is not None:
                progress(number + 1, n)
    rows = tuple(
        OverheadRow(name, title, tuple(run[name] for run in outside), tuple(run[name] for run in inside))
        for name, title in LOADS
    )
    return Overhead(host_facts(), rows)


def _command(package_parent: str | Path) -> list[str]:
    return inner_command("loads", {"loads": [name for name, _ in LOADS]}, package_parent=package_parent)


def _process(package: Path) -> Namespaced:
    """The bare process comes from the same launcher, but is in no namespace and no cgroup of its own."""
    return Namespaced(_command(package), namespaces=NS(0), cwd="/", env={}, time_limit_s=_TIME_LIMIT_S)


def _container(package: Path, limits: Limits | None) -> Container:
    mount = MountSpec("bind", f"{_PACKAGE_INSIDE}/labkit", str(package / "labkit"), ("ro",))
    return Container(
        _command(_PACKAGE_INSIDE), image_like_host=True, limits=limits, mounts=[mount], time_limit_s=_TIME_LIMIT_S
    )


def _usable_limits(package: Path) -> Limits | None:
    try:
        _run(_container(package, _LIMITS))
    except FeatureMissing:
        return None
    return _LIMITS


def _run(place: Container | Namespaced) -> dict[str, float]:
    done = run(place)
    times = answer_of(done.stdout)
    if times is None:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        raise LabkitError(f"The loads did not run: {said[-1] if said else done.exit.reason}.")
    return times

"""The experiments of the course that `labkit record` records, and what a lesson shows: measured here, or else recorded.

::

    boot = recorded_or("boot", lambda: boot_of(guest))
    boot.result                 # what was measured, or what was recorded
    str(boot)                   # nothing, or the sentence that must stand beside a recording

A recording is used in one case only: this machine lacks what the experiment needs, a part (QEMU, a guest kernel) or a right (to
make user namespaces). It is asked by trying. A machine that can measure never opens the file, and an error while it
measures stays an error.

Leaves out: lessons whose whole point is something that the student does; they say ``not shown here``.
See: `labkit.measure.recording` for the files, `labkit.commands.record`.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from labkit.errors import FeatureMissing, InvalidSpec, LabkitError, SetupError
from labkit.linux.constants import NS
from labkit.measure.record import Result
from labkit.measure.recording import FOLDER, Recording, Shown, read_recording

__all__ = ["EXPERIMENTS", "Experiment", "find_recording", "lacking", "recorded_or"]

R = TypeVar("R", bound=Result)


@dataclass(frozen=True, slots=True)
class Experiment:
    """One that can be recorded: what it is, its function and its result (each as ``module:name``), and what it needs.

    ``needs``: ``machine`` (QEMU and a guest kernel), ``namespaces`` (user namespaces for this user).
    """

    title: str
    function: str
    kind: str
    needs: tuple[str, ...]

    @property
    def result_type(self) -> type[Result]:
        """The class of the result."""
        found: type[Result] = _load(self.kind)
        return found

    def measure(self) -> Result:
        """Measure, here and now. Raises: LabkitError."""
        result: Result = _load(self.function)()
        return result


_BOTH = ("namespaces", "machine")
#: Name of the recording -> experiment, the quick ones first.
EXPERIMENTS: Mapping[str, Experiment] = {
    "boot": Experiment("the boot of a micro guest", "takes:boot", "scenes:Boot", ("machine",)),
    "panic": Experiment("a guest's panic", "takes:panic", "scenes:Panic", ("machine",)),
    "tenants": Experiment("two tenants", "takes:tenants", "scenes:Tenants", ("machine",)),
    "saved": Experiment("a machine as a file", "takes:saved", "scenes:Saved", ("machine",)),
    "moved": Experiment("a live migration", "takes:moved", "scenes:Moved", ("machine",)),
    "swapped": Experiment("swapping in a guest", "scenes:swap_out", "scenes:Swapped", ("machine",)),
    "machine-costs": Experiment("costs of a machine", "takes:machine_costs", "machine_costs:MachineCosts", ("machine",)),
    "machine-density": Experiment(
        "machines together", "takes:machine_density", "machine_density:MachineDensity", ("machine",)
    ),
    "isolation": Experiment("isolation matrix", "isolation:isolation_matrix", "isolation:IsolationMatrix", ("namespaces",)),
    "isolation-machine": Experiment(
        "isolation matrix with a machine", "machine_isolation:machine_matrix", "isolation:IsolationMatrix", _BOTH
    ),
    "race": Experiment("start-up race", "takes:race", "startup:Race", ("namespaces",)),
    "race-machines": Experiment("start-up race with machines", "takes:race_machines", "startup:Race", _BOTH),
    "density": Experiment("density of containers", "takes:density", "density:Density", ("namespaces",)),
    "series": Experiment("containers one after another", "takes:series", "density:Series", ("namespaces",)),
    "overhead": Experiment("overhead in a container", "takes:overhead", "overhead:Overhead", ("namespaces",)),
}  # fmt: skip


def lacking(need: str) -> str:
    """Return why this machine has no ``machine`` or ``namespaces`` for this user, as a sentence with the remedy; or nothing.

    Raises: InvalidSpec for another need.
    """
    if need not in _TRIALS:
        raise InvalidSpec(f"No experiment needs {need!r}: there are {', '.join(_TRIALS)}.")
    try:
        _TRIALS[need]()
    except LabkitError as error:
        return str(error)
    return ""


def recorded_or(name: str, measure: Callable[[], R], *, folder: Path = FOLDER) -> Shown[R]:
    """Return what ``measure`` measures; on a machine that lacks what the experiment ``name`` needs, its recording.

    Raises: what ``measure`` raises on a machine that lacks nothing; InvalidSpec for a name without an experiment, or when the
    recording is needed and cannot be used.
    """
    experiment = _experiment(name)
    reason = next(filter(None, (lacking(need) for need in experiment.needs)), "")
    if not reason:
        try:
            return Shown(measure())
        except FeatureMissing as error:  # a right that only shows when it is used, such as to limit a cgroup
            reason = str(error)
    found: Recording[Any] = find_recording(name, folder=folder)
    return Shown(found.result, found, reason)


def find_recording(name: str, *, folder: Path = FOLDER) -> Recording[Any]:
    """Return the recording ``name``, whatever this machine can do. Raises: InvalidSpec."""
    return read_recording(name, _experiment(name).result_type, folder=folder)


def _experiment(name: str) -> Experiment:
    if name not in EXPERIMENTS:
        raise InvalidSpec(f"Nothing called {name!r} is recorded: there are {', '.join(EXPERIMENTS)}.")
    return EXPERIMENTS[name]


def _load(place: str) -> Any:
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(f"labkit.measure.{module}"), name)


def _try_machine() -> None:
    """Look for everything that a micro guest is started with; the guest itself is the experiment's."""
    from labkit.vm.micro import micro_spec

    micro_spec()


@functools.cache
def _try_namespaces() -> None:
    """Start one process in a user namespace."""
    from labkit.container.container import Namespaced, run

    try:
        run(Namespaced(["/bin/sh", "-c", ":"], namespaces=NS.USER | NS.PID, cwd="/"), timeout_s=20)
    except SetupError as error:
        raise FeatureMissing(
            f"No user namespace may be made here ({str(error).rstrip('.')}).",
            remedy="`labkit doctor` names the rule, and what would change it.",
        ) from error


_TRIALS: Mapping[str, Callable[[], None]] = {"machine": _try_machine, "namespaces": _try_namespaces}

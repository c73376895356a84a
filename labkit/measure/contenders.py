"""The contenders of the race that labkit brings itself: a bare process, each namespace alone, all of them, a full container.

Each starts the same static program and waits for its end. All of labkit's own go through the resident launcher, so the rows
differ in what the kernel has to make, and in nothing else. The bare process is the cheapest start there is: posix_spawn(3),
whose child shares the parent's memory until it executes.

See: `labkit.measure.startup`; `labkit.measure.peers` for other people's tools.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from labkit.container.container import Container, Namespaced
from labkit.errors import FeatureMissing, LabkitError
from labkit.isolation.cgroups import Limits
from labkit.linux.constants import NS, NS_FILES
from labkit.units import MiB

__all__ = ["LIMITS", "OWN", "Contender", "full_container", "start_process"]

#: The limits of the full container.
LIMITS = Limits(memory_bytes=64 * MiB, pids=32, cpus=0.5)
_ALL = NS(sum(NS_FILES))


@dataclass(frozen=True, slots=True)
class Contender:
    """Who takes part: ``start`` runs the program once, from nothing to its collected end. ``skipped`` is why it cannot."""

    name: str
    start: Callable[[], object]
    note: str = ""
    skipped: str = ""


def start_process(path: str) -> None:
    """Start the program ``path`` as a bare process and collect its end. See: posix_spawn(3), vfork(2)."""
    pid = os.posix_spawn(path, [path], {})
    os.waitpid(pid, 0)


def full_container(rootfs: Path, limits: Limits | None) -> None:
    """Start ``/bin/true`` in a container with everything on, wait, and delete the container."""
    with Container(["/bin/true"], rootfs=rootfs, limits=limits, streams=("null", "null", "null")) as container:
        container.start()
        ended = container.wait()
    if not ended.ok:
        raise LabkitError(f"/bin/true ended with {ended.reason} in a container.")


def _namespaced(program: str, kinds: NS) -> None:
    with Namespaced([program], namespaces=kinds, cwd="/", env={}, streams=("null", "null", "null")) as process:
        process.start()
        process.wait()


@contextmanager
def _process(rootfs: Path) -> Iterator[Contender]:
    program = str(rootfs / "bin/true")
    yield Contender("process", lambda: start_process(program), "posix_spawn(3), no namespace of its own")


def _kind(kind: NS) -> Callable[[Path], AbstractContextManager[Contender]]:
    @contextmanager
    def prepare(rootfs: Path) -> Iterator[Contender]:
        program = str(rootfs / "bin/true")
        note = f"one new {NS_FILES[kind]} namespace"
        if kind != NS.USER and os.geteuid() != 0:
            note += ", beside the user namespace without which an ordinary user may make none"
        yield Contender(f"namespace:{NS_FILES[kind]}", lambda: _namespaced(program, kind), note)

    return prepare


@contextmanager
def _namespaces(rootfs: Path) -> Iterator[Contender]:
    program = str(rootfs / "bin/true")
    yield Contender("namespaces", lambda: _namespaced(program, _ALL), "all eight kinds at once, the host's files")


@contextmanager
def _container(rootfs: Path) -> Iterator[Contender]:
    everything = "namespaces, overlay, /proc, /dev, capabilities, seccomp"
    try:
        full_container(rootfs, LIMITS)
    except FeatureMissing as error:
        yield Contender("container", lambda: full_container(rootfs, None), f"{everything}; no limits here: {error}")
    else:
        yield Contender("container", lambda: full_container(rootfs, LIMITS), f"{everything}, limits")


#: How each of labkit's own contenders is prepared.
OWN: Mapping[str, Callable[[Path], AbstractContextManager[Contender]]] = {
    "process": _process,
    **{f"namespace:{name}": _kind(kind) for kind, name in NS_FILES.items()},
    "namespaces": _namespaces,
    "container": _container,
}

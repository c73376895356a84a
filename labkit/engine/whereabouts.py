"""Where a container's files live: in its writable layer, in a volume, in a folder of the host, in memory.

Asked of the engine (what is mounted where) and of the container (what is there to read now).

See: Docker Engine API 1.44, ContainerInspect ("Mounts", "GraphDriver"); mount_namespaces(7).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import docker
from docker.errors import APIError, NotFound
from docker.models.containers import Container

__all__ = ["KINDS", "Place", "Whereabouts", "look"]

Kind = Literal["layer", "volume", "bind", "tmpfs"]
KINDS: tuple[Kind, ...] = ("layer", "volume", "bind", "tmpfs")
_LIVES = {
    "layer": "the container's writable layer",
    "volume": "a volume of the engine's",
    "bind": "a folder of the host",
    "tmpfs": "memory",
}


@dataclass(frozen=True, slots=True)
class Place:
    """A file of a container: which kind of place it lies in, its path inside, and what can be read there now ("": nothing)."""

    kind: Kind
    path: str
    content: str

    @property
    def lives_in(self) -> str:
        """Where the bytes are, in words."""
        return _LIVES[self.kind]


@dataclass(frozen=True, slots=True)
class Whereabouts:
    """The files of one container; ``state`` is ``none`` when there is no such container."""

    name: str
    state: str
    places: tuple[Place, ...]


def look(client: docker.DockerClient, name: str, paths: Mapping[Kind, str]) -> Whereabouts:
    """Return what is in the files ``paths`` of the container ``name`` (which must run for tmpfs to be seen)."""
    try:
        container = client.containers.get(name)
    except NotFound:
        return Whereabouts(name, "none", tuple(Place(kind, path, "") for kind, path in paths.items()))
    contents = _read(container, list(paths.values())) if container.status == "running" else [""] * len(paths)
    places = tuple(Place(kind, path, text) for (kind, path), text in zip(paths.items(), contents, strict=True))
    return Whereabouts(name, container.status, places)


def _read(container: Container, paths: Sequence[str]) -> list[str]:
    script = 'for path; do if [ -f "$path" ]; then head -n 1 "$path"; else echo; fi; done'
    try:
        answer = container.exec_run(["sh", "-c", script, "sh", *paths], stderr=False)
    except APIError:
        return [""] * len(paths)  # it has just ended
    output: Any = answer.output
    lines: list[str] = output.decode(errors="replace").split("\n")[: len(paths)]
    return lines + [""] * (len(paths) - len(lines))

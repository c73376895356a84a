"""What there is of a project, read from the engine: containers by their labels, networks and volumes by their names.

See: Docker Engine API 1.44, ContainerList, ContainerInspect.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from docker.api.client import APIClient
from docker.errors import NotFound

from labkit.compose.containers import HASH, NUMBER, PROJECT, SERVICE

__all__ = ["Actual", "Found", "read_actual"]


@dataclass(frozen=True, slots=True)
class Found:
    """A container of the project. ``state`` as Docker says it (``running``, ``exited``, ...); ``health`` empty without a check."""

    id: str
    name: str
    service: str
    number: int
    config_hash: str
    state: str
    exit_code: int = 0
    health: str = ""
    image: str = ""
    ports: tuple[str, ...] = ()

    @property
    def running(self) -> bool:
        """True for one that runs, paused or about to be restarted included."""
        return self.state in ("running", "paused", "restarting")


@dataclass(frozen=True, slots=True)
class Actual:
    """All that there is of one project."""

    containers: tuple[Found, ...] = ()
    networks: frozenset[str] = frozenset()
    volumes: frozenset[str] = frozenset()

    def of(self, service: str) -> dict[int, Found]:
        """Return the containers of ``service`` by their numbers."""
        return {found.number: found for found in self.containers if found.service == service}


def read_actual(api: APIClient, project: str) -> Actual:
    """Ask the engine for everything that carries the label of ``project``. Raises: docker.errors.APIError."""
    listed = api.containers(all=True, filters={"label": f"{PROJECT}={project}"})
    found = [one for item in listed if (one := _inspect(api, str(item["Id"]))) is not None]
    networks = {str(item["Name"]) for item in api.networks()}
    volumes = {str(item["Name"]) for item in (api.volumes().get("Volumes") or [])}
    return Actual(
        tuple(sorted(found, key=lambda one: (one.service, one.number))), frozenset(networks), frozenset(volumes)
    )


def _inspect(api: APIClient, container_id: str) -> Found | None:
    try:
        seen: dict[str, Any] = api.inspect_container(container_id)
    except NotFound:
        return None  # gone since it was listed
    labels, state = seen["Config"].get("Labels") or {}, seen["State"]
    ports = (seen.get("NetworkSettings") or {}).get("Ports") or {}
    published = [
        f"{binding['HostIp']}:{binding['HostPort']}->{target}"
        for target, bindings in ports.items()
        for binding in bindings or []
    ]
    return Found(
        id=container_id, name=str(seen["Name"]).lstrip("/"), service=labels.get(SERVICE, ""), number=int(labels.get(NUMBER, "1")),
        config_hash=labels.get(HASH, ""), state=str(state["Status"]), exit_code=int(state.get("ExitCode") or 0),
        health=str((state.get("Health") or {}).get("Status", "")), image=str(seen["Config"].get("Image", "")), ports=tuple(published),
    )  # fmt: skip

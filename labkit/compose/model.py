"""What a Compose file says, as plain data: a project of services, networks and volumes.

Names follow the specification's keys. Everything is checked and in one form already: durations in seconds, sizes in bytes, ports and mounts
taken apart. Two projects that mean the same are equal.

See: Compose Specification, 05-services.md, 06-networks.md, 07-volumes.md, deploy.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

__all__ = [
    "Build",
    "Condition",
    "Health",
    "Mount",
    "Network",
    "NetworkUse",
    "Port",
    "Project",
    "Restart",
    "Service",
    "Volume",
]

Condition = Literal["service_started", "service_healthy", "service_completed_successfully"]
Restart = Literal["no", "always", "on-failure", "unless-stopped"]


@dataclass(frozen=True, slots=True)
class Build:
    """How a service's image is made: a context folder (absolute), a Dockerfile in it, arguments, a stage."""

    context: str
    dockerfile: str = "Dockerfile"
    args: Mapping[str, str] = field(default_factory=dict)
    target: str = ""


@dataclass(frozen=True, slots=True)
class Port:
    """A published port: ``host`` 0 lets the engine choose."""

    target: int
    host: int = 0
    host_ip: str = ""
    protocol: Literal["tcp", "udp"] = "tcp"


@dataclass(frozen=True, slots=True)
class Mount:
    """Something that is mounted: a named ``volume``, a ``bind`` of a host path, or ``tmpfs``."""

    type: Literal["volume", "bind", "tmpfs"]
    target: str
    source: str = ""
    read_only: bool = False


@dataclass(frozen=True, slots=True)
class NetworkUse:
    """A network that a service is on, with the names and the address it has there."""

    aliases: tuple[str, ...] = ()
    ipv4_address: str = ""


@dataclass(frozen=True, slots=True)
class Health:
    """How the engine finds out whether a container is well; times in seconds (0: the engine's default)."""

    test: tuple[str, ...]
    interval_s: float = 0
    timeout_s: float = 0
    start_period_s: float = 0
    retries: int = 0


@dataclass(frozen=True, slots=True)
class Service:
    """One kind of container, and how many of it."""

    name: str
    image: str = ""
    build: Build | None = None
    command: tuple[str, ...] | None = None
    entrypoint: tuple[str, ...] | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    ports: tuple[Port, ...] = ()
    mounts: tuple[Mount, ...] = ()
    networks: Mapping[str, NetworkUse] = field(default_factory=dict)
    network_mode: str = ""
    depends_on: Mapping[str, Condition] = field(default_factory=dict)
    healthcheck: Health | None = None
    restart: Restart = "no"
    restart_retries: int = 0
    replicas: int = 1
    profiles: tuple[str, ...] = ()
    container_name: str = ""
    hostname: str = ""
    user: str = ""
    working_dir: str = ""
    read_only: bool = False
    init: bool = False
    stop_grace_period_s: float = 10
    memory_bytes: int = 0
    cpus: float = 0
    pids: int = 0
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Network:
    """A network of the project, or one that is there already (``external``); ``name`` is the engine's."""

    name: str
    external: bool = False
    internal: bool = False
    subnet: str = ""
    gateway: str = ""


@dataclass(frozen=True, slots=True)
class Volume:
    """A named volume, likewise."""

    name: str
    external: bool = False


@dataclass(frozen=True, slots=True)
class Project:
    """All that one file describes; ``directory`` is what relative paths start from."""

    name: str
    directory: str
    services: Mapping[str, Service]
    networks: Mapping[str, Network] = field(default_factory=dict)
    volumes: Mapping[str, Volume] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

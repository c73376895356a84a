"""A service as what the engine's API wants: the body of ``POST /containers/create``, and the labels by which it is found again.

The labels are those of ``docker compose``, so that each of the two sees and ends what the other started. The hash among them is of
everything that would make another container: if it differs, the container must be made anew.

See: Docker Engine API 1.44, ContainerCreate.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from labkit.compose.model import Health, Mount, Project, Service

__all__ = ["HASH", "NUMBER", "PROJECT", "SERVICE", "body_of", "config_hash", "container_name", "labels_of"]

_PREFIX = "com.docker.compose."
PROJECT, SERVICE, NUMBER, HASH = (_PREFIX + word for word in ("project", "service", "container-number", "config-hash"))
_NS_PER_S = 1_000_000_000


def container_name(project: Project, service: Service, number: int) -> str:
    """Return the name of the ``number``-th container of ``service``, counted from 1."""
    return service.container_name or f"{project.name}-{service.name}-{number}"


def labels_of(project: Project, service: Service, number: int, image_id: str) -> dict[str, str]:
    """Return the labels of a container: the file's own and those that it is found by."""
    return {
        **service.labels,
        PROJECT: project.name,
        SERVICE: service.name,
        NUMBER: str(number),
        HASH: config_hash(project, service, image_id),
        _PREFIX + "oneoff": "False",
        _PREFIX + "project.working_dir": project.directory,
    }


def config_hash(project: Project, service: Service, image_id: str) -> str:
    """Return a digest of all that makes a container of ``service`` what it is, its image included."""
    body = {**_body(project, service), "ImageId": image_id}
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def body_of(project: Project, service: Service, number: int, image_id: str) -> dict[str, Any]:
    """Return the JSON body that creates the ``number``-th container of ``service``."""
    return {**_body(project, service), "Labels": labels_of(project, service, number, image_id)}


def _body(project: Project, service: Service) -> dict[str, Any]:
    body: dict[str, Any] = {
        "Image": service.image,
        "Env": [f"{name}={value}" for name, value in sorted(service.environment.items())],
        "ExposedPorts": {f"{port.target}/{port.protocol}": {} for port in service.ports},
        "StopTimeout": int(service.stop_grace_period_s),
        "HostConfig": _host_config(project, service),
        "NetworkingConfig": {"EndpointsConfig": _endpoints(project, service)},
    }
    optional = {
        "Cmd": None if service.command is None else list(service.command),
        "Entrypoint": None if service.entrypoint is None else list(service.entrypoint),
        "Hostname": service.hostname,
        "User": service.user,
        "WorkingDir": service.working_dir,
        "Healthcheck": None if service.healthcheck is None else _health(service.healthcheck),
    }
    return body | {key: value for key, value in optional.items() if value not in (None, "")}


def _host_config(project: Project, service: Service) -> dict[str, Any]:
    first = next(iter(service.networks), "")
    bindings: dict[str, list[dict[str, str]]] = {}
    for port in service.ports:
        binding = {"HostIp": port.host_ip, "HostPort": str(port.host or "")}
        bindings.setdefault(f"{port.target}/{port.protocol}", []).append(binding)
    return {
        "NetworkMode": project.networks[first].name if first else service.network_mode,
        "PortBindings": bindings,
        "Mounts": [_mount(project, mount) for mount in service.mounts],
        "RestartPolicy": {"Name": service.restart, "MaximumRetryCount": service.restart_retries},
        "ReadonlyRootfs": service.read_only,
        "Init": service.init,
        "Memory": service.memory_bytes,
        "NanoCpus": int(service.cpus * 1e9),
        "PidsLimit": service.pids or None,
        "CapAdd": list(service.cap_add),
        "CapDrop": list(service.cap_drop),
    }


def _mount(project: Project, mount: Mount) -> dict[str, Any]:
    source = project.volumes[mount.source].name if mount.type == "volume" and mount.source else mount.source
    body: dict[str, Any] = {"Type": mount.type, "Target": mount.target, "ReadOnly": mount.read_only}
    return body | ({"Source": source} if source else {})


def _endpoints(project: Project, service: Service) -> dict[str, Any]:
    """Return how the container appears on its networks: under its service's name, so that replicas share one."""
    endpoints = {}
    for key, use in service.networks.items():
        endpoint: dict[str, Any] = {"Aliases": sorted({service.name, *use.aliases})}
        if use.ipv4_address:
            endpoint["IPAMConfig"] = {"IPv4Address": use.ipv4_address}
        endpoints[project.networks[key].name] = endpoint
    return endpoints


def _health(health: Health) -> dict[str, Any]:
    return {
        "Test": list(health.test),
        "Interval": int(health.interval_s * _NS_PER_S),
        "Timeout": int(health.timeout_s * _NS_PER_S),
        "StartPeriod": int(health.start_period_s * _NS_PER_S),
        "Retries": health.retries,
    }

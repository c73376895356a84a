"""A Compose file, from the folder it lies in to a `labkit.compose.model.Project`.

The file is ``compose.yaml``, ``compose.yml``, ``docker-compose.yaml`` or ``docker-compose.yml``. The project's name is given, or
``COMPOSE_PROJECT_NAME``, or the file's ``name``, or that of the folder. Networks and volumes of the project are named after it.

See: Compose Specification, 03-compose-file.md, 04-version-and-name.md, 15-profiles.md.
"""

from __future__ import annotations

import graphlib
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from labkit.compose.fields import as_bool, as_list, as_mapping, as_text, only_known
from labkit.compose.interpolate import interpolate_tree, read_env_file
from labkit.compose.model import Network, NetworkUse, Project, Service, Volume
from labkit.compose.services import read_service
from labkit.errors import InvalidSpec

__all__ = ["FILE_NAMES", "find_file", "load_project", "start_order"]

FILE_NAMES = ("compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml")
_TOP = ("name", "version", "services", "networks", "volumes")
_TOP_LEFT_OUT = {
    "include": "put everything into one file",
    "configs": "use a bind mount",
    "secrets": "use a bind mount",
}
_MOST_BYTES = 1 << 20


def find_file(directory: Path) -> Path:
    """Return the Compose file in ``directory`` or the nearest folder above that has one. Raises: InvalidSpec."""
    for folder in (directory.absolute(), *directory.absolute().parents):
        for name in FILE_NAMES:
            if (folder / name).is_file():
                return folder / name
    raise InvalidSpec(f"There is no {FILE_NAMES[0]} in {directory} or above; name one with --file.")


def load_project(
    file: Path, *, name: str = "", profiles: Iterable[str] = (), environment: Mapping[str, str] | None = None
) -> Project:
    """Read ``file`` and return what it describes, with the services that ``profiles`` select.

    Raises: InvalidSpec with the place that is wrong.
    """
    directory = file.absolute().parent
    variables = read_env_file(directory / ".env", required=False) | dict(
        os.environ if environment is None else environment
    )
    top = as_mapping(interpolate_tree(_parse(file), variables), str(file))
    only_known(top, _TOP, file.name, left_out=_TOP_LEFT_OUT)
    project_name = _name(
        name or variables.get("COMPOSE_PROJECT_NAME", "") or as_text(top.get("name", ""), "name"), directory
    )
    services = {
        key: read_service(key, found, directory=directory, environment=variables)
        for key, found in as_mapping(top.get("services"), "services").items()
    }
    if not services:
        raise InvalidSpec(f"{file} describes no services.")
    wanted = set(profiles) | set(filter(None, variables.get("COMPOSE_PROFILES", "").split(",")))
    services = {
        key: service for key, service in services.items() if not service.profiles or wanted & set(service.profiles)
    }
    networks = {
        key: _network(key, found, project_name) for key, found in as_mapping(top.get("networks"), "networks").items()
    }
    volumes = {
        key: _volume(key, found, project_name) for key, found in as_mapping(top.get("volumes"), "volumes").items()
    }
    services = {key: _completed(service, project_name) for key, service in services.items()}
    if any("default" in service.networks for service in services.values()):
        networks.setdefault("default", Network(f"{project_name}_default"))
    _check_uses(services, networks, volumes)
    return Project(project_name, str(directory), services, networks, volumes)


def start_order(services: Mapping[str, Service]) -> list[str]:
    """Return the services so that each comes after what it depends on. Raises: InvalidSpec naming a circle."""
    graph = {
        name: [other for other in service.depends_on if other in services] for name, service in sorted(services.items())
    }
    try:
        return list(graphlib.TopologicalSorter(graph).static_order())
    except graphlib.CycleError as error:
        raise InvalidSpec(f"The services depend on each other in a circle: {' > '.join(error.args[1])}.") from None


def _parse(file: Path) -> Any:
    try:
        if file.stat().st_size > _MOST_BYTES:
            raise InvalidSpec(f"{file} is larger than {_MOST_BYTES} bytes: that is no Compose file.")
        return yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidSpec(f"{file} cannot be read: {error}.") from None
    except yaml.MarkedYAMLError as error:
        place = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise InvalidSpec(f"{file}{place} is no YAML: {error.problem}.") from None
    except yaml.YAMLError as error:
        raise InvalidSpec(f"{file} is no YAML: {error}.") from None


def _name(asked: str, directory: Path) -> str:
    if asked and not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", asked):
        raise InvalidSpec(
            f"{asked!r} is no project name: use small letters, digits, - and _, and begin with a letter or a digit."
        )
    return asked or re.sub(r"[^a-z0-9_-]", "", directory.name.lower()).lstrip("_-") or "project"


def _network(key: str, found: Any, project: str) -> Network:
    where = f"networks.{key}"
    keys = as_mapping(found, where)
    only_known(keys, ("name", "external", "internal", "driver", "ipam", "labels", "attachable"), where)
    external = as_bool(keys.get("external", False), f"{where}.external")
    if (driver := keys.get("driver", "bridge")) != "bridge":
        raise InvalidSpec(f"{where}.driver: there are bridges only, no {driver!r}.")
    pools = as_list(as_mapping(keys.get("ipam"), f"{where}.ipam").get("config"), f"{where}.ipam.config")
    pool = as_mapping(pools[0], f"{where}.ipam.config[0]") if pools else {}
    return Network(
        as_text(keys.get("name", key if external else f"{project}_{key}"), f"{where}.name"), external,
        as_bool(keys.get("internal", False), f"{where}.internal"), as_text(pool.get("subnet", ""), f"{where}.ipam"),
        as_text(pool.get("gateway", ""), f"{where}.ipam"),
    )  # fmt: skip


def _volume(key: str, found: Any, project: str) -> Volume:
    where = f"volumes.{key}"
    keys = as_mapping(found, where)
    only_known(keys, ("name", "external", "driver", "labels"), where)
    external = as_bool(keys.get("external", False), f"{where}.external")
    return Volume(as_text(keys.get("name", key if external else f"{project}_{key}"), f"{where}.name"), external)


def _completed(service: Service, project: str) -> Service:
    """Fill in what the specification says of things that are not said: the default network, the name of what is built."""
    networks = service.networks or ({} if service.network_mode else {"default": NetworkUse()})
    return replace(service, networks=networks, image=service.image or f"{project}-{service.name}")


def _check_uses(
    services: Mapping[str, Service], networks: Mapping[str, Network], volumes: Mapping[str, Volume]
) -> None:
    for name, service in services.items():
        where = f"services.{name}"
        for other in service.depends_on:
            if other == name or other not in services:
                raise InvalidSpec(
                    f"{where}.depends_on: there is no other service {other!r} (in the profiles that are chosen)."
                )
            if service.depends_on[other] == "service_healthy" and services[other].healthcheck is None:
                raise InvalidSpec(
                    f"{where}.depends_on.{other}: {other} has no healthcheck, so it would never become healthy."
                )
        for network in service.networks:
            if network not in networks:
                raise InvalidSpec(f"{where}.networks: {network!r} is not among the file's networks.")
        for mount in service.mounts:
            if mount.type == "volume" and mount.source and mount.source not in volumes:
                raise InvalidSpec(
                    f"{where}.volumes: {mount.source!r} is not among the file's volumes; a host path begins with . or /."
                )
    start_order(services)

"""A service of a Compose file, from its YAML to `labkit.compose.model.Service`.

See: Compose Specification, 05-services.md, build.md, deploy.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, cast

from labkit.compose.fields import (
    as_bool,
    as_bytes,
    as_cpus,
    as_int,
    as_list,
    as_mapping,
    as_pairs,
    as_seconds,
    as_text,
    as_texts,
    as_words,
    only_known,
)  # fmt: skip
from labkit.compose.interpolate import read_env_file
from labkit.compose.model import Build, Condition, Health, Mount, NetworkUse, Port, Restart, Service
from labkit.errors import InvalidSpec

__all__ = ["read_service"]

_LEFT_OUT = {
    "configs": "use a bind mount", "secrets": "use a bind mount", "devices": "a container here has the standard ones only",
    "extends": "use a YAML anchor (&name, *name)", "privileged": "the engine refuses it", "links": "use a network and its names",
}  # fmt: skip
_KNOWN = (
    "build", "cap_add", "cap_drop", "command", "container_name", "cpus", "depends_on", "deploy", "entrypoint", "env_file",
    "environment", "expose", "healthcheck", "hostname", "image", "init", "labels", "mem_limit", "network_mode", "networks",
    "pids_limit", "ports", "profiles", "pull_policy", "read_only", "restart", "scale", "stop_grace_period", "tmpfs", "user",
    "volumes", "working_dir",
)  # fmt: skip
_CONDITIONS = ("service_started", "service_healthy", "service_completed_successfully")
_RESTARTS = ("no", "always", "on-failure", "unless-stopped")
_PORT = re.compile(
    r"(?:(?P<ip>\[[0-9a-fA-F:]+\]|\d+(?:\.\d+){3}):)?(?:(?P<host>\d*(?:-\d+)?):)?(?P<target>\d+(?:-\d+)?)(?:/(?P<protocol>tcp|udp))?"
)


def read_service(name: str, found: Any, *, directory: Path, environment: Mapping[str, str]) -> Service:
    """Return the service that ``found`` describes. Raises: InvalidSpec with the place that is wrong."""
    where = f"services.{name}"
    keys = as_mapping(found, where)
    only_known(keys, _KNOWN, where, left_out=_LEFT_OUT)
    service = Service(
        name=name,
        image=as_text(keys.get("image", ""), f"{where}.image"),
        build=_build(keys["build"], f"{where}.build", directory) if "build" in keys else None,
        command=as_words(keys.get("command"), f"{where}.command"),
        entrypoint=as_words(keys.get("entrypoint"), f"{where}.entrypoint"),
        environment=_environment(keys, where, directory, environment),
        labels=as_pairs(keys.get("labels"), f"{where}.labels"),
        networks=_networks(keys.get("networks"), f"{where}.networks"),
        depends_on=_depends_on(keys.get("depends_on"), f"{where}.depends_on"),
        healthcheck=_health(keys.get("healthcheck"), f"{where}.healthcheck"),
        ports=tuple(_all_ports(keys.get("ports"), f"{where}.ports")),
        mounts=_mounts(keys, where, directory),
        **_texts(keys, where),
        **_lists(keys, where),
        **_numbers(keys, where),
    )
    _check(service, where)
    return service


def _texts(keys: Mapping[str, Any], where: str) -> dict[str, Any]:
    names = ("network_mode", "container_name", "hostname", "user", "working_dir")
    return {name: as_text(keys.get(name, ""), f"{where}.{name}") for name in names}


def _lists(keys: Mapping[str, Any], where: str) -> dict[str, Any]:
    return {name: as_texts(keys.get(name), f"{where}.{name}") for name in ("profiles", "cap_add", "cap_drop")}


def _numbers(keys: Mapping[str, Any], where: str) -> dict[str, Any]:
    deploy = as_mapping(keys.get("deploy"), f"{where}.deploy")
    only_known(
        deploy, ("replicas", "resources", "mode", "labels", "restart_policy", "update_config"), f"{where}.deploy"
    )
    resources = as_mapping(deploy.get("resources"), f"{where}.deploy.resources")
    limits = as_mapping(resources.get("limits"), f"{where}.deploy.resources.limits")
    restart, retries = _restart(keys.get("restart", "no"), f"{where}.restart")
    return {
        "restart": restart,
        "restart_retries": retries,
        "replicas": as_int(deploy.get("replicas", keys.get("scale", 1)), f"{where}.deploy.replicas", most=100),
        "read_only": as_bool(keys.get("read_only", False), f"{where}.read_only"),
        "init": as_bool(keys.get("init", False), f"{where}.init"),
        "stop_grace_period_s": as_seconds(keys.get("stop_grace_period", 10), f"{where}.stop_grace_period"),
        "memory_bytes": as_bytes(limits.get("memory", keys.get("mem_limit", 0)), f"{where}.mem_limit"),
        "cpus": as_cpus(limits.get("cpus", keys.get("cpus", 0)), f"{where}.cpus"),
        "pids": as_int(limits.get("pids", keys.get("pids_limit", 0)), f"{where}.pids_limit"),
    }


def _all_ports(found: Any, where: str) -> Iterator[Port]:
    for number, item in enumerate(as_list(found, where)):
        yield from _ports(item, f"{where}[{number}]")


def _check(service: Service, where: str) -> None:
    if not service.image and service.build is None:
        raise InvalidSpec(f"{where}: a service needs an image or a build.")
    if service.network_mode and service.networks:
        raise InvalidSpec(f"{where}: network_mode and networks exclude each other; keep one.")
    if service.container_name and service.replicas > 1:
        raise InvalidSpec(
            f"{where}: {service.replicas} replicas cannot all be named {service.container_name!r}; leave container_name out."
        )
    if service.replicas > 1 and any(port.host for port in service.ports):
        raise InvalidSpec(
            f"{where}: {service.replicas} replicas cannot all have the same host port; leave it out, and each gets one."
        )


def _build(found: Any, where: str, directory: Path) -> Build:
    if isinstance(found, str):
        return Build(str((directory / found).resolve()))
    keys = as_mapping(found, where)
    only_known(keys, ("context", "dockerfile", "args", "target"), where)
    context = (directory / as_text(keys.get("context", "."), f"{where}.context")).resolve()
    return Build(
        str(context), as_text(keys.get("dockerfile", "Dockerfile"), f"{where}.dockerfile"),
        as_pairs(keys.get("args"), f"{where}.args"), as_text(keys.get("target", ""), f"{where}.target"),
    )  # fmt: skip


def _environment(
    keys: Mapping[str, Any], where: str, directory: Path, environment: Mapping[str, str]
) -> dict[str, str]:
    named = keys.get("env_file")
    found: dict[str, str] = {}
    for number, item in enumerate(named if isinstance(named, list) else [] if named is None else [named]):
        place = f"{where}.env_file[{number}]"
        options = as_mapping(item, place) if isinstance(item, dict) else {"path": item}
        required = as_bool(options.get("required", True), f"{place}.required")
        found |= read_env_file(directory / as_text(options.get("path"), f"{place}.path"), required=required)
    return found | as_pairs(keys.get("environment"), f"{where}.environment", otherwise=environment)


def _ports(found: Any, where: str) -> list[Port]:
    if isinstance(found, dict):
        only_known(found, ("target", "published", "host_ip", "protocol", "mode", "name", "app_protocol"), where)
        named = as_text(found.get("protocol", "tcp"), f"{where}.protocol")
        if named not in ("tcp", "udp"):
            raise InvalidSpec(f"{where}.protocol: {named!r} is neither tcp nor udp.")
        target = as_int(found.get("target"), f"{where}.target", least=1, most=65535)
        host = as_int(found.get("published", 0), f"{where}.published", most=65535)
        return [
            Port(
                target,
                host,
                as_text(found.get("host_ip", ""), f"{where}.host_ip"),
                "udp" if named == "udp" else "tcp",
            )
        ]
    match = _PORT.fullmatch(as_text(found, where))
    if match is None:
        raise InvalidSpec(
            f'{where}: {found!r} is no port; write [[IP:]HOST:]CONTAINER[/udp], as in "127.0.0.1:8080:80".'
        )
    targets, hosts = _range(match["target"]), _range(match["host"] or "0")
    if len(hosts) not in (1, len(targets)) or (len(targets) > 1 and len(hosts) == 1 and hosts != [0]):
        raise InvalidSpec(f"{where}: {found!r} has {len(hosts)} host ports for {len(targets)} of the container.")
    if any(not 1 <= port <= 65535 for port in targets) or any(port > 65535 for port in hosts):
        raise InvalidSpec(f"{where}: {found!r} has a port outside 1 to 65535.")
    hosts = hosts * len(targets) if len(hosts) == 1 else hosts
    protocol: Literal["tcp", "udp"] = "udp" if match["protocol"] == "udp" else "tcp"
    return [
        Port(target, host, (match["ip"] or "").strip("[]"), protocol)
        for target, host in zip(targets, hosts, strict=True)
    ]


def _range(text: str) -> list[int]:
    first, _, last = text.partition("-")
    return list(range(int(first), int(last or first) + 1))


def _mounts(keys: Mapping[str, Any], where: str, directory: Path) -> tuple[Mount, ...]:
    mounts = [
        _mount(item, f"{where}.volumes[{number}]", directory)
        for number, item in enumerate(as_list(keys.get("volumes"), f"{where}.volumes"))
    ]
    tmpfs = keys.get("tmpfs")
    for item in tmpfs if isinstance(tmpfs, list) else [] if tmpfs is None else [tmpfs]:
        mounts.append(Mount("tmpfs", as_text(item, f"{where}.tmpfs")))
    targets = [mount.target for mount in mounts]
    for target in targets:
        if targets.count(target) > 1:
            raise InvalidSpec(f"{where}.volumes: {target} is mounted on twice.")
        if not target.startswith("/"):
            raise InvalidSpec(f"{where}.volumes: {target!r} is no absolute path in the container.")
    return tuple(mounts)


def _mount(found: Any, where: str, directory: Path) -> Mount:
    if isinstance(found, dict):
        only_known(found, ("type", "source", "target", "read_only", "bind", "volume", "tmpfs"), where)
        kind = as_text(found.get("type", "volume"), f"{where}.type")
        if kind not in ("volume", "bind", "tmpfs"):
            raise InvalidSpec(f"{where}.type: {kind!r} is none of volume, bind and tmpfs.")
        source, target = (
            as_text(found.get("source", ""), f"{where}.source"),
            as_text(found.get("target"), f"{where}.target"),
        )
        read_only = as_bool(found.get("read_only", False), f"{where}.read_only")
    else:
        parts = as_text(found, where).split(":")
        if len(parts) > 3 or (len(parts) == 3 and not set(parts[2].split(",")) <= {"ro", "rw", "z", "Z"}):
            raise InvalidSpec(f"{where}: {found!r} is no mount; write SOURCE:TARGET[:ro], or TARGET alone.")
        source, target = ("", parts[0]) if len(parts) == 1 else (parts[0], parts[1])
        kind, read_only = (
            ("bind" if source.startswith((".", "/", "~")) else "volume"),
            len(parts) == 3 and "ro" in parts[2].split(","),
        )
    if kind == "bind":
        source = str((directory / Path(source).expanduser()).absolute())
    return Mount(cast(Any, kind), target, source, read_only)


def _networks(found: Any, where: str) -> dict[str, NetworkUse]:
    if isinstance(found, list):
        return {as_text(name, where): NetworkUse() for name in found}
    uses = {}
    for name, inner in as_mapping(found, where).items():
        keys = as_mapping(inner, f"{where}.{name}")
        only_known(keys, ("aliases", "ipv4_address"), f"{where}.{name}")
        aliases = tuple(
            as_text(alias, f"{where}.{name}.aliases")
            for alias in as_list(keys.get("aliases"), f"{where}.{name}.aliases")
        )
        uses[name] = NetworkUse(aliases, as_text(keys.get("ipv4_address", ""), f"{where}.{name}.ipv4_address"))
    return uses


def _depends_on(found: Any, where: str) -> dict[str, Condition]:
    if isinstance(found, list):
        return {as_text(name, where): "service_started" for name in found}
    conditions: dict[str, Condition] = {}
    for name, inner in as_mapping(found, where).items():
        condition = as_text(
            as_mapping(inner, f"{where}.{name}").get("condition", "service_started"), f"{where}.{name}.condition"
        )
        if condition not in _CONDITIONS:
            raise InvalidSpec(f"{where}.{name}.condition: {condition!r} is none of {', '.join(_CONDITIONS)}.")
        conditions[name] = cast(Condition, condition)
    return conditions


def _health(found: Any, where: str) -> Health | None:
    if found is None:
        return None
    keys = as_mapping(found, where)
    only_known(keys, ("test", "interval", "timeout", "start_period", "start_interval", "retries", "disable"), where)
    if as_bool(keys.get("disable", False), f"{where}.disable"):
        return Health(("NONE",))
    test = keys.get("test")
    if isinstance(test, list):
        words = tuple(as_text(word, f"{where}.test") for word in test)
        if not words or words[0] not in ("NONE", "CMD", "CMD-SHELL"):
            raise InvalidSpec(f"{where}.test: a list begins with CMD, CMD-SHELL or NONE.")
    else:
        words = ("CMD-SHELL", as_text(test, f"{where}.test"))
    times = {name: as_seconds(keys.get(name, 0), f"{where}.{name}") for name in ("interval", "timeout", "start_period")}
    return Health(
        words,
        times["interval"],
        times["timeout"],
        times["start_period"],
        as_int(keys.get("retries", 0), f"{where}.retries"),
    )


def _restart(found: Any, where: str) -> tuple[Restart, int]:
    # To YAML an unquoted no is false.
    text = "no" if found is False else as_text(found, where)
    policy, _, retries = text.partition(":")
    if policy not in _RESTARTS or (retries and (policy != "on-failure" or not retries.isdigit())):
        raise InvalidSpec(f"{where}: {text!r} is none of {', '.join(_RESTARTS)} (with :N, as in on-failure:3).")
    return cast(Restart, policy), int(retries or 0)

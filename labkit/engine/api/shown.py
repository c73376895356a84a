"""How containers and images look in answers: the long form of ``inspect`` and the short one of ``ps`` and ``images``.

See: Docker Engine API, "Inspect a container", "List containers", "List images".
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from labkit.engine.engine import Engine
from labkit.engine.objects.changes import size_bytes
from labkit.engine.objects.images import reference_of
from labkit.engine.objects.launch import hostname_of
from labkit.engine.objects.record import NEVER, Container
from labkit.engine.spec.config import command_of
from labkit.engine.spec.mounts import MountPoint
from labkit.image.store import Image
from labkit.isolation.mounts import MASKED_PATHS, READONLY_PATHS

__all__ = [
    "container_details",
    "container_state",
    "container_summary",
    "duration_words",
    "image_summary",
    "image_unix_time",
    "names_of",
]


def container_details(engine: Engine, container: Container, *, size: bool) -> dict[str, Any]:
    """Return what ``docker inspect`` shows of a container."""
    words = command_of(container.config)
    host = {name: value for name, value in container.host.items() if name not in ("Mounts",)}
    host.setdefault("MaskedPaths", list(MASKED_PATHS))
    host.setdefault("ReadonlyPaths", list(READONLY_PATHS))
    if container.host.get("Mounts"):
        host["Mounts"] = container.host["Mounts"]
    details: dict[str, Any] = {
        "Id": container.id, "Created": container.created, "Path": words[0], "Args": words[1:], "State": container_state(container),
        "Image": container.image_id, "ResolvConfPath": f"{container.folder}/resolv.conf", "HostnamePath": f"{container.folder}/hostname",
        "HostsPath": f"{container.folder}/hosts", "LogPath": container.log_path if host["LogConfig"]["Type"] != "none" else "",
        "Name": f"/{container.name}", "RestartCount": container.restart_count, "Driver": "overlay", "Platform": "linux",
        "MountLabel": "", "ProcessLabel": "", "AppArmorProfile": "", "ExecIDs": _exec_ids(engine, container), "HostConfig": host,
        "GraphDriver": {"Name": "overlay", "Data": {"UpperDir": f"{container.folder}/rw/upper", "WorkDir": f"{container.folder}/rw/work"}},
        "Mounts": [_mount_shown(engine, point) for point in container.mounts],
        "Config": {**container.config, "Hostname": hostname_of(container)},
        "NetworkSettings": _network_settings(engine, container),
    }  # fmt: skip
    if size:
        details["SizeRw"] = size_bytes(f"{container.folder}/rw/upper")
        details["SizeRootFs"] = details["SizeRw"] + _image_size(engine, container)
    return details


def _exec_ids(engine: Engine, container: Container) -> list[str] | None:
    from labkit.engine.wire.errors import NotFound

    running = []
    for key in list(container.exec_ids):
        try:
            if engine.execs.find(key).is_running:
                running.append(key)
        except NotFound:
            continue
    return running or None


def container_state(container: Container) -> dict[str, Any]:
    """Return the ``State`` object."""
    state = container.state
    shown: dict[str, Any] = {
        "Status": state.status, "Running": state.is_running, "Paused": state.status == "paused",
        "Restarting": state.status == "restarting", "OOMKilled": state.oom_killed, "Dead": state.status == "dead", "Pid": state.pid,
        "ExitCode": state.exit_code, "Error": state.error, "StartedAt": state.started_at, "FinishedAt": state.finished_at,
    }  # fmt: skip
    if container.health is not None:
        shown["Health"] = container.health
    return shown


def _mount_shown(engine: Engine, point: MountPoint) -> dict[str, Any]:
    shown: dict[str, Any] = {"Type": point.kind}
    if point.kind == "volume":
        shown |= {"Name": point.name, "Source": engine.volumes.data_path(point.name)}
    else:
        shown["Source"] = point.source
    shown["Destination"] = point.target
    if point.kind == "volume":
        shown["Driver"] = "local"
    mode = "ro" if point.read_only else ("z" if point.kind == "volume" else "")
    return shown | {
        "Mode": mode,
        "RW": not point.read_only,
        "Propagation": point.propagation if point.kind == "bind" else "",
    }


def _network_settings(engine: Engine, container: Container) -> dict[str, Any]:
    main = next((e for e in container.endpoints.values() if e["IPAddress"]), {})
    default = container.endpoints.get("bridge", {})
    del main
    return {
        "Bridge": "", "SandboxID": container.id if container.state.is_running else "", "HairpinMode": False,
        "LinkLocalIPv6Address": "", "LinkLocalIPv6PrefixLen": 0,
        "Ports": engine.networks.ports_of(container) if container.state.is_running else {},
        "SandboxKey": f"/proc/{container.state.pid}/ns/net" if container.state.pid else "", "SecondaryIPAddresses": None,
        "SecondaryIPv6Addresses": None, "EndpointID": default.get("EndpointID", ""), "Gateway": default.get("Gateway", ""),
        "GlobalIPv6Address": "", "GlobalIPv6PrefixLen": 0, "IPAddress": default.get("IPAddress", ""),
        "IPPrefixLen": default.get("IPPrefixLen", 0), "IPv6Gateway": "", "MacAddress": default.get("MacAddress", ""),
        "Networks": container.endpoints,
    }  # fmt: skip


def container_summary(engine: Engine, container: Container, *, size: bool = False) -> dict[str, Any]:
    """Return what ``docker ps`` shows of a container."""
    networks = {name: {**endpoint} for name, endpoint in container.endpoints.items()}
    shown: dict[str, Any] = {
        "Id": container.id, "Names": [f"/{container.name}"], "Image": container.image, "ImageID": container.image_id,
        "Command": " ".join(_quoted(word) for word in command_of(container.config)), "Created": container.created_ns // 1_000_000_000,
        "Ports": _ports_shown(engine, container), "Labels": container.config["Labels"], "State": container.state.status,
        "Status": status_words(container), "HostConfig": {"NetworkMode": container.host["NetworkMode"]},
        "NetworkSettings": {"Networks": networks}, "Mounts": [_mount_shown(engine, point) for point in container.mounts],
    }  # fmt: skip
    if size:
        shown["SizeRw"] = size_bytes(f"{container.folder}/rw/upper")
        shown["SizeRootFs"] = shown["SizeRw"] + _image_size(engine, container)
    return shown


def _quoted(word: str) -> str:
    return word if word and not set(word) & set(" \t\n'\"\\$;&|<>()*?") else "'" + word.replace("'", "'\\''") + "'"


def _image_size(engine: Engine, container: Container) -> int:
    from labkit.engine.wire.errors import ApiError

    try:
        return engine.images.find(container.image_id).size
    except ApiError:
        return 0


def _ports_shown(engine: Engine, container: Container) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    if not container.state.is_running:
        return found
    for key, places in engine.networks.ports_of(container).items():
        port, _, protocol = key.partition("/")
        if not places:
            found.append({"PrivatePort": int(port), "Type": protocol})
        for place in places or ():
            found.append(
                {
                    "IP": place["HostIp"],
                    "PrivatePort": int(port),
                    "PublicPort": int(place["HostPort"]),
                    "Type": protocol,
                }
            )
    return found


def status_words(container: Container) -> str:
    """Return the STATUS column of ``docker ps``: ``Up 2 minutes``, ``Exited (0) 3 seconds ago``."""
    state = container.state
    if state.status == "created":
        return "Created"
    if state.status == "removing":
        return "Removal In Progress"
    if state.is_running:
        words = f"Up {duration_words(_seconds_since(state.started_at))}"
        if state.status == "paused":
            return f"{words} (Paused)"
        if container.health is not None:
            health = container.health["Status"]
            return f"{words} ({'health: starting' if health == 'starting' else health})"
        return words
    ago = duration_words(_seconds_since(state.finished_at))
    word = "Restarting" if state.status == "restarting" else "Exited"
    return f"{word} ({state.exit_code}) {ago} ago"


def _seconds_since(text: str) -> float:
    if text == NEVER:
        return 0.0
    moment = datetime.strptime(text[:19], "%Y-%m-%dT%H:%M:%S").replace(tzinfo=UTC)
    return max(0.0, time.time() - moment.timestamp())


_STEPS = (
    (60, 1, "second"),
    (3600, 60, "minute"),
    (172_800, 3600, "hour"),
    (1_209_600, 86_400, "day"),
    (5_184_000, 604_800, "week"),
)


def duration_words(seconds: float) -> str:
    """Return a duration as Docker says it: ``Less than a second``, ``About a minute``, ``3 hours``."""
    if seconds < 1:
        return "Less than a second"
    if 60 <= seconds < 120:
        return "About a minute"
    if 3600 <= seconds < 5400:
        return "About an hour"
    for below, unit, name in _STEPS:
        if seconds < below:
            number = int(seconds // unit)
            return f"{number} {name}{'' if number == 1 else 's'}"
    months = int(seconds // 2_592_000)
    return f"{months} months" if months < 24 else f"{int(seconds // 31_536_000)} years"


def image_unix_time(image: Image) -> int:
    """Return when an image was made, as seconds since 1970; 0 if it does not say."""
    try:
        moment = datetime.fromisoformat(image.config.created.replace("Z", "+00:00"))
    except ValueError:
        return 0
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())


def image_summary(engine: Engine, image: Image, *, containers: Mapping[str, int] | None = None) -> dict[str, Any]:
    """Return what ``docker images`` shows of an image."""
    tags, digests = names_of(image)
    del engine
    return {
        "Id": image.id, "ParentId": "", "RepoTags": tags, "RepoDigests": digests, "Created": image_unix_time(image),
        "Size": image.size, "VirtualSize": image.size, "SharedSize": -1, "Labels": dict(image.config.config.labels) or None,
        "Containers": -1 if containers is None else containers.get(image.id, 0),
    }  # fmt: skip


def names_of(image: Image) -> tuple[list[str], list[str]]:
    """Return an image's tags and digests, as people write them."""
    references = [reference_of(name) for name in image.references]
    tags = [reference.familiar for reference in references if reference.tag]
    digests = dict.fromkeys(f"{reference.familiar_name}@{image.root.digest}" for reference in references)
    return tags, list(digests)

"""Containers: create, list, inspect, rename, update, remove, prune, and what goes on inside (top, changes).

See: Docker Engine API, "Containers".
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from labkit.engine.api.inside import changes_of, top_of
from labkit.engine.api.shown import container_details, container_summary
from labkit.engine.engine import Engine
from labkit.engine.objects.changes import size_bytes
from labkit.engine.objects.record import Container
from labkit.engine.objects.volumes import keep_passes
from labkit.engine.spec.hostconfig import limits_of, parse_update
from labkit.engine.wire.errors import BadParameter, Conflict, NotFound
from labkit.engine.wire.reply import Empty, Json, Reply
from labkit.engine.wire.request import Request
from labkit.engine.wire.routes import Routes
from labkit.errors import LabkitError

__all__ = ["routes"]

routes = Routes()

_STATES = {"created", "running", "paused", "restarting", "removing", "exited", "dead"}
_FILTERS = {
    "ancestor", "before", "exited", "expose", "health", "id", "is-task", "isolation", "label", "name", "network", "publish", "since",
    "status", "volume",
}  # fmt: skip


@routes.post("/containers/create")
def create(engine: Engine, request: Request) -> Reply:
    """Make a container."""
    container = engine.creator.create(request.query.text("name"), request.json())
    warnings: list[str] = []
    if container.config["Tty"] and container.host["LogConfig"]["Type"] == "none":
        warnings = []
    return Json({"Id": container.id, "Warnings": warnings}, 201)


@routes.get("/containers/json")
def listing(engine: Engine, request: Request) -> Reply:
    """Return the containers that run, or all, or those that filters choose."""
    filters, query = request.query.filters(), request.query
    _check_filters(filters)
    limit = query.number("limit", 0)
    everything = query.flag("all") or limit > 0 or "status" in filters or "exited" in filters
    found = [c for c in engine.containers.all() if everything or c.state.is_running or c.state.status == "restarting"]
    found = [container for container in found if _passes(engine, container, filters)]
    if limit > 0:
        found = found[:limit]
    return Json([container_summary(engine, container, size=query.flag("size")) for container in found])


def _check_filters(filters: Mapping[str, Sequence[str]]) -> None:
    for name, values in filters.items():
        if name not in _FILTERS:
            raise BadParameter(f"invalid filter '{name}'")
        for value in values:
            if name == "status" and value not in _STATES:
                raise BadParameter(f"invalid filter 'status={value}'")
            if name == "exited" and not re.fullmatch(r"-?\d+", value):
                raise BadParameter(f"invalid filter 'exited={value}'")
            if name in ("name", "id") and _regex(value) is None:
                raise BadParameter(f"invalid filter '{name}={value}'")


def _regex(text: str) -> re.Pattern[str] | None:
    try:
        return re.compile(text) if len(text) < 200 else None
    except (re.error, RecursionError, OverflowError):
        return None


def _passes(engine: Engine, container: Container, filters: Mapping[str, Sequence[str]]) -> bool:
    labels = filters.get("label", ())
    if not keep_passes({"Labels": container.config["Labels"]}, {"label": labels}):
        return False
    return all(
        any(_matches(engine, container, name, value) for value in values)
        for name, values in filters.items()
        if name != "label" and values
    )


def _matches(engine: Engine, container: Container, name: str, value: str) -> bool:
    if name == "name":
        return bool(re.search(value, container.name) or re.search(value, f"/{container.name}"))
    if name == "id":
        return bool(re.search(value, container.id))
    if name == "status":
        return container.state.status == value
    if name == "exited":
        return (
            not container.state.is_running
            and container.state.started_ns > 0
            and container.state.exit_code == int(value)
        )
    if name == "ancestor":
        return _is_ancestor(engine, container, value)
    if name in ("before", "since"):
        other = engine.containers.find(value)
        return container.created_ns < other.created_ns if name == "before" else container.created_ns > other.created_ns
    if name == "network":
        return any(value in (key, endpoint["NetworkID"]) for key, endpoint in container.endpoints.items())
    if name == "volume":
        return any(value in (point.name, point.target, point.source) for point in container.mounts)
    if name == "health":
        return bool((container.health or {}).get("Status", "none") == value)
    if name in ("publish", "expose"):
        ports = container.published if name == "publish" else container.config.get("ExposedPorts") or {}
        return (value if "/" in value else f"{value}/tcp") in ports
    return True


def _is_ancestor(engine: Engine, container: Container, value: str) -> bool:
    if value in (container.image, container.image_id, container.image_id.removeprefix("sha256:")):
        return True
    try:
        return engine.images.find(value).id == container.image_id
    except LabkitError:
        return False


@routes.post("/containers/prune")
def prune(engine: Engine, request: Request) -> Reply:
    """Remove every container that does not run."""
    filters = request.query.filters()
    for name in filters:
        if name not in ("until", "label", "label!"):
            raise BadParameter(f"invalid filter '{name}'")
    gone, freed = [], 0
    for container in engine.containers.all():
        if container.state.is_running or container.state.status == "restarting":
            continue
        if not keep_passes({"Labels": container.config["Labels"]}, filters):
            continue
        size = size_bytes(f"{container.folder}/rw/upper")
        try:
            engine.creator.remove(container)
        except Conflict:
            continue  # started meanwhile
        gone.append(container.id)
        freed += size
    return Json({"ContainersDeleted": gone or None, "SpaceReclaimed": freed})


@routes.get("/containers/{id}/json")
def inspect(engine: Engine, request: Request) -> Reply:
    """Return everything about a container."""
    container = engine.containers.find(request.names["id"])
    return Json(container_details(engine, container, size=request.query.flag("size")))


@routes.delete("/containers/{id}/{alias}")
def unlink(engine: Engine, request: Request) -> Reply:
    """Take a link to another container away; the containers stay."""
    container = engine.containers.find(request.names["id"])
    if not request.query.flag("link"):
        raise NotFound(f"No such container: {request.names['id']}/{request.names['alias']}")
    with container.lock:
        container.host["Links"] = [
            text for text in container.host["Links"] or [] if text.rpartition(":")[2] != request.names["alias"]
        ] or None
        container.save()
    return Empty()


@routes.delete("/containers/{id}")
def remove(engine: Engine, request: Request) -> Reply:
    """Remove a container."""
    container = engine.containers.find(request.names["id"])
    engine.creator.remove(container, force=request.query.flag("force"), volumes=request.query.flag("v"))
    return Empty()


@routes.post("/containers/{id}/rename")
def rename(engine: Engine, request: Request) -> Reply:
    """Give a container another name."""
    engine.creator.rename(engine.containers.find(request.names["id"]), request.query.text("name"))
    return Empty()


@routes.post("/containers/{id}/update")
def update(engine: Engine, request: Request) -> Reply:
    """Change a container's limits and restart policy, now and for later starts."""
    container = engine.containers.find(request.names["id"])
    with container.lock:
        changed: dict[str, Any] = parse_update(request.json(), container.host)
        if container.state.is_running:
            engine.keeper.set_limits(container.id, limits_of(changed))
        container.host = changed
        container.save()
    engine.events.say("container", "update", container.id, container.attributes)
    return Json({"Warnings": None})


@routes.get("/containers/{id}/top")
def top(engine: Engine, request: Request) -> Reply:
    """Return the processes of a container."""
    container = engine.containers.find(request.names["id"])
    if not container.state.is_running:
        raise Conflict(f"container {container.id} is not running")
    return Json(top_of(container, request.query.text("ps_args") or "-ef"))


@routes.get("/containers/{id}/changes")
def diff(engine: Engine, request: Request) -> Reply:
    """Return what a container has changed in its file tree."""
    container = engine.containers.find(request.names["id"])
    found = changes_of(engine, container)
    return Json([{"Path": change.path, "Kind": change.kind} for change in found] or None)

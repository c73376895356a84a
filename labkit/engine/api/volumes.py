"""Volumes over the wire: create, list, inspect, remove, prune.

See: Docker Engine API, "Volumes".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from labkit.engine.engine import Engine
from labkit.engine.objects.volumes import keep_passes
from labkit.engine.spec.fields import OBJECT, TEXT, TEXT_MAP, checked
from labkit.engine.wire.errors import BadParameter
from labkit.engine.wire.reply import Empty, Json, Reply
from labkit.engine.wire.request import Request
from labkit.engine.wire.routes import Routes

__all__ = ["routes"]

routes = Routes()

_TABLE = {"Name": TEXT, "Driver": TEXT, "DriverOpts": TEXT_MAP, "Labels": TEXT_MAP, "ClusterVolumeSpec": OBJECT}
_FILTERS = {"dangling", "driver", "label", "name"}


@routes.get("/volumes")
def listing(engine: Engine, request: Request) -> Reply:
    """Return every volume that passes the filters."""
    filters = request.query.filters()
    for name in filters:
        if name not in _FILTERS:
            raise BadParameter(f"invalid filter '{name}'")
    found = [volume for volume in engine.volumes.all() if _passes(engine, volume, filters)]
    return Json({"Volumes": found, "Warnings": None})


def _passes(engine: Engine, volume: Mapping[str, Any], filters: Mapping[str, Sequence[str]]) -> bool:
    checks: dict[str, Callable[[str], bool]] = {
        "dangling": lambda value: (not engine.volumes.users(volume["Name"])) == (value.lower() in ("true", "1")),
        "driver": lambda value: value == "local",
        "name": lambda value: value in volume["Name"],
    }
    if not keep_passes(volume, {"label": filters.get("label", ())}):
        return False
    return all(
        any(checks[name](value) for value in values) for name, values in filters.items() if name != "label" and values
    )


@routes.post("/volumes/create")
def create(engine: Engine, request: Request) -> Reply:
    """Make a volume, or return the one of that name."""
    given = checked(request.json(), _TABLE, "VolumeCreate")
    volume = engine.volumes.create(
        given.get("Name", ""),
        labels=given.get("Labels"),
        driver=given.get("Driver", ""),
        options=given.get("DriverOpts"),
    )
    return Json(volume, 201)


@routes.post("/volumes/prune")
def prune(engine: Engine, request: Request) -> Reply:
    """Remove volumes that no container uses: anonymous ones; with the filter ``all``, and for clients before 1.42, all."""
    filters = request.query.filters()
    for name in filters:
        if name not in ("all", "label", "label!"):
            raise BadParameter(f"invalid filter '{name}'")
    every = request.version < (1, 42) or any(value.lower() in ("true", "1") for value in filters.get("all", ()))
    gone, freed = engine.volumes.prune(every=every, keep=filters)
    return Json({"VolumesDeleted": gone or None, "SpaceReclaimed": freed})


@routes.get("/volumes/{name}")
def inspect(engine: Engine, request: Request) -> Reply:
    """Return one volume."""
    return Json(engine.volumes.find(request.names["name"]))


@routes.delete("/volumes/{name}")
def remove(engine: Engine, request: Request) -> Reply:
    """Remove a volume."""
    engine.volumes.remove(request.names["name"], force=request.query.flag("force"))
    return Empty()

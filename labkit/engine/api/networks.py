"""Networks over the wire: create, list, inspect, connect, disconnect, remove, prune.

See: Docker Engine API, "Networks".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from labkit.engine.engine import Engine
from labkit.engine.network.record import Network
from labkit.engine.objects.volumes import keep_passes
from labkit.engine.wire.errors import BadParameter
from labkit.engine.wire.reply import Empty, Json, Reply
from labkit.engine.wire.request import Request
from labkit.engine.wire.routes import Routes

__all__ = ["routes"]

routes = Routes()

_FILTERS = {"dangling", "driver", "id", "label", "name", "scope", "type"}


@routes.get("/networks")
def listing(engine: Engine, request: Request) -> Reply:
    """Return every network that passes the filters."""
    filters = request.query.filters()
    for name in filters:
        if name not in _FILTERS:
            raise BadParameter(f"invalid filter '{name}'")
    found = [network for network in engine.networks.all() if _passes(engine, network, filters)]
    return Json([network.shown(engine.networks.members(network)) for network in found])


def _passes(engine: Engine, network: Network, filters: Mapping[str, Sequence[str]]) -> bool:
    checks: dict[str, Callable[[str], bool]] = {
        "driver": lambda value: network.driver == value,
        "id": lambda value: network.id.startswith(value),
        "name": lambda value: value in network.name,
        "scope": lambda value: value == "local",
        "type": lambda value: network.is_predefined == (value == "builtin"),
        "dangling": lambda value: _is_dangling(engine, network) == (value.lower() in ("true", "1")),
    }
    if not keep_passes({"Labels": network.labels}, {"label": filters.get("label", ())}):
        return False
    return all(
        any(checks[name](value) for value in values) for name, values in filters.items() if name != "label" and values
    )


def _is_dangling(engine: Engine, network: Network) -> bool:
    return not network.is_predefined and not engine.networks.users(network)


@routes.post("/networks/create")
def create(engine: Engine, request: Request) -> Reply:
    """Make a network."""
    network = engine.networks.create(request.json())
    return Json({"Id": network.id, "Warning": ""}, 201)


@routes.post("/networks/prune")
def prune(engine: Engine, request: Request) -> Reply:
    """Remove every network that no container belongs to."""
    filters = request.query.filters()
    gone = []
    for network in engine.networks.all():
        if _is_dangling(engine, network) and keep_passes({"Labels": network.labels}, filters):
            engine.networks.remove(network)
            gone.append(network.name)
    return Json({"NetworksDeleted": gone or None})


@routes.get("/networks/{id}")
def inspect(engine: Engine, request: Request) -> Reply:
    """Return one network with the containers in it."""
    network = engine.networks.find(request.names["id"])
    return Json(network.shown(engine.networks.members(network)))


@routes.delete("/networks/{id}")
def remove(engine: Engine, request: Request) -> Reply:
    """Remove a network."""
    engine.networks.remove(engine.networks.find(request.names["id"]))
    return Empty()


@routes.post("/networks/{id}/connect")
def connect(engine: Engine, request: Request) -> Reply:
    """Put a container into a network."""
    body = request.json()
    network = engine.networks.find(request.names["id"])
    container = engine.containers.find(str(body.get("Container") or ""))
    config = body.get("EndpointConfig")
    if config is not None and not isinstance(config, dict):
        raise BadParameter("invalid JSON: EndpointConfig must be an object")
    engine.networks.connect(network, container, config)
    return Empty(200)


@routes.post("/networks/{id}/disconnect")
def disconnect(engine: Engine, request: Request) -> Reply:
    """Take a container out of a network."""
    body = request.json()
    network = engine.networks.find(request.names["id"])
    container = engine.containers.find(str(body.get("Container") or ""))
    engine.networks.disconnect(network, container)
    return Empty(200)

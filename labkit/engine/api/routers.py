"""Every route of the engine, module by module.

See: Docker Engine API.
"""

from __future__ import annotations

from labkit.engine.api import (
    archive,
    build,
    containers,
    events,
    execs,
    images,
    lives,
    networks,
    stats,
    streams,
    system,
    transfer,
    volumes,
)
from labkit.engine.wire.routes import Router

__all__ = ["router"]


def router() -> Router:
    """Return the router over all routes."""
    modules = (
        system, containers, lives, streams, execs, stats, archive, images, transfer, build, networks, volumes, events,
    )  # fmt: skip
    return Router(*(module.routes for module in modules))

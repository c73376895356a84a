"""Registries: how images travel. A client that pulls and pushes, and a small server.

Read in this order: `transport` (requests with time limits), `auth` (logging in), `client` and `repository` (what a registry offers),
`pull` and `fetch`, `push` and `upload`; then `server`.

See: OCI Distribution Specification 1.1.
"""

from __future__ import annotations

import importlib
from typing import Any

_HOME_OF = {
    "Credentials": "labkit.image.registry.credentials",
    "RegistryClient": "labkit.image.registry.client",
    "RegistryError": "labkit.image.registry.failures",
    "RegistryServer": "labkit.image.registry.server.service",
    "RegistrySettings": "labkit.image.registry.server.service",
    "Repository": "labkit.image.registry.repository",
    "Transfer": "labkit.image.registry.progress",
}

__all__ = [
    "Credentials",
    "RegistryClient",
    "RegistryError",
    "RegistryServer",
    "RegistrySettings",
    "Repository",
    "Transfer",
]


def __getattr__(name: str) -> Any:
    """Load a public name on first use: a client needs no server, and the other way round."""
    if name not in _HOME_OF:
        raise AttributeError(f"module 'labkit.image.registry' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME_OF[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)

"""Containers: a spec, a resident launcher that carries it out, and the life cycle around it.

Read in this order: `spec` (what shall be), `init` and `filesystem` (the child, step by step), `launcher` (who makes the child),
`client` and `process` (the program's side), `container` (what a lesson uses).

See: OCI Runtime Specification; namespaces(7); cgroups(7).
"""

from __future__ import annotations

import importlib
from typing import Any

_HOME_OF = {
    "Completed": "labkit.container.process",
    "Container": "labkit.container.container",
    "Exit": "labkit.container.process",
    "Limits": "labkit.isolation.cgroups",
    "MountSpec": "labkit.container.spec",
    "Namespaced": "labkit.container.container",
    "Process": "labkit.container.process",
    "Security": "labkit.container.spec",
    "run": "labkit.container.container",
    "shutdown": "labkit.container.client",
}

__all__ = [
    "Completed",
    "Container",
    "Exit",
    "Limits",
    "MountSpec",
    "Namespaced",
    "Process",
    "Security",
    "run",
    "shutdown",
]


def __getattr__(name: str) -> Any:
    """Load a public name on first use: the launcher imports parts of this package and must stay small."""
    if name not in _HOME_OF:
        raise AttributeError(f"module 'labkit.container' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME_OF[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)

"""labkit: see what a container is made of, by making one on this machine.

Importing this package touches nothing: no files, no probing, no log handlers. The public names below
load the module that holds them when they are first used.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_HOME_OF = {
    "NS": "labkit.linux.constants",
    "KiB": "labkit.units",
    "MiB": "labkit.units",
    "GiB": "labkit.units",
    "LabkitError": "labkit.errors",
    "Cgroup": "labkit.isolation.cgroups",
    "Container": "labkit.container",
    "Limits": "labkit.container",
    "Namespaced": "labkit.container",
}

__all__ = ["NS", "Cgroup", "Container", "GiB", "KiB", "LabkitError", "Limits", "MiB", "Namespaced", "__version__"]


def __getattr__(name: str) -> Any:
    """Load a public name on first use (PEP 562), so that ``import labkit`` stays cheap."""
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module 'labkit' has no attribute {name!r}")
    return getattr(importlib.import_module(home), name)


def __dir__() -> list[str]:
    return sorted(__all__)

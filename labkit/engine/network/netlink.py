"""Only the routing part of pyroute2, for a daemon that has memory to save.

``import pyroute2`` loads every protocol the library speaks (Wi-Fi, conntrack, a database, ...): 11 MB and 0.15 s; what bridges
and cables need is half of that. A package's ``__init__`` runs when the first module of it is imported, so the engine, a process
of its own, puts a package in place first whose ``__init__`` has not run. Nobody else should: in a notebook
``import pyroute2`` must give the whole library.

See: importlib.util.module_from_spec in the Python documentation.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys

__all__ = ["load_routing_only"]


def load_routing_only() -> None:
    """Have this process load pyroute2's rtnetlink part, and no other. Where that part needs more after all, it gets all."""
    if "pyroute2" in sys.modules:
        return
    spec = importlib.util.find_spec("pyroute2")
    if spec is None:
        return  # who needs it says so
    sys.modules["pyroute2"] = importlib.util.module_from_spec(spec)
    try:
        importlib.import_module("pyroute2.iproute.linux")
    except (ImportError, AttributeError):
        for name in [name for name in sys.modules if name.partition(".")[0] == "pyroute2"]:
            del sys.modules[name]

"""Experiments: what containers cost and what they hide, measured here and now.

Each module is one experiment that returns a frozen result with raw samples, units, clock and host; nothing here draws or
prints. `startup` races processes, namespaces, containers and other people's tools; `density` starts many; `sampler` watches one;
`isolation` looks out from inside; `attacks` tries to break out; `overhead` compares running programs; `recordable` keeps
results for machines that cannot measure. A result becomes JSON with ``to_json`` and comes back with ``from_json``.

See: `labkit.charts` for the drawing, `labkit.measure.stats` for medians and spreads.
"""

from __future__ import annotations

import importlib
from typing import Any

_HOME_OF = {
    "ATTACKS": "labkit.measure.attacks",
    "AttackTable": "labkit.measure.attacks",
    "DEFENCES": "labkit.measure.attacks",
    "Density": "labkit.measure.density",
    "EXPERIMENTS": "labkit.measure.recordable",
    "HostFacts": "labkit.measure.hostfacts",
    "Isolation": "labkit.measure.isolation",
    "IsolationMatrix": "labkit.measure.isolation",
    "Overhead": "labkit.measure.overhead",
    "Race": "labkit.measure.startup",
    "Recording": "labkit.measure.recording",
    "Row": "labkit.measure.startup",
    "Sample": "labkit.measure.sampler",
    "Sampler": "labkit.measure.sampler",
    "Series": "labkit.measure.density",
    "Shown": "labkit.measure.recording",
    "Summary": "labkit.measure.stats",
    "attack_table": "labkit.measure.attacks",
    "busybox_rootfs": "labkit.measure.rootfs",
    "host_facts": "labkit.measure.hostfacts",
    "isolation_matrix": "labkit.measure.isolation",
    "measure_density": "labkit.measure.density",
    "measure_overhead": "labkit.measure.overhead",
    "measure_series": "labkit.measure.density",
    "median": "labkit.measure.stats",
    "percentile": "labkit.measure.stats",
    "probe_isolation": "labkit.measure.isolation",
    "race": "labkit.measure.startup",
    "recorded_or": "labkit.measure.recordable",
    "summarise": "labkit.measure.stats",
    "try_attack": "labkit.measure.attacks",
}

__all__ = [
    "ATTACKS",
    "AttackTable",
    "DEFENCES",
    "Density",
    "EXPERIMENTS",
    "HostFacts",
    "Isolation",
    "IsolationMatrix",
    "Overhead",
    "Race",
    "Recording",
    "Row",
    "Sample",
    "Sampler",
    "Series",
    "Shown",
    "Summary",
    "attack_table",
    "busybox_rootfs",
    "host_facts",
    "isolation_matrix",
    "measure_density",
    "measure_overhead",
    "measure_series",
    "median",
    "percentile",
    "probe_isolation",
    "race",
    "recorded_or",
    "summarise",
    "try_attack",
]


def __getattr__(name: str) -> Any:
    """Load a public name on first use: a lesson that races needs none of what attacks need."""
    if name not in _HOME_OF:
        raise AttributeError(f"module 'labkit.measure' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME_OF[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)

"""Infrastructure as text: a file says what shall run, and a loop makes it so.

Read in this order: `interpolate` (variables in the file), `load` (YAML to a `model.Project`), `containers` (a service as what the engine's
API wants), `actual` (what there is), `plan` (the difference, as actions), `apply` (the actions, done), `reconcile` (again and again).

Leaves out of the Compose specification: configs, secrets, devices, GPUs, extends, include, profiles of single dependencies, build
options beyond context, dockerfile, args and target.
See: Compose Specification, https://github.com/compose-spec/compose-spec; Docker Engine API 1.44.
"""

from __future__ import annotations

from labkit.compose.apply import Applier, ComposeError, image_ids
from labkit.compose.load import load_project
from labkit.compose.model import Health, Project, Service
from labkit.compose.plan import Action, plan_down, plan_up
from labkit.compose.reconcile import Reconciler

__all__ = [
    "Action", "Applier", "ComposeError", "Health", "Project", "Reconciler", "Service", "image_ids", "load_project", "plan_down", "plan_up",
]  # fmt: skip

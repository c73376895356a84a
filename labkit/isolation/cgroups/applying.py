"""Writing limits to the files of a group, each controller in the words of the hierarchy that it is in.

See: `v1` and `v2` for the words, `limits` for their meaning.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace

from labkit.errors import InvalidSpec
from labkit.isolation.cgroups import files, v1, v2
from labkit.isolation.cgroups.device import disk_of
from labkit.isolation.cgroups.limits import Limits, format_cpuset, parse_cpuset

__all__ = ["apply_limits", "check_cpuset"]

Folders = Mapping[str, str]  # controller -> folder; "unified" -> that of the v2 tree


def apply_limits(folders: Folders, limits: Limits, previous: Limits) -> None:
    """Write what differs between ``previous`` and ``limits``. Raises: InvalidSpec, InvalidState, FeatureMissing."""
    device = ""
    if "io" in limits.controllers() | previous.controllers():
        device = disk_of(limits.io_path)
    if limits.cpuset is None and previous.cpuset is not None:
        # A group that has processes may not go back to an empty list, which would mean "as the parent".
        limits = replace(limits, cpuset=_cpus_above(folders))
    unified = folders.get("unified")
    if any(folder != unified for folder in folders.values()):
        for controller, name, text in v1.limit_writes(limits, previous, device=device):
            if folders[controller] != unified:
                files.write_limit(f"{folders[controller]}/{name}", text)
    if any(folder == unified for name, folder in folders.items() if name != "unified"):
        for controller, name, text in v2.limit_writes(limits, previous, device=device):
            if folders[controller] == unified:
                files.write_limit(f"{unified}/{name}", text)


def check_cpuset(folders: Folders, cpuset: str) -> None:
    """Raises: InvalidSpec if ``cpuset`` names a CPU that the group above does not have; v2 would silently ignore it."""
    available = parse_cpuset(_cpus_above(folders))
    unknown = parse_cpuset(cpuset) - available
    if unknown:
        raise InvalidSpec(
            f"cpuset {cpuset!r} names CPU {min(unknown)}, but only {format_cpuset(available)} can be used here."
        )


def _cpus_above(folders: Folders) -> str:
    name = "cpuset.cpus.effective" if folders["cpuset"] == folders.get("unified") else "cpuset.cpus"
    return files.read_text(f"{os.path.dirname(folders['cpuset'])}/{name}").strip()

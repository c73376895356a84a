"""Pressure stall information: how much time tasks lose to waiting for CPU, memory or disk.

Use says how busy a resource is; pressure says who suffers. The kernel measures it for the whole machine (``/proc/pressure``) and
for each group of the v2 tree, whether or not the tree has controllers; v1 has none for its groups.

Leaves out: triggers (a poll(2) that returns when a threshold is crossed), irq pressure.
See: Documentation/accounting/psi.rst in the kernel's source.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from labkit.errors import FeatureMissing, InvalidSpec
from labkit.isolation.cgroups import files

__all__ = ["Pressure", "PressureLine", "Resource", "parse_pressure", "read_pressure"]

Resource = Literal["cpu", "memory", "io"]


@dataclass(frozen=True, slots=True)
class PressureLine:
    """Share of wall time lost to waiting, averaged over 10, 60 and 300 s, and the total since the group was made."""

    avg10_percent: float
    avg60_percent: float
    avg300_percent: float
    total_usec: int


@dataclass(frozen=True, slots=True)
class Pressure:
    """Pressure stall information: ``some`` task waited, or all (``full``) did.

    ``scope`` says whose waiting it is: v1 keeps none per cgroup, so there labkit shows that of the whole machine.
    """

    resource: str
    scope: Literal["cgroup", "machine"]
    some: PressureLine
    full: PressureLine | None


def read_pressure(folder: str | None, resource: Resource) -> Pressure:
    """Return the pressure of the v2 group ``folder``; where there is none, that of the machine (see `Pressure.scope`).

    Raises: FeatureMissing if the kernel keeps no pressure at all, InvalidSpec for an unknown resource.
    """
    if resource not in get_args(Resource):
        raise InvalidSpec(f"There is no pressure of {resource!r}: ask for cpu, memory or io.")
    text = None if folder is None else files.try_read(f"{folder}/{resource}.pressure")
    if text:
        return parse_pressure(text, resource=resource, scope="cgroup")
    text = files.try_read(f"/proc/pressure/{resource}")
    if not text:
        raise FeatureMissing("This kernel keeps no pressure (PSI).", remedy="Boot it with psi=1.")
    return parse_pressure(text, resource=resource, scope="machine")


def parse_pressure(text: str, *, resource: str, scope: Literal["cgroup", "machine"]) -> Pressure:
    """Return the two lines of a pressure file as numbers.

    Raises: FeatureMissing if there is no ``some`` line (PSI switched off for this group).
    """
    lines: dict[str, PressureLine] = {}
    for line in text.splitlines():
        kind, *words = line.split()
        values = dict(word.split("=", 1) for word in words)
        lines[kind] = PressureLine(
            avg10_percent=float(values["avg10"]),
            avg60_percent=float(values["avg60"]),
            avg300_percent=float(values["avg300"]),
            total_usec=int(values["total"]),
        )
    if "some" not in lines:
        raise FeatureMissing(f"The kernel reports no {resource} pressure here.", remedy="Boot it with psi=1.")
    return Pressure(resource=resource, scope=scope, some=lines["some"], full=lines.get("full"))

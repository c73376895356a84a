"""The difference between what the file says and what there is, as a list of actions. Nothing is done here.

This is the heart of every system that is driven by text (Compose, Kubernetes, Terraform): compare, and name what is missing. The same
function plans the first start, an update, a repair and a change of number, because it asks only what there is and what there should be.

See: `labkit.compose.apply`, which carries a plan out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from labkit.compose.actual import Actual, Found
from labkit.compose.containers import config_hash, container_name
from labkit.compose.load import start_order
from labkit.compose.model import Project, Service

__all__ = ["Action", "Kind", "plan_down", "plan_up"]

Kind = Literal[
    "create network",
    "create volume",
    "wait for",
    "create",
    "start",
    "recreate",
    "remove",
    "remove network",
    "remove volume",
]


@dataclass(frozen=True, slots=True)
class Action:
    """One thing to do: to what (a container's, network's or volume's name, or a service to wait for), and why."""

    kind: Kind
    name: str
    why: str
    service: str = ""
    number: int = 0
    container_id: str = ""
    condition: str = ""

    def __str__(self) -> str:
        return f"{self.kind} {self.name}: {self.why}"


def plan_up(
    project: Project, actual: Actual, images: Mapping[str, str], *, only: Iterable[str] = (), force: bool = False, remove_orphans: bool = False
) -> list[Action]:  # fmt: skip
    """Return what must be done so that ``actual`` becomes ``project``; nothing, if it is so already.

    ``images`` are the ids of the services' images; ``only`` names services (what they depend on comes along); ``force`` makes every
    container anew.
    """
    wanted = _with_dependencies(project, only)
    actions: list[Action] = []
    for network in project.networks.values():
        if network.name not in actual.networks and not network.external:
            actions.append(Action("create network", network.name, "it is missing"))
    for volume in project.volumes.values():
        if volume.name not in actual.volumes and not volume.external:
            actions.append(Action("create volume", volume.name, "it is missing"))
    for name in start_order(project.services):
        if name in wanted:
            actions += _of_service(project, project.services[name], actual, images.get(name, ""), force=force)
    if remove_orphans:
        orphans = [found for found in actual.containers if found.service not in project.services]
        actions += [_remove(found, "its service is not in the file any more") for found in orphans]
    return actions


def _with_dependencies(project: Project, only: Iterable[str]) -> set[str]:
    waiting, wanted = list(only) or list(project.services), set[str]()
    while waiting:
        name = waiting.pop()
        if name not in wanted and name in project.services:
            wanted.add(name)
            waiting += project.services[name].depends_on
    return wanted


def _of_service(project: Project, service: Service, actual: Actual, image_id: str, *, force: bool) -> list[Action]:
    there = actual.of(service.name)
    digest = config_hash(project, service, image_id)
    actions = []
    for number in range(1, service.replicas + 1):
        action = _of_replica(project, service, number, there.get(number), digest, force=force)
        if action is not None:
            actions.append(action)
    surplus = [found for number, found in there.items() if number > service.replicas]
    waits = list(_waits(service)) if actions else []
    return [*waits, *actions, *(_remove(found, f"{service.replicas} are wanted") for found in surplus)]


def _of_replica(
    project: Project, service: Service, number: int, found: Found | None, digest: str, *, force: bool
) -> Action | None:
    name = container_name(project, service, number)
    if found is None:
        return Action("create", name, "it is missing", service.name, number)
    if force or found.config_hash != digest:
        why = "it was asked for" if force else "its configuration or its image has changed"
        return Action("recreate", name, why, service.name, number, found.id)
    if found.running or (found.exit_code == 0 and found.state == "exited" and service.restart == "no"):
        return None  # it runs, or it has done what it was there for
    why = "it was not started" if found.state == "created" else f"it has ended with status {found.exit_code}"
    return Action("start", name, why, service.name, number, found.id)


def _waits(service: Service) -> Iterator[Action]:
    for other, condition in service.depends_on.items():
        if condition != "service_started":
            yield Action(
                "wait for",
                other,
                f"{service.name} needs it {condition.removeprefix('service_')}",
                other,
                condition=condition,
            )


def _remove(found: Found, why: str) -> Action:
    return Action("remove", found.name, why, found.service, found.number, found.id)


def plan_down(project: Project, actual: Actual, *, volumes: bool = False) -> list[Action]:
    """Return what must be done so that nothing is left of ``project``: containers, last started first, then networks.

    Volumes hold data and stay, unless ``volumes``. What is external stays in any case.
    """
    order = {name: number for number, name in enumerate(start_order(project.services))}
    found = sorted(actual.containers, key=lambda one: (order.get(one.service, len(order)), one.number), reverse=True)
    actions = [_remove(one, "the project goes down") for one in found]
    for network in project.networks.values():
        if network.name in actual.networks and not network.external:
            actions.append(Action("remove network", network.name, "the project goes down"))
    for volume in project.volumes.values() if volumes else ():
        if volume.name in actual.volumes and not volume.external:
            actions.append(Action("remove volume", volume.name, "its removal was asked for"))
    return actions

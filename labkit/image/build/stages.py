"""Which stages a build needs, in which order: those that the target leads to, and no others.

A stage leads to the one it is built FROM, and to those it copies files or mounts folders from. A name means the nearest stage of that name
above; what is no stage is an image.

See: dockerfile(5), "FROM"; docker-build(1), "--target".
"""

from __future__ import annotations

from labkit.image.build import instructions as made
from labkit.image.build.arguments import Arguments
from labkit.image.build.errors import ContainerfileError
from labkit.image.build.mounts import parse_mount
from labkit.image.build.parser import Containerfile, Stage
from labkit.image.build.variables import expand

__all__ = ["base_of", "needed_stages", "stage_above"]


def base_of(stage: Stage, arguments: Arguments) -> str:
    """Return what a stage is built FROM, with global arguments replaced. Raises: ContainerfileError if nothing is left."""
    base = expand(stage.start.base, arguments.values, escape=arguments.escape, line=stage.start.line)
    if not base:
        raise ContainerfileError(
            f"base name ({stage.start.base}) should not be blank: an ARG before the first FROM must give it a value.",
            line=stage.start.line,
        )
    return base


def stage_above(plan: Containerfile, name: str, number: int, *, by_number: bool = True) -> Stage | None:
    """Return the stage that ``name`` means in stage ``number``; None if it means an image."""
    found = [stage for stage in plan.stages[:number] if stage.start.name and stage.start.name == name.lower()]
    if not found and by_number and name.isdigit() and int(name) < number:
        found = [plan.stages[int(name)]]
    return found[-1] if found else None


def needed_stages(plan: Containerfile, target: str | None, arguments: Arguments) -> list[Stage]:
    """Return the stages to build for ``target`` (default: the last one), in order. Raises: ContainerfileError if there is none."""
    last = plan.stages[-1] if not target else plan.stage(target)
    if last is None:
        names = ", ".join(stage.name for stage in plan.stages)
        raise ContainerfileError(f"failed to reach build target {target} in Dockerfile: there are the stages {names}.")
    needed: set[int] = set()
    waiting = [last]
    while waiting:
        stage = waiting.pop()
        if stage.number in needed:
            continue
        needed.add(stage.number)
        waiting += _leads_to(plan, stage, arguments)
    return [stage for stage in plan.stages if stage.number in needed]


def _leads_to(plan: Containerfile, stage: Stage, arguments: Arguments) -> list[Stage]:
    names = [(base_of(stage, arguments), False)]
    for instruction in stage.instructions:
        if isinstance(instruction, made.Copy) and instruction.from_stage:
            names.append((instruction.from_stage, True))
        elif isinstance(instruction, made.Run):
            mounts = (parse_mount(text, line=instruction.line) for text in instruction.mounts)
            names += [(mount.from_stage, True) for mount in mounts if mount.from_stage]
    found = (stage_above(plan, name, stage.number, by_number=by_number) for name, by_number in names)
    return [other for other in found if other is not None]

"""Show how a Containerfile is read: ``python -m labkit.image.build [FILE]``, without building anything."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

from labkit.errors import LabkitError
from labkit.image.build.instructions import Instruction
from labkit.image.build.parser import parse


def describe(instruction: Instruction) -> str:
    """Return one line: where it stands, and its parts with their names."""
    parts = [
        f"{field.name}={value!r}"
        for field in dataclasses.fields(instruction)
        if field.name not in ("line", "text") and (value := getattr(instruction, field.name))
    ]
    return f"{instruction.line:>4}  {type(instruction).__name__:<12} {' '.join(parts)}"


def main(name: str) -> int:
    """Print the stages and instructions of the file; return 0, or 2 if it cannot be read."""
    try:
        plan = parse(Path(name).read_bytes())
    except (LabkitError, OSError) as error:
        print(f"labkit: {error}", file=sys.stderr)
        return 2
    for argument in plan.global_args:
        print(describe(argument))
    for stage in plan.stages:
        print(describe(stage.start))
        for instruction in stage.instructions:
            print(describe(instruction))
    for text in plan.warnings:
        print(f"warning: {text}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else "Containerfile"))

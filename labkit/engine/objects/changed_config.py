"""``--change``: instructions of a Containerfile that change an image's settings, on commit and import.

See: docker-commit(1); `labkit.image.build.settings`.
"""

from __future__ import annotations

from collections.abc import Sequence

from labkit.engine.wire.errors import BadParameter
from labkit.errors import InvalidSpec
from labkit.image.config import RunConfig

__all__ = ["apply_changes"]


def apply_changes(config: RunConfig, lines: Sequence[str]) -> RunConfig:
    """Return ``config`` after the instructions in ``lines``. Raises: BadParameter for what is none or changes files."""
    text = "\n".join(line for entry in lines for line in entry.split("\n"))
    if not text.strip():
        return config
    from labkit.image.build.parser import parse
    from labkit.image.build.settings import Settings, apply

    try:
        plan = parse(f"FROM scratch\n{text}\n")
        if len(plan.stages) != 1:
            raise BadParameter("FROM is no valid change of an image")
        for instruction in plan.stages[0].instructions:
            settings = Settings(config.environment, plan.escape)
            config, _ = apply(instruction, config, settings, cmd_was_set=False)
    except InvalidSpec as error:
        raise BadParameter(str(error)) from error
    return config

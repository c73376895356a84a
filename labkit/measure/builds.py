"""Builds as results: which steps came from the cache, why the others did not, and how long each took.

See: `labkit.image.build.cache` for how a step is found again.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from labkit.image.build.builder import build
from labkit.image.store import ImageStore
from labkit.measure.record import Result

__all__ = ["BuildRun", "BuildStep", "build_run"]


@dataclass(frozen=True, slots=True)
class BuildStep(Result):
    """One step: the instruction, and what became of it. ``layer_bytes`` is 0 for a step that changes only settings."""

    text: str
    cached: bool
    why: str
    elapsed_s: float
    layer_bytes: int = 0

    def __str__(self) -> str:
        """Return one line, as a lesson prints it."""
        state = "cached" if self.cached else f"done in {self.elapsed_s:.2f} s"
        return f"{self.text[:40]:<40}  {state:<15}  {self.why}".rstrip()


@dataclass(frozen=True, slots=True)
class BuildRun(Result):
    """One build: its steps without FROM, the image that came out, and the seconds it took."""

    name: str
    image_id: str
    steps: tuple[BuildStep, ...]
    elapsed_s: float

    @property
    def done(self) -> tuple[BuildStep, ...]:
        """The steps that were not in the cache."""
        return tuple(step for step in self.steps if not step.cached)


def build_run(
    name: str, context: Path | str, *, store: ImageStore, containerfile: str = "Containerfile", no_cache: bool = False
) -> BuildRun:
    """Build ``context`` into ``store`` under ``name`` and return what happened, step by step. Raises: BuildError."""
    built = build(context, containerfile=containerfile, store=store, tags=[name], no_cache=no_cache)
    steps = tuple(
        BuildStep(" ".join(step.text.split()), step.cached, step.why, step.elapsed_s, step.layer_bytes or 0)
        for step in built.steps
        if not step.text.upper().startswith("FROM ")
    )
    return BuildRun(name, built.image_id, steps, built.elapsed_s)

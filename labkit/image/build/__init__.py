"""Builds: from a Containerfile (or Dockerfile) and a folder of files to an image, layer by layer.

Read in this order: `lexer` (lines), `parser` and `instructions` (what they say), `variables`, `context` and `dockerignore` (the
files), `cache` (what need not be done again, and why it must be), `copying` and `running` (what makes a layer), `builder` (all of
it in order), `progress` (what is told meanwhile).

See: dockerfile(5), OCI Image Specification, config.md.
"""

from __future__ import annotations

import importlib
from typing import Any

_HOME_OF = {
    "BuildCancelled": "labkit.image.build.errors",
    "BuildError": "labkit.image.build.errors",
    "BuildResult": "labkit.image.build.builder",
    "Containerfile": "labkit.image.build.parser",
    "ContainerfileError": "labkit.image.build.errors",
    "Event": "labkit.image.build.progress",
    "build": "labkit.image.build.builder",
    "classic_text": "labkit.image.build.progress",
    "parse": "labkit.image.build.parser",
}

__all__ = [
    "BuildCancelled",
    "BuildError",
    "BuildResult",
    "Containerfile",
    "ContainerfileError",
    "Event",
    "build",
    "classic_text",
    "parse",
]


def __getattr__(name: str) -> Any:
    """Load a public name on first use: a Containerfile can be read without the builder."""
    if name not in _HOME_OF:
        raise AttributeError(f"module 'labkit.image.build' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME_OF[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)

"""One instruction, ready to be carried out: what it depends on, and how to make its layer; and a RUN's command.

`prepare` looks an instruction up against the state below it and gives a `Step`: a `Question` for the cache, and a function that does
the work if the cache has no answer.

See: `labkit.image.build.cache`, `labkit.image.build.builder`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from labkit.image.build.copying import Selected
from labkit.image.build.job import Network
from labkit.image.config import RunConfig
from labkit.image.layer import Layer

if TYPE_CHECKING:
    from labkit.image.build.mounts import RunMount

__all__ = ["Command", "Step"]


@dataclass(frozen=True, slots=True)
class Step:
    """``created_by`` is the instruction as the history has it; ``asked`` (default: the same) as the cache compares it.

    ``work`` makes the layer (None: it has none).
    """

    created_by: str
    config: RunConfig
    inputs: Mapping[str, str] = field(default_factory=dict)
    variables: Mapping[str, str] = field(default_factory=dict)
    work: Callable[[], Layer | None] | None = None
    author: str | None = None
    asked: str = ""


@dataclass(frozen=True, slots=True)
class Command:
    """What a RUN runs: ``words``, with ``env`` added to the image's, as ``shown`` in messages.

    ``shared`` has the files of each bind mount; ``script`` is a program that stands in the Containerfile (a heredoc with ``#!``).
    """

    words: tuple[str, ...]
    env: Mapping[str, str]
    line: int
    shown: str
    network: Network = "none"
    mounts: tuple[RunMount, ...] = ()
    shared: Mapping[RunMount, Selected] = field(default_factory=dict)
    script: bytes | None = None

"""``RUN --mount``: folders that a command sees while it runs, and that are not in its layer.

``type=cache``
    a folder of the build's own that stays from build to build (a package manager's downloads)
``type=bind``
    files of the context or of another stage (``from=``); what is written there is thrown away
``type=tmpfs``
    memory

Leaves out: ``secret`` and ``ssh``, which are refused by name: labkit's builds have no channel for secrets.
See: dockerfile(5), "RUN --mount".
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from labkit import units
from labkit.errors import InvalidSpec
from labkit.image.build.errors import ContainerfileError

__all__ = ["RunMount", "parse_mount"]

_KINDS = ("bind", "cache", "tmpfs")
_TARGETS = ("target", "dst", "destination")
_KNOWN = (
    *_TARGETS,
    "type",
    "id",
    "from",
    "source",
    "src",
    "size",
    "sharing",
    "mode",
    "uid",
    "gid",
    "ro",
    "readonly",
    "rw",
    "readwrite",
)


@dataclass(frozen=True, slots=True)
class RunMount:
    """One mount of a RUN."""

    kind: str
    target: str
    source: str = "/"
    from_stage: str = ""
    cache_id: str = ""
    size_bytes: int | None = None
    readonly: bool = False

    @property
    def folder_name(self) -> str:
        """The name of the folder that keeps a cache: a hash, as an id may hold anything."""
        return hashlib.sha256(self.cache_id.encode()).hexdigest()[:32]


def parse_mount(text: str, *, line: int) -> RunMount:
    """Return what ``--mount=`` says. Raises: ContainerfileError naming the option that cannot be."""
    options = {}
    for part in text.split(","):
        name, equals, value = part.partition("=")
        if name not in _KNOWN:
            raise ContainerfileError(f"unexpected key {name!r} in {part!r} of --mount.", line=line)
        options[name] = value if equals else "true"
    kind = options.get("type", "bind")
    if kind in ("secret", "ssh"):
        raise ContainerfileError(
            f"RUN --mount=type={kind} is not supported: a build gets no secrets; give the file to the container that needs it.",
            line=line,
        )
    if kind not in _KINDS:
        raise ContainerfileError(f"unsupported mount type {kind!r}: there are {', '.join(_KINDS)}.", line=line)
    target = next((options[name] for name in _TARGETS if name in options), "")
    if not target:
        raise ContainerfileError(f"--mount=type={kind} needs a target, as in target=/var/cache.", line=line)
    try:
        size_bytes = units.parse_bytes(options["size"]) if "size" in options else None
    except InvalidSpec as error:
        raise ContainerfileError(f"--mount=type={kind}: {error}", line=line) from error
    return RunMount(
        kind, target, options.get("source", options.get("src", "/")), options.get("from", ""),
        options.get("id", target), size_bytes, "true" in (options.get("ro"), options.get("readonly")),
    )  # fmt: skip

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
from collections.abc import Mapping
from dataclasses import dataclass

from labkit import units
from labkit.errors import InvalidSpec
from labkit.image.build.errors import ContainerfileError

__all__ = ["RunMount", "parse_mount"]

_KINDS = ("bind", "cache", "tmpfs")
#: What means nothing for a kind of mount, and is refused instead of being passed over.
_UNFIT = {
    "bind": ("id", "size", "sharing", "mode", "uid", "gid"),
    "cache": ("from", "source", "src", "size"),
    "tmpfs": ("id", "from", "source", "src", "sharing", "mode", "uid", "gid", "ro", "readonly", "rw", "readwrite"),
}
_MOST = {"mode": 0o7777, "uid": 65_535, "gid": 65_535}
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
    writable: bool = False
    locked: bool = False
    mode: int = 0o755
    uid: int = 0
    gid: int = 0

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
    for name in _UNFIT[kind]:
        if name in options:
            raise ContainerfileError(f"--mount=type={kind} takes no {name!r}.", line=line)
    sharing = options.get("sharing", "shared")
    if sharing not in ("shared", "locked"):
        raise ContainerfileError(f"--mount: sharing={sharing} is not supported: it is shared or locked.", line=line)
    return RunMount(
        kind, target, options.get("source", options.get("src", "/")), options.get("from", ""), options.get("id", target),
        _size_bytes(options, line=line), _is_set(options, "ro", "readonly"), _is_set(options, "rw", "readwrite"),
        sharing == "locked", _number(options, "mode", 8, 0o755, line=line), _number(options, "uid", 10, 0, line=line),
        _number(options, "gid", 10, 0, line=line),
    )  # fmt: skip


def _is_set(options: Mapping[str, str], *names: str) -> bool:
    return any(options.get(name, "false").lower() in ("true", "1") for name in names)


def _size_bytes(options: Mapping[str, str], *, line: int) -> int | None:
    try:
        return units.parse_bytes(options["size"]) if "size" in options else None
    except InvalidSpec as error:
        raise ContainerfileError(f"--mount: {error}", line=line) from error


def _number(options: Mapping[str, str], name: str, base: int, default: int, *, line: int) -> int:
    text = options.get(name)
    if text is None:
        return default
    try:
        number = int(text, base)
    except ValueError:
        number = -1
    if not 0 <= number <= _MOST[name]:
        raise ContainerfileError(
            f"--mount: {name}={text} cannot be: write a number up to {_MOST[name]:{'o' if base == 8 else 'd'}}.",
            line=line,
        )
    return number

"""The configuration of an image: how to run it, what it is for, how it came about.

The digest of these bytes is the image's *id*. ``rootfs.diff_ids`` are the digests of the layers as plain tar: they bind
the configuration to the content, whatever the layers' compression. A *chain id* names a stack of layers, and so the place
where its topmost one lies unpacked: ChainID(L0..Ln) = SHA256(ChainID(L0..Ln-1) + " " + DiffID(Ln)).

Leaves out: fields of Windows.
See: OCI Image Specification, config.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from labkit.errors import ImageError
from labkit.image.descriptor import Platform, check_digest, digest_of, this_platform
from labkit.image.jsontext import Fields, canonical, load_object

__all__ = ["History", "ImageConfig", "RunConfig", "chain_ids"]


@dataclass(frozen=True, slots=True)
class RunConfig:
    """How to start a container from the image: the ``config`` object. None means that nothing was said."""

    user: str = ""
    env: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] | None = None
    cmd: tuple[str, ...] | None = None
    working_dir: str = ""
    exposed_ports: tuple[str, ...] = ()
    volumes: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    stop_signal: str = ""
    shell: tuple[str, ...] | None = None
    healthcheck: Mapping[str, Any] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_dict(cls, document: Mapping[str, Any], what: str) -> RunConfig:
        """Return what JSON holds. Raises: ImageError."""
        fields = Fields(document, what)
        return cls(
            user=fields.text("User"), env=fields.texts("Env") or (), entrypoint=fields.texts("Entrypoint"),
            cmd=fields.texts("Cmd"), working_dir=fields.text("WorkingDir"),
            exposed_ports=tuple(fields.mapping("ExposedPorts")), volumes=tuple(fields.mapping("Volumes")),
            labels=fields.text_mapping("Labels"), stop_signal=fields.text("StopSignal"), shell=fields.texts("Shell"),
            healthcheck=fields.mapping("Healthcheck"), extra=fields.rest(),
        )  # fmt: skip

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON has it, without what was not said."""
        document: dict[str, Any] = {
            "User": self.user,
            "ExposedPorts": {port: {} for port in self.exposed_ports},
            "Env": list(self.env),
            "Entrypoint": None if self.entrypoint is None else list(self.entrypoint),
            "Cmd": None if self.cmd is None else list(self.cmd),
            "Volumes": {volume: {} for volume in self.volumes},
            "WorkingDir": self.working_dir,
            "Labels": dict(self.labels),
            "StopSignal": self.stop_signal,
            "Shell": None if self.shell is None else list(self.shell),
            "Healthcheck": dict(self.healthcheck),
        }
        # An empty list of words was said: "ENTRYPOINT []" takes the base image's away.
        kept = {key: value for key, value in document.items() if value or (value == [] and key != "Env")}
        return kept | dict(self.extra)

    @property
    def environment(self) -> dict[str, str]:
        """The environment as names and values; a name without ``=`` is empty, the last of doubles counts."""
        return {name: value for name, _, value in (entry.partition("=") for entry in self.env)}


@dataclass(frozen=True, slots=True)
class History:
    """How one step of the image came about; an ``empty_layer`` step changed only the configuration."""

    created: str = ""
    created_by: str = ""
    author: str = ""
    comment: str = ""
    empty_layer: bool = False

    @classmethod
    def from_dict(cls, document: Mapping[str, Any], what: str) -> History:
        """Return what JSON holds. Raises: ImageError."""
        fields = Fields(document, what)
        return cls(
            fields.text("created"), fields.text("created_by"), fields.text("author"), fields.text("comment"),
            fields.flag("empty_layer"),
        )  # fmt: skip

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        document = {key: getattr(self, key) for key in ("created", "created_by", "author", "comment", "empty_layer")}
        return {key: value for key, value in document.items() if value}


@dataclass(frozen=True, slots=True)
class ImageConfig:
    """The whole configuration; ``diff_ids`` lowest layer first. ``raw`` are the bytes it was read from."""

    platform: Platform = field(default_factory=this_platform)
    config: RunConfig = field(default_factory=RunConfig)
    diff_ids: tuple[str, ...] = ()
    history: tuple[History, ...] = ()
    created: str = ""
    author: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)
    raw: bytes = field(default=b"", compare=False, repr=False)

    @classmethod
    def from_bytes(cls, data: bytes) -> ImageConfig:
        """Return the configuration in ``data``. Raises: ImageError."""
        what = f"The configuration {digest_of(data)}"
        fields = Fields(load_object(data, what), what)
        rootfs = Fields(fields.mapping("rootfs"), f"{what}: its rootfs")
        if rootfs.text("type", "layers") != "layers":
            raise ImageError(f"{what} has a root filesystem of type {rootfs.text('type')!r} instead of layers.")
        diff_ids = tuple(check_digest(text, f"{what}: a layer") for text in rootfs.texts("diff_ids") or ())
        platform = Platform(fields.text("architecture"), fields.text("os", "linux"), fields.text("variant"))
        return cls(
            platform, RunConfig.from_dict(fields.mapping("config"), f"{what}: how to run it"), diff_ids,
            tuple(History.from_dict(item, f"{what}: its history") for item in fields.objects("history") or ()),
            fields.text("created"), fields.text("author"), fields.rest(), data,
        )  # fmt: skip

    def to_bytes(self) -> bytes:
        """Return the bytes it was read from; of a new or changed one, the canonical ones."""
        if self.raw and ImageConfig.from_bytes(self.raw) == self:
            return self.raw
        document: dict[str, Any] = self.platform.to_dict() | {
            "config": self.config.to_dict(),
            "rootfs": {"type": "layers", "diff_ids": list(self.diff_ids)},
            "history": [step.to_dict() for step in self.history],
        }
        said = {"created": self.created, "author": self.author}
        return canonical(document | {key: value for key, value in said.items() if value} | dict(self.extra))

    @property
    def chain_ids(self) -> tuple[str, ...]:
        """The names of the stacks that end at each layer, lowest first."""
        return chain_ids(self.diff_ids)

    def layers_of_history(self) -> tuple[int | None, ...]:
        """Return for each step of the history which layer it made (counted from 0), None for none."""
        numbers = iter(range(len(self.diff_ids)))
        return tuple(None if step.empty_layer else next(numbers, None) for step in self.history)


def chain_ids(diff_ids: Sequence[str]) -> tuple[str, ...]:
    """Return the chain id of each layer of the stack ``diff_ids``, lowest first."""
    chain: list[str] = []
    for diff_id in diff_ids:
        chain.append(digest_of(f"{chain[-1]} {diff_id}".encode()) if chain else diff_id)
    return tuple(chain)

"""The image as it is after so many instructions: a configuration and the layers that it names.

Each instruction makes a new state from the one before, and every state is a whole image: its id is the digest of its configuration, as if
the Containerfile ended there. That is why a step can be cached: the id below it says everything about what came before.

See: OCI Image Specification, config.md.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

from labkit.image.config import History, ImageConfig, RunConfig
from labkit.image.descriptor import Descriptor, digest_of
from labkit.image.layer import Layer
from labkit.image.manifest import Manifest
from labkit.image.media_types import OCI_CONFIG
from labkit.image.store import Image, ImageStore

__all__ = ["State", "iso_time"]


def iso_time(epoch_s: int) -> str:
    """Return a time as images write it: ``1970-01-01T00:00:00Z``."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(epoch_s))


@dataclass(frozen=True, slots=True)
class State:
    """An image that is being built."""

    config: ImageConfig
    layers: tuple[Descriptor, ...] = ()

    @classmethod
    def scratch(cls) -> State:
        """Return what FROM scratch gives: no layer, no settings."""
        return cls(ImageConfig())

    @classmethod
    def of(cls, image: Image) -> State:
        """Return the state that FROM an image gives."""
        return cls(image.config, image.manifest.layers)

    def with_path(self) -> State:
        """Return the state with a PATH, which every built image has, as with Docker, so that commands are found."""
        config = self.config.config
        if "PATH" in config.environment:
            return self
        from labkit.container.spec import (
            DEFAULT_PATH,
        )  # a base image has one, and containers are not loaded for nothing

        config = replace(config, env=(f"PATH={DEFAULT_PATH}", *config.env))
        return State(replace(self.config, config=config, raw=b""), self.layers)

    @property
    def id(self) -> str:
        """The image's id."""
        return digest_of(self.config.to_bytes())

    @property
    def run_config(self) -> RunConfig:
        """How a container of it is started."""
        return self.config.config

    @property
    def manifest(self) -> Manifest:
        """The manifest of the image so far."""
        data = self.config.to_bytes()
        return Manifest(Descriptor.of(data, OCI_CONFIG), self.layers)

    def after(
        self, created_by: str, *, created: str, config: RunConfig | None = None, layer: Layer | None = None,
        author: str | None = None,
    ) -> State:  # fmt: skip
        """Return the state after one instruction: with other settings, or one layer more."""
        step = History(created, created_by, empty_layer=layer is None)
        changed = replace(
            self.config, config=config or self.config.config, created=created, history=(*self.config.history, step),
            author=self.config.author if author is None else author,
            diff_ids=(*self.config.diff_ids, *([layer.diff_id] if layer else [])), raw=b"",
        )  # fmt: skip
        return State(changed, (*self.layers, *([layer.descriptor] if layer else [])))

    def store(self, store: ImageStore) -> Descriptor:
        """Put configuration and manifest into the store; return what points to the image."""
        store.blobs.put(self.config.to_bytes(), OCI_CONFIG)
        manifest = self.manifest
        return store.blobs.put(manifest.to_bytes(), manifest.media_type)

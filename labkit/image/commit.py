"""Commit: what a container has changed becomes a layer, and with it a new image.

The changes lie in the upper folder of the container's overlay. They are packed as they are found, so the container should be still
(ended or frozen), and the folder then may become the unpacked layer itself.

Leaves out: containers whose writable layer is memory: it is gone with them, and never was a folder.
See: docker-commit(1); OCI Image Specification, config.md ("History").
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from labkit.image import media_types
from labkit.image.config import History, ImageConfig, RunConfig
from labkit.image.descriptor import Descriptor
from labkit.image.layer import Layer, make_layer
from labkit.image.manifest import Manifest
from labkit.image.media_types import Compression
from labkit.image.reference import Reference
from labkit.image.store import Image, ImageStore

__all__ = ["add_layer", "commit", "now_text", "store_image"]


def store_image(store: ImageStore, config: ImageConfig, layers: Sequence[Descriptor]) -> Descriptor:
    """Write configuration and manifest of an image whose layers are in the store; return what points to it.

    Hold a lease: nothing has a name yet.
    """
    described = store.blobs.put(config.to_bytes(), media_types.OCI_CONFIG)
    manifest = Manifest(described, tuple(_as_oci(layer) for layer in layers))
    return store.blobs.put(manifest.to_bytes(), manifest.media_type)


def _as_oci(layer: Descriptor) -> Descriptor:
    compression = media_types.compression_of(layer.media_type)
    return layer if compression is None else replace(layer, media_type=media_types.layer_type(compression))


def add_layer(
    base: ImageConfig | None, layer: Layer | None, *, created_by: str, comment: str = "", author: str = "",
    created: str | None = None, run_config: RunConfig | None = None,
) -> ImageConfig:  # fmt: skip
    """Return ``base`` after one more step: with a layer on top, or with other settings only."""
    base = base or ImageConfig()
    created = created or now_text()
    step = History(created, created_by, author, comment, empty_layer=layer is None)
    return replace(
        base, config=run_config or base.config, created=created, author=author or base.author,
        history=(*base.history, step), diff_ids=(*base.diff_ids, *([layer.diff_id] if layer is not None else [])),
    )  # fmt: skip


def now_text() -> str:
    """Return the time as images write it (RFC 3339), in whole seconds."""
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def commit(
    store: ImageStore, upper: Path | str, base: Image | None, *, tag: Reference | str | None = None, created_by: str = "",
    comment: str = "", author: str = "", run_config: RunConfig | None = None, compression: Compression = "gzip",
) -> Image:  # fmt: skip
    """Make an image of ``base`` and the changes in the folder ``upper`` (``WRITABLE/upper`` of a container).

    Raises: ImageError, and OSError if the folder cannot be read.
    """
    with store.lease():
        layer, _ = make_layer(store.blobs, upper, compression=compression)
        config = add_layer(
            base.config if base is not None else None, layer,
            created_by=created_by, comment=comment, author=author, run_config=run_config,
        )  # fmt: skip
        layers = [*(base.manifest.layers if base is not None else ()), layer.descriptor]
        descriptor = store_image(store, config, layers)
        if tag is not None:
            store.tag(tag, descriptor)
        return store.image(descriptor)

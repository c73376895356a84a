"""Media types: what the bytes behind a descriptor are, as the OCI and as Docker name it.

The two families differ in name only, so that everything is read in both; labkit writes OCI. Layers come as they are, as gzip or
as zstd, and the compression is part of the name.

Leaves out: non-distributable ("foreign") layers, whose bytes lie elsewhere; encrypted layers.
See: OCI Image Specification, media-types.md; Docker Image Manifest V2, Schema 2.
"""

from __future__ import annotations

from typing import Literal

__all__ = [
    "CONFIGS",
    "DOCKER_CONFIG",
    "DOCKER_INDEX",
    "DOCKER_LAYER",
    "DOCKER_LAYER_GZIP",
    "DOCKER_MANIFEST",
    "EMPTY",
    "INDEXES",
    "LAYERS",
    "MANIFESTS",
    "OCI_CONFIG",
    "OCI_INDEX",
    "OCI_LAYER",
    "OCI_LAYER_GZIP",
    "OCI_LAYER_ZSTD",
    "OCI_MANIFEST",
    "Compression",
    "compression_of",
    "layer_type",
]

Compression = Literal["none", "gzip", "zstd"]

_OCI = "application/vnd.oci.image"
OCI_INDEX = f"{_OCI}.index.v1+json"
OCI_MANIFEST = f"{_OCI}.manifest.v1+json"
OCI_CONFIG = f"{_OCI}.config.v1+json"
OCI_LAYER = f"{_OCI}.layer.v1.tar"
OCI_LAYER_GZIP = f"{OCI_LAYER}+gzip"
OCI_LAYER_ZSTD = f"{OCI_LAYER}+zstd"
#: The content ``{}``, for what has no configuration (artifacts).
EMPTY = "application/vnd.oci.empty.v1+json"

_DOCKER = "application/vnd.docker"
DOCKER_INDEX = f"{_DOCKER}.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = f"{_DOCKER}.distribution.manifest.v2+json"
DOCKER_CONFIG = f"{_DOCKER}.container.image.v1+json"
DOCKER_LAYER = f"{_DOCKER}.image.rootfs.diff.tar"
DOCKER_LAYER_GZIP = f"{DOCKER_LAYER}.gzip"
_DOCKER_LAYER_ZSTD = f"{DOCKER_LAYER}.zstd"

INDEXES = (OCI_INDEX, DOCKER_INDEX)
MANIFESTS = (OCI_MANIFEST, DOCKER_MANIFEST)
CONFIGS = (OCI_CONFIG, DOCKER_CONFIG)
_COMPRESSION: dict[str, Compression] = {
    OCI_LAYER: "none",
    OCI_LAYER_GZIP: "gzip",
    OCI_LAYER_ZSTD: "zstd",
    DOCKER_LAYER: "none",
    DOCKER_LAYER_GZIP: "gzip",
    _DOCKER_LAYER_ZSTD: "zstd",
}
LAYERS = tuple(_COMPRESSION)


def compression_of(media_type: str) -> Compression | None:
    """Return how a layer of ``media_type`` is compressed; None if that is no layer labkit can read."""
    return _COMPRESSION.get(media_type)


def layer_type(compression: Compression) -> str:
    """Return the OCI media type of a layer with ``compression``."""
    return {"none": OCI_LAYER, "gzip": OCI_LAYER_GZIP, "zstd": OCI_LAYER_ZSTD}[compression]

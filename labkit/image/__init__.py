"""Images: an application with its file tree and its configuration, as bytes that name themselves by their digest.

Read in this order: `reference` (what people write), `descriptor` and `manifest` (what points to what), `config` (how to run it),
`blobs` and `store` (where the bytes lie), `layer`, `pack` and `unpack` (a layer as tar and as a folder), `run` (a container from
an image).

See: OCI Image Specification 1.1, OCI Distribution Specification 1.1.
"""

from __future__ import annotations

import importlib
from typing import Any

_HOME_OF = {
    "Descriptor": "labkit.image.descriptor",
    "Image": "labkit.image.store",
    "ImageConfig": "labkit.image.config",
    "ImageStore": "labkit.image.store",
    "Index": "labkit.image.manifest",
    "Manifest": "labkit.image.manifest",
    "Reference": "labkit.image.reference",
    "default_store": "labkit.image.store",
}

__all__ = [
    "Descriptor",
    "Image",
    "ImageConfig",
    "ImageStore",
    "Index",
    "Manifest",
    "Reference",
    "default_store",
]


def __getattr__(name: str) -> Any:
    """Load a public name on first use: a reference can be read without the store and its compressors."""
    if name not in _HOME_OF:
        raise AttributeError(f"module 'labkit.image' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME_OF[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)

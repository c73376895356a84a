"""Writing a layer: items into a tar archive, into the store.

The same items give the same bytes on every machine: they are written in their order, with numeric owners and no names of users, whole
seconds, and times that are cut off at ``epoch_s`` (SOURCE_DATE_EPOCH). Layers are stored as plain tar: compressors differ
from version to version, and with them the digest; a registry's client may compress on the way.

Leaves out: extended attributes, hard links: what COPY brings has none.
See: OCI Image Specification, layer.md; pax(1); reproducible-builds.org, "SOURCE_DATE_EPOCH".
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from threading import Event

from labkit.image.blobs import CHUNK_BYTES, BlobStore
from labkit.image.build.errors import BuildCancelled, BuildError
from labkit.image.build.items import Item
from labkit.image.layer import Layer, LayerWriter
from labkit.image.tarheader import DIRECTORY, FILE, SYMLINK
from labkit.image.tarwrite import END, header_of, padding

__all__ = ["write_layer"]

_TYPES = {"file": FILE, "folder": DIRECTORY, "link": SYMLINK}


def write_layer(blobs: BlobStore, items: Iterable[Item], *, epoch_s: int, cancel: Event | None = None) -> Layer:
    """Write ``items`` as one layer. Raises: BuildError when a file changes its size meanwhile; BuildCancelled."""
    with LayerWriter(blobs, "none") as writer:
        for item in items:
            if cancel is not None and cancel.is_set():
                raise BuildCancelled("The build was cancelled while files were copied.")
            writer.write(_header(item, epoch_s))
            _write_content(writer, item)
        writer.write(END)
        return writer.commit()


def _header(item: Item, epoch_s: int) -> bytes:
    return header_of(
        _TYPES[item.kind], os.fsencode(item.path), mode=item.mode, uid=item.owner.uid, gid=item.owner.gid,
        size=item.size_bytes if item.kind == "file" else 0, mtime_s=max(0, min(item.mtime_s, epoch_s)),
        link=os.fsencode(item.target),
    )  # fmt: skip


def _write_content(writer: LayerWriter, item: Item) -> None:
    if item.open is None:
        return
    left = item.size_bytes
    with item.open() as file:
        while left and (data := file.read(min(CHUNK_BYTES, left))):
            writer.write(data)
            left -= len(data)
        if left or file.read(1):
            raise BuildError(
                f"/{item.path} changed its size while it was copied: build again when nobody writes to it."
            )
    writer.write(padding(item.size_bytes))

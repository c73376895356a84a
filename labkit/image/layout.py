"""Images in and out of an OCI image layout: a folder that other tools read and write.

Everything is copied blob by blob with its digest and size checked; an index brings its manifests, a manifest its configuration and layers.
An image gets its name in the store only when all of it is there.

Leaves out: writing into a layout that somebody else changes at the same time.
See: OCI Image Specification, image-layout.md.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from labkit.errors import ImageError, InvalidSpec
from labkit.image.blobs import CHUNK_BYTES, BlobStore
from labkit.image.collect import discard, mark
from labkit.image.descriptor import Descriptor
from labkit.image.jsontext import MOST_BYTES, load_object
from labkit.image.manifest import Index, parse_manifest
from labkit.image.names import LAYOUT, REF_NAME
from labkit.image.reference import Reference
from labkit.image.store import Image, ImageStore

__all__ = ["CONTAINERD_NAME", "Loaded", "load_layout", "name_entries", "save_layout", "take_descriptor"]

#: Where containerd writes the whole name; its ref.name has the tag alone.
CONTAINERD_NAME = "io.containerd.image.name"


@dataclass(frozen=True, slots=True)
class Loaded:
    """An image that was loaded: what points to it, and the names that it got (none: it is dangling)."""

    descriptor: Descriptor
    names: tuple[str, ...]


def save_layout(store: ImageStore, images: Sequence[Image], folder: Path) -> None:
    """Write ``images`` as an OCI layout into ``folder``, which must be new or empty. Raises: InvalidSpec, ImageError."""
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise InvalidSpec(f"{folder} is not empty: name a new folder for the layout.")
    target = folder / "blobs" / "sha256"
    target.mkdir(parents=True)
    for digest in sorted(mark(store.blobs, [image.root.digest for image in images]).digests):
        if store.blobs.has(digest):
            (folder / "blobs" / digest.partition(":")[0]).mkdir(exist_ok=True)
            with store.blobs.open(digest) as reader, (folder / "blobs" / digest.replace(":", "/")).open("wb") as file:
                while data := reader.read(CHUNK_BYTES):
                    file.write(data)
    (folder / "index.json").write_bytes(Index(name_entries(images)).to_bytes())
    (folder / "oci-layout").write_bytes(LAYOUT)


def name_entries(images: Iterable[Image]) -> tuple[Descriptor, ...]:
    """Return the entries of an index that lists ``images`` under all their names."""
    return tuple(
        replace(image.root, annotations=dict(image.root.annotations) | ({REF_NAME: name} if name else {}))
        for image in images
        for name in image.references or ("",)
    )


def load_layout(store: ImageStore, folder: Path, *, stem: str = "") -> list[Loaded]:
    """Bring every image of the layout in ``folder`` into the store. Raises: ImageError; what was not complete has no name."""
    _check_layout(folder)
    try:
        index = Index.from_bytes((folder / "index.json").read_bytes()[: MOST_BYTES + 1])
    except OSError as error:
        raise ImageError(f"{folder} is no OCI image layout: {error.strerror} ({error.filename}).") from error
    new: list[str] = []

    def fetch(wanted: Descriptor) -> None:
        _copy(store.blobs, folder, wanted)
        new.append(wanted.digest)

    try:
        with store.lease():
            return [take_descriptor(store, found, fetch, stem=stem or folder.name) for found in index.manifests]
    except ImageError:
        discard(store, new)
        raise


def _check_layout(folder: Path) -> None:
    try:
        version = load_object((folder / "oci-layout").read_bytes()[:4096], "oci-layout").get("imageLayoutVersion", "")
    except OSError as error:
        raise ImageError(f"{folder} is no OCI image layout: it has no file oci-layout.") from error
    if not str(version).startswith("1."):
        raise ImageError(f"{folder} is an OCI image layout of version {json.dumps(version)}; 1.0.0 can be read.")


def _copy(blobs: BlobStore, folder: Path, wanted: Descriptor) -> None:
    path = folder / "blobs" / wanted.digest.replace(":", "/")
    try:
        # A FIFO in place of a blob must not keep us waiting, nor a link lead to a device.
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise ImageError(f"The layout lacks {wanted.digest} ({wanted.media_type}): {error.strerror}.") from error
    with open(fd, "rb", buffering=0) as file, blobs.writer(wanted) as writer:
        while data := file.read(CHUNK_BYTES):
            writer.write(data)
        writer.commit()


def take_descriptor(
    store: ImageStore, found: Descriptor, fetch: Callable[[Descriptor], None], *, stem: str
) -> Loaded:  # fmt: skip
    """Bring what ``found`` leads to into the store by ``fetch``, and give it its names. The caller holds a lease."""
    _take(store.blobs, found, fetch, depth=0)
    names = _names_of(found, stem)
    plain = replace(found, annotations={})
    for name in names:
        store.tag(name, plain)
    if not names:
        store.keep(plain)
    return Loaded(plain, tuple(name.canonical for name in names))


def _take(blobs: BlobStore, wanted: Descriptor, fetch: Callable[[Descriptor], None], *, depth: int) -> None:
    if depth > 3:
        raise ImageError(f"{wanted.digest} is nested too deeply: an index of indexes of indexes.")
    if not blobs.has(wanted.digest):
        fetch(wanted)
    found = parse_manifest(blobs.read(wanted), wanted.media_type)
    if isinstance(found, Index):
        there = 0
        for child in found.manifests:
            try:
                _take(blobs, child, fetch, depth=depth + 1)
                there += 1
            except ImageError:
                # A layout may hold one platform of many; but what is there must be right.
                if blobs.has(child.digest):
                    raise
        if found.manifests and not there:
            raise ImageError(f"The index {wanted.digest} lists {len(found.manifests)} images, none of which is there.")
        return
    for child in found.references:
        if not blobs.has(child.digest):
            fetch(child)


def _names_of(found: Descriptor, stem: str) -> list[Reference]:
    text = found.annotations.get(CONTAINERD_NAME) or found.annotations.get(REF_NAME, "")
    if text and "/" not in text and ":" not in text:
        # The tag alone, as `skopeo copy ... oci:FOLDER:TAG` leaves it: the folder's or file's name stands for the rest.
        text = f"{stem.lower()}:{text}"
    try:
        return [Reference.parse(text)] if text else []
    except InvalidSpec as error:
        raise ImageError(f"The layout gives an image a name that cannot be: {error}") from error

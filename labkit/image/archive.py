"""Images as one file: what ``docker save`` writes and ``docker load`` reads, and the same as an OCI layout in a tar.

Since Docker 25 both are one format: a tar of an OCI layout that also has a ``manifest.json`` for older readers, which names each
image's configuration and layers by their paths. labkit writes that, and reads it and all older ones: layers as ``ID/layer.tar``, some of
them links to others.

The archive is read as a stream, from a pipe too, in whatever order its parts come: every file goes into the store under its digest, and when
the end is reached the lists say which are needed. The rest is removed again.

Leaves out: the format before Docker 1.10 (2016), in which layers had configurations of their own and no manifest.json.
See: docker-save(1); Moby Image Specification v1.2; OCI Image Specification, image-layout.md.
"""

from __future__ import annotations

import json
import posixpath
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import IO, Any

from labkit.errors import ImageError, InvalidSpec
from labkit.image import media_types
from labkit.image import tarheader as tar
from labkit.image.blobs import CHUNK_BYTES
from labkit.image.collect import discard, mark
from labkit.image.commit import store_image
from labkit.image.config import ImageConfig
from labkit.image.descriptor import Descriptor
from labkit.image.jsontext import MOST_BYTES, canonical
from labkit.image.layer import Decompressor, sniff_compression
from labkit.image.layout import Loaded, name_entries, take_descriptor
from labkit.image.manifest import Index, Manifest
from labkit.image.names import LAYOUT
from labkit.image.reference import Reference
from labkit.image.store import Image, ImageStore
from labkit.image.tarstream import Readable, TarReader, filler
from labkit.image.tarwrite import END, header_of, padding

__all__ = ["load_archive", "plain_source", "save_archive"]

_BLOBS = "blobs/"


def save_archive(store: ImageStore, images: Sequence[Image], out: IO[bytes]) -> None:
    """Write ``images`` as one tar to ``out``. Raises: ImageError for a damaged blob."""
    digests = sorted(mark(store.blobs, [image.root.digest for image in images]).digests)
    there = [digest for digest in digests if store.blobs.has(digest)]
    out.write(header_of(tar.DIRECTORY, b"blobs", mode=0o755))
    for algorithm in sorted({digest.partition(":")[0] for digest in there}):
        out.write(header_of(tar.DIRECTORY, f"blobs/{algorithm}".encode(), mode=0o755))
    for digest in there:
        size = store.blobs.size(digest)
        out.write(header_of(tar.FILE, _path_of(digest).encode(), size=size))
        with store.blobs.open(digest) as reader:
            while data := reader.read(CHUNK_BYTES):
                out.write(data)
        out.write(padding(size))
    _write_file(out, "index.json", Index(name_entries(images)).to_bytes())
    _write_file(out, "manifest.json", _manifest_json(images))
    _write_file(out, "oci-layout", LAYOUT)
    out.write(END)


def _path_of(digest: str) -> str:
    return _BLOBS + digest.replace(":", "/")


def _write_file(out: IO[bytes], name: str, data: bytes) -> None:
    out.write(header_of(tar.FILE, name.encode(), size=len(data)) + data + padding(len(data)))


def _manifest_json(images: Sequence[Image]) -> bytes:
    listed = [
        {
            "Config": _path_of(image.manifest.config.digest),
            # Docker's readers want a name and a tag; a digest is no name to them.
            "RepoTags": [Reference.parse(name).familiar for name in image.references if "@" not in name] or None,
            "Layers": [_path_of(layer.digest) for layer in image.manifest.layers],
        }
        for image in images
    ]
    return b"[" + b",".join(canonical(entry) for entry in listed) + b"]"


class _Ahead:
    """A stream of which the first bytes were looked at."""

    def __init__(self, head: bytes, stream: Readable) -> None:
        self._head = head
        self._stream = stream

    def read(self, size: int, /) -> bytes:
        if self._head:
            data, self._head = self._head[:size], self._head[size:]
            return data
        return self._stream.read(size)


def plain_source(stream: Readable) -> Readable:
    """Return ``stream`` decompressed, if its first bytes say that it is compressed."""
    head = b""
    while len(head) < 8 and (data := stream.read(8 - len(head))):
        head += data
    return Decompressor(_Ahead(head, stream), sniff_compression(head))


@dataclass(slots=True)
class _Found:
    """What an archive holds: by path, blobs that are in the store now, small texts, and links to other paths."""

    blobs: dict[str, Descriptor] = field(default_factory=dict)
    texts: dict[str, bytes] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    new: set[str] = field(default_factory=set)

    def blob(self, path: str) -> Descriptor:
        """Return the blob at ``path``, through links. Raises: ImageError if there is none."""
        wanted = posixpath.normpath(path)
        for _ in range(8):
            if wanted in self.blobs:
                return self.blobs[wanted]
            if wanted not in self.links:
                break
            wanted = self.links[wanted]
        raise ImageError(f"The archive lacks {path!r}, which it names as a part of an image.")


def load_archive(store: ImageStore, stream: Readable, *, stem: str = "") -> list[Loaded]:
    """Bring every image of an archive into the store; ``stem`` (the file's name) stands for names that are tags only.

    Raises: ImageError for an archive that is damaged, incomplete or no image; then nothing of it stays.
    """
    found = _Found()
    try:
        with store.lease():
            _read_all(store, stream, found)
            return list(_images_in(store, found, stem))
    finally:
        discard(store, found.new)


def _read_all(store: ImageStore, stream: Readable, found: _Found) -> None:
    reader = TarReader(filler(plain_source(stream)))
    for entry in reader.entries():
        path = posixpath.normpath(entry.name.decode(errors="surrogateescape"))
        if entry.kind in (tar.SYMLINK, tar.HARD_LINK):
            link = entry.link.decode(errors="surrogateescape")
            base = posixpath.dirname(path) if entry.kind == tar.SYMLINK else ""
            found.links[path] = posixpath.normpath(posixpath.join(base, link))
        elif entry.kind == tar.FILE:
            if entry.size <= MOST_BYTES and posixpath.dirname(path) == "" and not path.endswith(".tar"):
                found.texts[path] = b"".join(map(bytes, reader.parts()))
            else:
                found.blobs[path] = _take_blob(store, path, entry, reader, found)
        if len(found.texts) > _MOST_TEXTS:
            raise ImageError(f"The archive has more than {_MOST_TEXTS} files that no image archive has.")


_MOST_TEXTS = 512


def _take_blob(store: ImageStore, path: str, entry: tar.Entry, reader: TarReader, found: _Found) -> Descriptor:
    digest = path.removeprefix(_BLOBS).replace("/", ":", 1) if path.startswith(_BLOBS) else None
    head = b""
    with store.blobs.writer() as writer:
        for part in reader.parts():
            if len(head) < 8:
                head += bytes(part[:8])
            writer.write(part)
        known = digest is not None and store.blobs.has(digest)
        blob = writer.commit(digest)
    if not known:
        found.new.add(blob.digest)
    return replace(blob, media_type=media_types.layer_type(sniff_compression(head[:8])))


def _images_in(store: ImageStore, found: _Found, stem: str) -> Iterator[Loaded]:
    """Yield the images, by the OCI index if there is one: it keeps the digests of manifests; else by manifest.json."""
    if "index.json" in found.texts and "oci-layout" in found.texts:
        index = Index.from_bytes(found.texts["index.json"])
        for descriptor in index.manifests:
            yield take_descriptor(store, descriptor, _missing, stem=stem)
    elif "manifest.json" in found.texts:
        for entry in _docker_list(found.texts["manifest.json"]):
            yield _docker_image(store, found, entry)
    else:
        raise ImageError("This is no archive of images: it has neither manifest.json nor index.json.")


def _missing(wanted: Descriptor) -> None:
    raise ImageError(f"The archive lacks {wanted.digest} ({wanted.media_type}), which its image needs.")


def _docker_list(data: bytes) -> list[dict[str, Any]]:
    try:
        listed = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ImageError(f"The archive's manifest.json is damaged: {error}.") from error
    if not isinstance(listed, list) or not all(isinstance(entry, dict) for entry in listed):
        raise ImageError("The archive's manifest.json is no list of images.")
    return listed


def _docker_image(store: ImageStore, found: _Found, entry: dict[str, Any]) -> Loaded:
    config_path, layer_paths, tags = entry.get("Config"), entry.get("Layers") or [], entry.get("RepoTags") or []
    if not isinstance(config_path, str) or not all(isinstance(text, str) for text in [*layer_paths, *tags]):
        raise ImageError("The archive's manifest.json names no configuration, or layers or names that are no texts.")
    data = _config_bytes(store, found, config_path)
    config = ImageConfig.from_bytes(data)
    layers = [found.blob(path) for path in layer_paths]
    if len(layers) != len(config.diff_ids):
        raise ImageError(f"The archive gives {config_path} {len(layers)} layers instead of {len(config.diff_ids)}.")
    for layer, diff_id in zip(layers, config.diff_ids, strict=True):
        if layer.media_type == media_types.OCI_LAYER and layer.digest != diff_id:
            raise ImageError(f"A layer of {config_path} has the digest {layer.digest} instead of {diff_id}.")
    try:
        names = tuple(Reference.parse(tag) for tag in tags)
    except InvalidSpec as error:
        raise ImageError(f"The archive gives an image a name that cannot be: {error}") from error
    descriptor = store_image(store, config, layers)
    found.new |= {descriptor.digest, Manifest.from_bytes(store.blobs.read(descriptor)).config.digest}
    for name in names:
        store.tag(name, descriptor)
    if not names:
        store.keep(descriptor)
    return Loaded(descriptor, tuple(name.canonical for name in names))


def _config_bytes(store: ImageStore, found: _Found, path: str) -> bytes:
    path = posixpath.normpath(path)
    if path in found.texts:
        return found.texts[path]
    return store.blobs.read(found.blob(path))

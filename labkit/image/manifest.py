"""Manifests: the root of an image, which points to its configuration and its layers; and indexes, which point to manifests.

An image has one manifest a platform; an index lists them. Both are JSON, named by the digest of their bytes, so the very bytes
are kept: written again, even with the same meaning, they would be another image. A document that could be read as a
manifest and as an index is refused, because two readers would see two images.

Leaves out: Docker's schema 1 (signed, without a configuration), which registries stopped giving out.
See: OCI Image Specification, manifest.md and image-index.md; Docker Image Manifest V2, Schema 2.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from labkit.errors import ImageError
from labkit.image import media_types
from labkit.image.descriptor import Descriptor, Platform, digest_of, this_platform
from labkit.image.jsontext import Fields, canonical, load_object

__all__ = ["Index", "Manifest", "choose_platform", "parse_manifest"]

_SCHEMA_1 = "application/vnd.docker.distribution.manifest.v1"


class _Document:
    """What manifests and indexes have in common."""

    __slots__ = ()
    media_type: str
    artifact_type: str
    subject: Descriptor | None
    annotations: Mapping[str, str]
    extra: Mapping[str, Any]
    raw: bytes

    def to_bytes(self) -> bytes:
        """Return the bytes it was read from; of a new or changed one, the canonical ones."""
        # ``raw`` survives dataclasses.replace, so it counts only if it still says the same.
        if self.raw and parse_manifest(self.raw, self.media_type) == self:
            return self.raw
        return canonical(self._document())

    @property
    def descriptor(self) -> Descriptor:
        """What points to it."""
        return Descriptor.of(self.to_bytes(), self.media_type)

    def _document(self) -> dict[str, Any]:
        raise NotImplementedError

    def _common(self) -> dict[str, Any]:
        document: dict[str, Any] = {}
        if self.artifact_type:
            document["artifactType"] = self.artifact_type
        if self.subject is not None:
            document["subject"] = self.subject.to_dict()
        if self.annotations:
            document["annotations"] = dict(self.annotations)
        return document | dict(self.extra)


@dataclass(frozen=True, slots=True)
class Manifest(_Document):
    """One image: its configuration and its layers, lowest first. ``raw`` are the bytes it was read from."""

    config: Descriptor
    layers: tuple[Descriptor, ...]
    media_type: str = media_types.OCI_MANIFEST
    artifact_type: str = ""
    subject: Descriptor | None = None
    annotations: Mapping[str, str] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)
    raw: bytes = field(default=b"", compare=False, repr=False)

    @classmethod
    def from_bytes(cls, data: bytes, media_type: str = "") -> Manifest:
        """Return the manifest in ``data``, which somebody says is of ``media_type``. Raises: ImageError."""
        found = parse_manifest(data, media_type)
        if not isinstance(found, cls):
            raise ImageError("This is an index, which lists images, and not one image's manifest.")
        return found

    @property
    def references(self) -> tuple[Descriptor, ...]:
        """All that this manifest needs to be whole."""
        return (self.config, *self.layers)

    def _document(self) -> dict[str, Any]:
        document: dict[str, Any] = {
            "schemaVersion": 2,
            "mediaType": self.media_type,
            "config": self.config.to_dict(),
            "layers": [layer.to_dict() for layer in self.layers],
        }
        return document | self._common()


@dataclass(frozen=True, slots=True)
class Index(_Document):
    """A list of manifests, one a platform. ``raw`` are the bytes it was read from."""

    manifests: tuple[Descriptor, ...]
    media_type: str = media_types.OCI_INDEX
    artifact_type: str = ""
    subject: Descriptor | None = None
    annotations: Mapping[str, str] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)
    raw: bytes = field(default=b"", compare=False, repr=False)

    @classmethod
    def from_bytes(cls, data: bytes, media_type: str = "") -> Index:
        """Return the index in ``data``, which somebody says is of ``media_type``. Raises: ImageError."""
        found = parse_manifest(data, media_type)
        if not isinstance(found, cls):
            raise ImageError("This is one image's manifest, and not an index, which lists images.")
        return found

    @property
    def references(self) -> tuple[Descriptor, ...]:
        """The manifests it lists; an index stays useful when those of other platforms are not there."""
        return self.manifests

    def _document(self) -> dict[str, Any]:
        document: dict[str, Any] = {
            "schemaVersion": 2,
            "mediaType": self.media_type,
            "manifests": [manifest.to_dict() for manifest in self.manifests],
        }
        return document | self._common()


def parse_manifest(data: bytes, media_type: str = "") -> Manifest | Index:
    """Return what ``data`` is: a manifest or an index.

    ``media_type`` is what its descriptor or its HTTP header says; the document must not say something else.
    Raises: ImageError for anything that is neither, or could be read as both.
    """
    what = f"The manifest {digest_of(data)}"
    fields = Fields(load_object(data, what), what)
    if fields.number("schemaVersion", 0) != 2:
        hint = " (schema 1 is not read any more)" if fields.number("schemaVersion", 0) == 1 else ""
        raise ImageError(f"{what} has no schemaVersion 2{hint}.")
    said = fields.text("mediaType")
    if media_type and said and media_type != said:
        raise ImageError(f"{what} says that it is {said!r}, but was announced as {media_type!r}.")
    manifests, layers, config = fields.objects("manifests"), fields.objects("layers"), fields.mapping("config")
    if manifests is not None and (layers is not None or config):
        raise ImageError(f"{what} could be read as an image and as an index, so it is neither.")
    kind = said or media_type or (media_types.OCI_INDEX if manifests is not None else media_types.OCI_MANIFEST)
    if kind.startswith(_SCHEMA_1):
        raise ImageError(f"{what} is of Docker's schema 1, which is not read any more: push the image again.")
    if kind in media_types.INDEXES and manifests is not None:
        listed = tuple(Descriptor.from_dict(item, f"{what}, entry {n}") for n, item in enumerate(manifests))
        return Index(listed, kind, **_parsed(fields, what), raw=data)
    if kind in media_types.MANIFESTS and manifests is None:
        stacked = tuple(Descriptor.from_dict(item, f"{what}, layer {n}") for n, item in enumerate(layers or ()))
        return Manifest(
            Descriptor.from_dict(config, f"{what}, configuration"), stacked, kind, **_parsed(fields, what), raw=data
        )
    raise ImageError(f"{what} is of type {kind!r}, but its content is not.")


def choose_platform(index: Index, wanted: Platform | None = None) -> Descriptor:
    """Return the manifest for ``wanted`` (default: this machine). Raises: ImageError listing what there is."""
    wanted = wanted or this_platform()
    images = [found for found in index.manifests if found.media_type in (*media_types.MANIFESTS, *media_types.INDEXES)]
    for manifest in images:
        platform = manifest.platform
        if platform is None and len(images) == 1:
            return manifest
        if platform is not None and _suits(platform, wanted):
            return manifest
    there = ", ".join(sorted({str(found.platform or "unknown") for found in images})) or "nothing"
    raise ImageError(f"The image is not there for {wanted}, only for {there}.")


def _suits(platform: Platform, wanted: Platform) -> bool:
    if (platform.os, platform.architecture) != (wanted.os, wanted.architecture):
        return False
    return not wanted.variant or not platform.variant or platform.variant == wanted.variant


def _parsed(fields: Fields, what: str) -> dict[str, Any]:
    subject = fields.mapping("subject")
    common = {
        "artifact_type": fields.text("artifactType"),
        "subject": Descriptor.from_dict(subject, f"{what}, subject") if subject else None,
        "annotations": fields.text_mapping("annotations"),
    }
    return common | {"extra": fields.rest()}

"""Descriptors: how one piece of content points to another, by media type, digest and size.

A digest is an algorithm and the hash of the bytes, ``sha256:`` and 64 hexadecimal digits. Whoever has a digest can check what anybody
gives for it; whoever has a descriptor also knows how many bytes to expect, and need not read an endless answer to its end.

Leaves out: other hash algorithms than SHA-256 and SHA-512, which the specification registers.
See: OCI Image Specification, descriptor.md.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from labkit.errors import ImageError
from labkit.image.jsontext import Fields

__all__ = [
    "LARGEST_BYTES",
    "Descriptor",
    "Platform",
    "check_digest",
    "digest_of",
    "hex_of",
    "is_digest",
    "new_hash",
    "short_id",
    "this_platform",
]

#: Larger sizes are lies: the kernel counts a file's bytes in 63 bits.
LARGEST_BYTES = 2**63 - 1
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}")
_MEDIA_TYPE = re.compile(r"[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}/[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}(?:;.*)?")
_GO_MACHINES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386", "ppc64le": "ppc64le"}


def is_digest(text: str) -> bool:
    """Say whether ``text`` is a digest that labkit can check."""
    return _DIGEST.fullmatch(text) is not None


def check_digest(text: str, what: str = "This") -> str:
    """Return ``text`` if it is a digest. Raises: ImageError."""
    if not isinstance(text, str) or not is_digest(text):
        raise ImageError(f"{what} has the digest {text!r}: sha256: and 64 hexadecimal digits are expected.")
    return text


def digest_of(data: bytes) -> str:
    """Return the SHA-256 digest of ``data``."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def new_hash(digest: str) -> hashlib._Hash:
    """Return an empty hash of the algorithm that ``digest`` names."""
    return hashlib.new(digest.partition(":")[0])


def hex_of(digest: str) -> str:
    """Return the hexadecimal part, which is also the name of the blob's file."""
    return digest.partition(":")[2]


def short_id(digest: str) -> str:
    """Return the twelve digits by which people call an image."""
    return hex_of(digest)[:12]


@dataclass(frozen=True, slots=True)
class Platform:
    """For which machine an image is, in Go's words: ``amd64``, ``linux``, and a variant such as ``v8``."""

    architecture: str
    os: str = "linux"
    variant: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return the platform as JSON has it."""
        variant = {"variant": self.variant} if self.variant else {}
        return {"architecture": self.architecture, "os": self.os} | variant

    def __str__(self) -> str:
        return "/".join(filter(None, (self.os, self.architecture, self.variant)))


def this_platform() -> Platform:
    """Return the platform of the running Linux."""
    machine = os.uname().machine
    return Platform(_GO_MACHINES.get(machine, machine))


@dataclass(frozen=True, slots=True)
class Descriptor:
    """A pointer to content: what it is, its digest, its size in bytes, and what its pointer says about it."""

    media_type: str
    digest: str
    size: int
    annotations: Mapping[str, str] = field(default_factory=dict)
    platform: Platform | None = None
    artifact_type: str = ""
    data: bytes | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    def __hash__(self) -> int:
        return hash((self.media_type, self.digest, self.size))

    @classmethod
    def of(cls, data: bytes, media_type: str) -> Descriptor:
        """Return the descriptor of ``data``."""
        return cls(media_type, digest_of(data), len(data))

    @classmethod
    def from_dict(cls, document: Mapping[str, Any], what: str = "A descriptor") -> Descriptor:
        """Return the descriptor that JSON holds. Raises: ImageError for a missing or impossible field."""
        fields = Fields(document, what)
        media_type, digest, size = fields.text("mediaType"), fields.text("digest"), fields.number("size")
        if not _MEDIA_TYPE.fullmatch(media_type):
            raise ImageError(f"{what} has no valid media type, but {media_type!r}.")
        if not 0 <= size <= LARGEST_BYTES:
            raise ImageError(f"{what} has the size {size}, which no content can have.")
        platform = fields.mapping("platform")
        data = fields.text("data")
        return cls(
            media_type, check_digest(digest, what), size,
            annotations=fields.text_mapping("annotations"),
            platform=_platform(platform, what) if platform else None,
            artifact_type=fields.text("artifactType"),
            data=_decode(data, what) if data else None,
            extra=fields.rest(),
        )  # fmt: skip

    def to_dict(self) -> dict[str, Any]:
        """Return the descriptor as JSON has it."""
        document: dict[str, Any] = {"mediaType": self.media_type, "digest": self.digest, "size": self.size}
        if self.annotations:
            document["annotations"] = dict(self.annotations)
        if self.platform is not None:
            document["platform"] = self.platform.to_dict()
        if self.artifact_type:
            document["artifactType"] = self.artifact_type
        if self.data is not None:
            document["data"] = base64.b64encode(self.data).decode()
        return document | dict(self.extra)

    def check(self, data: bytes, what: str = "The content") -> bytes:
        """Return ``data`` if it is what this descriptor points to. Raises: ImageError."""
        if len(data) != self.size:
            raise ImageError(f"{what} of {self.digest} has {len(data)} bytes instead of {self.size}.")
        if f"{self.digest.partition(':')[0]}:{_hash(self.digest, data)}" != self.digest:
            raise ImageError(f"{what} of {self.digest} has other bytes than that: its digest is {digest_of(data)}.")
        return data

    def __str__(self) -> str:
        return f"{self.digest} ({self.media_type}, {self.size} bytes)"


def _hash(digest: str, data: bytes) -> str:
    found = new_hash(digest)
    found.update(data)
    return found.hexdigest()


def _platform(document: Mapping[str, Any], what: str) -> Platform:
    fields = Fields(document, f"{what}: its platform")
    return Platform(fields.text("architecture"), fields.text("os", "linux"), fields.text("variant"))


def _decode(text: str, what: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ImageError(f"{what} carries data that is no base64 text: {error}.") from error

"""A registry's client in the raw: one HTTP request at a time over `http.client`, and content made for the purpose.

It shares nothing with labkit's own client, so that the server is judged by the specification alone.
"""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

__all__ = [
    "INDEX",
    "MANIFEST",
    "Got",
    "Wire",
    "blob",
    "config",
    "descriptor",
    "digest_of",
    "image",
    "index_of",
    "manifest_of",
]

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
OCTETS = {"Content-Type": "application/octet-stream"}


@dataclass(frozen=True)
class Got:
    """An answer, read to its end."""

    status: int
    headers: Any
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """The first error's code; the body must be the specification's form of errors."""
        errors = self.json["errors"]
        assert errors
        assert all(isinstance(error["message"], str) for error in errors)
        return errors[0]["code"]


@dataclass
class Wire:
    """Speaks to the registry at ``address``; ``user`` is NAME:PASSWORD."""

    address: str
    user: str = ""
    headers: dict[str, str] = field(default_factory=dict)

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | Iterator[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
        **query: Any,
    ) -> Got:
        """Send one request on a connection of its own."""
        if query:
            path += ("&" if "?" in path else "?") + urlencode(query, doseq=True)
        sent = {"Connection": "close"} | self.headers | dict(headers or {})
        if self.user:
            sent["Authorization"] = f"Basic {base64.b64encode(self.user.encode()).decode()}"
        connection = http.client.HTTPConnection(self.address, timeout=20)
        try:
            connection.request(method, path, body, sent)
            with connection.sock.dup() as same:
                response = connection.getresponse()
                got = Got(response.status, response.headers, response.read())
                # The server's end is closed by then: no test ends while a thread of it is still at work.
                same.settimeout(20)
                while same.recv(65536):
                    pass
            return got
        finally:
            connection.close()

    def begin(self, name: str) -> Got:
        """Begin an upload."""
        got = self.ask("POST", f"/v2/{name}/blobs/uploads/", headers={"Content-Length": "0"})
        assert got.status == 202
        assert got.headers["Location"]
        return got

    def push(self, name: str, data: bytes, algorithm: str = "sha256") -> str:
        """Push a blob in one go; return its digest."""
        digest = digest_of(data, algorithm)
        got = self.ask("PUT", self.begin(name).headers["Location"], data, OCTETS, digest=digest)
        assert got.status == 201, got.body
        return digest

    def put(self, name: str, reference: str, manifest: bytes, kind: str = MANIFEST, **query: Any) -> Got:
        """Push a manifest."""
        return self.ask("PUT", f"/v2/{name}/manifests/{reference}", manifest, {"Content-Type": kind}, **query)

    def push_image(self, name: str, reference: str, data: bytes | None = None) -> tuple[bytes, str]:
        """Push a small image; return its manifest and the manifest's digest."""
        layer = blob() if data is None else data
        manifest, blobs = image(layer)
        for content in blobs:
            self.push(name, content)
        got = self.put(name, reference, manifest)
        assert got.status == 201, got.body
        return manifest, digest_of(manifest)


def blob(size: int = 512) -> bytes:
    """Return content that nothing else has."""
    return os.urandom(size)


def digest_of(data: bytes, algorithm: str = "sha256") -> str:
    return f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}"


def descriptor(content: bytes, kind: str, algorithm: str = "sha256", **more: Any) -> dict[str, Any]:
    return {"mediaType": kind, "digest": digest_of(content, algorithm), "size": len(content), **more}


def config(*layers: bytes, architecture: str = "amd64") -> bytes:
    """Return an image's configuration over uncompressed ``layers``."""
    ids = [digest_of(layer) for layer in layers]
    document = {"architecture": architecture, "os": "linux", "rootfs": {"type": "layers", "diff_ids": ids}}
    return json.dumps(document).encode()


def manifest_of(
    configuration: bytes, *layers: bytes, kind: str = CONFIG, algorithm: str = "sha256", **more: Any
) -> bytes:
    """Return a manifest over a configuration and layers."""
    document = {
        "schemaVersion": 2, "mediaType": MANIFEST, "config": descriptor(configuration, kind, algorithm),
        "layers": [descriptor(layer, LAYER, algorithm) for layer in layers],
    }  # fmt: skip
    return json.dumps(document | more).encode()


def image(*layers: bytes, **more: Any) -> tuple[bytes, tuple[bytes, ...]]:
    """Return an image's manifest and its blobs."""
    configuration = config(*layers)
    return manifest_of(configuration, *layers, **more), (configuration, *layers)


def index_of(*manifests: bytes, algorithm: str = "sha256", **more: Any) -> bytes:
    """Return an index over manifests."""
    listed = [descriptor(manifest, MANIFEST, algorithm) for manifest in manifests]
    return json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": listed, **more}).encode()

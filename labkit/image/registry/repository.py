"""One repository of a registry as its clients see it: manifests by tag or digest, blobs, lists; each call is one end point.

What comes is checked against the digest or the descriptor it was asked for by. Where a registry is older than the specification's
version 1.1 and keeps no list of referrers, the client keeps one, as an index under a tag made from the subject's digest.

Leaves out: uploads, which are `labkit.image.registry.upload`.
See: OCI Distribution Specification, "Endpoints" and "Unavailable Referrers API".
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from urllib.parse import quote, urlencode

from labkit.errors import ImageError
from labkit.image import media_types
from labkit.image.descriptor import Descriptor, digest_of, new_hash
from labkit.image.jsontext import MOST_BYTES
from labkit.image.manifest import Index, Manifest, parse_manifest
from labkit.image.registry.auth import scope_of
from labkit.image.registry.client import MOST_ERROR_BYTES, RegistryClient
from labkit.image.registry.failures import RegistryError
from labkit.image.registry.transport import Response

__all__ = ["Repository"]

_ACCEPT = ", ".join((*media_types.INDEXES, *media_types.MANIFESTS))


class Repository:
    """One repository of a registry. Digests and sizes of what it gives are checked."""

    def __init__(self, client: RegistryClient, name: str) -> None:
        self.client, self.name = client, name

    def manifest(self, reference: str, expected: Descriptor | None = None) -> Manifest | Index:
        """Return the manifest under a tag or a digest; ``expected`` is what an index says about it.

        Raises: RegistryError if there is none; ImageError if it is not what its digest, size or type says.
        """
        what = f"{self._full}{_mark(reference)}"
        with self._ask("GET", f"manifests/{reference}", what=what, headers={"Accept": _ACCEPT}) as response:
            data = response.read_all(MOST_BYTES)
        kind = response.headers.get("Content-Type", "").partition(";")[0].strip()
        if ":" in reference:
            _check_digest(data, reference, what)
        elif (said := response.headers.get("Docker-Content-Digest", "")) and said.startswith("sha256:"):
            _check_digest(data, said, what)
        if expected is not None:
            expected.check(data, f"The manifest {what}")
            kind = expected.media_type
        return parse_manifest(data, kind if kind in (*media_types.INDEXES, *media_types.MANIFESTS) else "")

    def find_manifest(self, reference: str) -> Descriptor | None:
        """Return the descriptor of a manifest, as far as the headers tell; None if there is none."""
        headers = {"Accept": _ACCEPT}
        with self._ask(
            "HEAD", f"manifests/{reference}", what=self._full, headers=headers, expect=(200, 404)
        ) as response:
            if response.status == 404:
                return None
            fields = response.headers
        kind = fields.get("Content-Type", "").partition(";")[0].strip()
        return Descriptor(kind, fields.get("Docker-Content-Digest", ""), int(fields.get("Content-Length", "0")))

    def put_manifest(self, reference: str, manifest: Manifest | Index) -> None:
        """Push a manifest under a tag or a digest, and note its subject where the registry does not do so itself."""
        data = manifest.to_bytes()
        with self._ask(
            "PUT", f"manifests/{reference}", what=f"{self._full}{_mark(reference)}", write=True, body=data,
            headers={"Content-Type": manifest.media_type}, expect=(201, 202),
        ) as response:  # fmt: skip
            response.read_all(MOST_ERROR_BYTES)
            noted = response.headers.get("OCI-Subject", "")
        if manifest.subject is not None and not noted:
            self._note_referrer(manifest.subject.digest, manifest)

    def delete_manifest(self, reference: str) -> None:
        """Delete a tag, or a manifest by its digest. Raises: RegistryError if there is none or deletion is not allowed."""
        self._delete(f"manifests/{reference}", f"Deletion of {self._full}{_mark(reference)}")

    def delete_blob(self, digest: str) -> None:
        """Delete a blob. Raises: RegistryError if there is none or deletion is not allowed."""
        self._delete(f"blobs/{digest}", f"Deletion of {digest}")

    def has_blob(self, descriptor: Descriptor) -> bool:
        """Ask whether the repository has the blob."""
        with self._ask(
            "HEAD", f"blobs/{descriptor.digest}", what=self._full, write=True, expect=(200, 404)
        ) as response:
            return response.status == 200

    def open_blob(self, descriptor: Descriptor, *, offset: int = 0) -> Response:
        """Return the answer with a blob's bytes from ``offset`` on, if the registry knows parts (206), or all of them (200)."""
        headers = {"Range": f"bytes={offset}-{descriptor.size - 1}"} if offset else {}
        what = f"The blob {descriptor.digest} of {self._full}"
        return self._ask("GET", f"blobs/{descriptor.digest}", what=what, headers=headers, expect=(200, 206))

    def tags(self) -> Iterator[str]:
        """Yield the repository's tags."""
        what = f"The list of tags of {self._full}"
        for page in self.client.pages(f"/v2/{self.name}/tags/list", what=what, scope=scope_of(self.name, "pull")):
            yield from page.texts("tags") or ()

    def referrers(self, digest: str, *, artifact_type: str = "") -> list[Descriptor]:
        """Return what has the manifest ``digest`` for its subject; asks the old way, by a tag, where there is no list."""
        what = f"The list of referrers to {digest} in {self._full}"
        query = f"?{urlencode({'artifactType': artifact_type})}" if artifact_type else ""
        found: list[Descriptor] = []
        try:
            target = f"/v2/{self.name}/referrers/{digest}{query}"
            for page in self.client.pages(target, what=what, scope=scope_of(self.name, "pull")):
                found += [Descriptor.from_dict(item, what) for item in page.objects("manifests") or ()]
        except RegistryError as error:
            if error.status != 404:
                raise
            found = list(self._tagged_referrers(digest).manifests)
        return [item for item in found if artifact_type in ("", item.artifact_type)]

    def _tagged_referrers(self, digest: str) -> Index:
        try:
            found = self.manifest(_referrers_tag(digest))
        except RegistryError as error:
            if error.status != 404:
                raise
            return Index(())
        if not isinstance(found, Index):
            raise ImageError(
                f"The tag {_referrers_tag(digest)} of {self._full} should list referrers, but is an image."
            )
        return found

    def _note_referrer(self, subject: str, manifest: Manifest | Index) -> None:
        """Add ``manifest`` to the index under the tag that stands for its subject."""
        listed = self._tagged_referrers(subject)
        kind = manifest.artifact_type or (manifest.config.media_type if isinstance(manifest, Manifest) else "")
        data = manifest.to_bytes()
        new = Descriptor(
            manifest.media_type, digest_of(data), len(data), annotations=manifest.annotations, artifact_type=kind
        )
        if new.digest not in [item.digest for item in listed.manifests]:
            self.put_manifest(_referrers_tag(subject), Index((*listed.manifests, new)))

    def _delete(self, path: str, what: str) -> None:
        scope = scope_of(self.name, "pull", "delete")
        target = f"/v2/{self.name}/{path}"
        with self.client.request("DELETE", target, what=what, scope=scope, expect=(200, 202, 204)) as response:
            response.read_all(MOST_ERROR_BYTES)

    def _ask(
        self,
        method: str,
        path: str,
        *,
        what: str,
        write: bool = False,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        expect: Sequence[int] = (200,),
    ) -> Response:
        scope = scope_of(self.name, "pull", "push") if write else scope_of(self.name, "pull")
        target = f"/v2/{self.name}/{quote(path, safe='/:')}"
        return self.client.request(method, target, what=what, scope=scope, headers=headers, body=body, expect=expect)

    @property
    def _full(self) -> str:
        return f"{self.client.registry}/{self.name}"


def _mark(reference: str) -> str:
    return f"@{reference}" if ":" in reference else f":{reference}"


def _referrers_tag(digest: str) -> str:
    algorithm, _, letters = digest.partition(":")
    return re.sub(r"[^A-Za-z0-9._-]", "-", f"{algorithm[:32]}-{letters[:64]}")


def _check_digest(data: bytes, digest: str, what: str) -> None:
    found = new_hash(digest)
    found.update(data)
    if f"{found.name}:{found.hexdigest()}" != digest:
        raise ImageError(f"{what} came with other bytes: they have the digest {found.name}:{found.hexdigest()}.")

"""Manifests over HTTP: by digest or by tag; what refers to what; and the lists of tags, referrers and repositories.

A manifest is kept byte for byte, because its digest is its name. Before it is taken its parts must be there: a repository never has an
image with a hole. Two things are let through, as the specification wants it: a subject that does not exist (yet), and layers that are kept
elsewhere ("non-distributable").

Leaves out: answers in another media type than the one that was pushed (``Accept`` is not looked at).
See: OCI Distribution Specification, "Pushing manifests", "Listing Tags", "Listing Referrers"; RFC 8288 (Link).
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from email.message import Message
from http import HTTPStatus
from urllib.parse import urlencode

from labkit.errors import ImageError
from labkit.image import media_types
from labkit.image.blobs import BlobStore
from labkit.image.descriptor import Descriptor, is_digest, new_hash
from labkit.image.jsontext import MOST_BYTES
from labkit.image.manifest import Index, Manifest, parse_manifest
from labkit.image.reference import is_tag
from labkit.image.registry.server.answers import Answer, FilePart, Refusal, json_answer
from labkit.image.registry.server.blob_routes import collect
from labkit.image.registry.server.bodies import Body
from labkit.image.registry.server.repositories import ManifestEntry, Repositories

__all__ = ["ManifestRoutes"]

Query = Mapping[str, Sequence[str]]
_MOST_TAGS = 32
_MOST_LISTED = 1000


class ManifestRoutes:
    """What can be asked for below ``/v2/NAME/manifests/``, ``/tags/``, ``/referrers/``, and the catalog."""

    def __init__(self, blobs: BlobStore, repositories: Repositories) -> None:
        self._blobs, self._repositories = blobs, repositories
        # 4 MiB of brackets are 100 MiB of lists.
        self._parsing = threading.BoundedSemaphore(2)

    def get(self, name: str, reference: str, headers: Message) -> Answer:
        """Answer GET and HEAD of a manifest. Raises: Refusal with 404."""
        entry = self._find(name, reference)
        about = {
            "Content-Type": entry.media_type,
            "Docker-Content-Digest": entry.digest,
            "ETag": f'"{entry.digest}"',
        }
        if headers.get("If-None-Match", "").strip() in (f'"{entry.digest}"', f'W/"{entry.digest}"'):
            return Answer(HTTPStatus.NOT_MODIFIED, about)
        return Answer(HTTPStatus.OK, about, FilePart(self._blobs.path(entry.digest), 0, self._blobs.size(entry.digest)))

    def put(self, name: str, reference: str, query: Query, body: Body, headers: Message) -> Answer:
        """Take a manifest under a digest or a tag. Raises: Refusal with 400 for what is wrong with it, 413 for its size."""
        tags = list(query.get("tag", ())) if ":" in reference else [reference]
        if not all(is_tag(tag) for tag in tags) or len(tags) > _MOST_TAGS:
            raise Refusal("MANIFEST_INVALID", f"{', '.join(tags)[:200]!r} cannot be tags")
        data = body.read_all(MOST_BYTES)
        digest = _digest_for(reference, data)
        try:
            with self._parsing:
                manifest = parse_manifest(data, headers.get("Content-Type", "").partition(";")[0].strip())
        except ImageError as error:
            raise Refusal("MANIFEST_INVALID", str(error)) from error
        subject = manifest.subject.digest if manifest.subject else ""
        with self._repositories.adding():
            self._check_parts(name, manifest)
            with self._blobs.writer(Descriptor(manifest.media_type, digest, len(data))) as writer:
                writer.write(data)
                writer.commit()
            self._repositories.add_manifest(name, ManifestEntry(digest, manifest.media_type, subject))
            for tag in tags:
                self._repositories.set_tag(name, tag, digest)
        place = {"Location": f"/v2/{name}/manifests/{digest}", "Docker-Content-Digest": digest}
        place |= {"OCI-Subject": subject} if subject else {}
        place |= {"OCI-Tag": ", ".join(tags)} if "tag" in query else {}
        return Answer(HTTPStatus.CREATED, place)

    def delete(self, name: str, reference: str) -> Answer:
        """Remove a tag, or a manifest with all its tags. Raises: Refusal with 404."""
        if ":" not in reference:
            if not is_tag(reference) or not self._repositories.remove_tag(name, reference):
                raise self._unknown(name, reference)
            return Answer(HTTPStatus.ACCEPTED)
        if not is_digest(reference) or not self._repositories.remove_manifest(name, reference):
            raise self._unknown(name, reference)
        collect(self._blobs, self._repositories, reference)
        return Answer(HTTPStatus.ACCEPTED)

    def tags(self, name: str, query: Query) -> Answer:
        """List the tags of a repository. Raises: Refusal with 404 if there is no such repository."""
        if not self._repositories.exists(name):
            raise Refusal("NAME_UNKNOWN", f"there is no repository {name}", detail={"name": name})
        part, headers = _page(self._repositories.tags(name), query, f"/v2/{name}/tags/list")
        return json_answer({"name": name, "tags": part}, headers=headers)

    def catalog(self, query: Query) -> Answer:
        """List the repositories."""
        names = [name for name in self._repositories.names() if self._repositories.has_manifests(name)]
        part, headers = _page(names, query, "/v2/_catalog")
        return json_answer({"repositories": part}, headers=headers)

    def referrers(self, name: str, digest: str, query: Query) -> Answer:
        """List what has the manifest ``digest`` for its subject; an empty list if nothing has. Raises: Refusal with 400."""
        if not is_digest(digest):
            raise Refusal("DIGEST_INVALID", f"{digest[:200]!r} is no digest")
        wanted, last = (query.get(key, [""])[0] for key in ("artifactType", "last"))
        listed: list[dict[str, object]] = []
        size, link = 0, ""
        for found in self._repositories.referrers(name, digest):
            descriptor = self._describe(name, found) if found > last else None
            if descriptor is None or (wanted and descriptor.artifact_type != wanted):
                continue
            size += 200 + sum(len(key) + len(value) for key, value in descriptor.annotations.items())
            if listed and size > MOST_BYTES // 2:
                # The answer is an index, and no client needs to take one of more than 4 MiB.
                more = {"last": str(listed[-1]["digest"])} | ({"artifactType": wanted} if wanted else {})
                link = f'</v2/{name}/referrers/{digest}?{urlencode(more)}>; rel="next"'
                break
            listed.append(descriptor.to_dict())
        headers = ({"Link": link} if link else {}) | ({"OCI-Filters-Applied": "artifactType"} if wanted else {})
        index = {"schemaVersion": 2, "mediaType": media_types.OCI_INDEX, "manifests": listed}
        return json_answer(index, kind=media_types.OCI_INDEX, headers=headers)

    def _describe(self, name: str, digest: str) -> Descriptor | None:
        entry = self._repositories.manifest(name, digest)
        if entry is None:
            return None  # deleted meanwhile
        size = self._blobs.size(digest)
        found = parse_manifest(self._blobs.read(Descriptor(entry.media_type, digest, size)), entry.media_type)
        kind = found.artifact_type or (found.config.media_type if isinstance(found, Manifest) else "")
        return Descriptor(entry.media_type, digest, size, annotations=found.annotations, artifact_type=kind)

    def _find(self, name: str, reference: str) -> ManifestEntry:
        digest: str | None = reference
        if ":" not in reference:
            digest = self._repositories.tagged(name, reference) if is_tag(reference) else None
        entry = self._repositories.manifest(name, digest) if digest and is_digest(digest) else None
        if entry is None or not self._blobs.has(entry.digest):
            raise self._unknown(name, reference)
        return entry

    def _unknown(self, name: str, reference: str) -> Refusal:
        if not self._repositories.exists(name):
            return Refusal("NAME_UNKNOWN", f"there is no repository {name}", detail={"name": name})
        detail = {"name": name, "reference": reference[:200]}
        return Refusal("MANIFEST_UNKNOWN", f"the repository {name} has no manifest {reference[:200]}", detail=detail)

    def _check_parts(self, name: str, manifest: Manifest | Index) -> None:
        if isinstance(manifest, Index):
            missing = [d.digest for d in manifest.manifests if self._repositories.manifest(name, d.digest) is None]
        else:
            parts = [part for part in manifest.references if not _is_elsewhere(part)]
            missing = [part.digest for part in parts if not self._repositories.has_blob(name, part.digest)]
        if missing:
            message = f"the repository {name} has no {missing[0]}: push the parts of an image before its manifest"
            raise Refusal("MANIFEST_BLOB_UNKNOWN", message, detail={"digest": missing[0]})


def _digest_for(reference: str, data: bytes) -> str:
    """Return the digest of ``data``, which must be ``reference`` unless that is a tag. Raises: Refusal if it is another."""
    if ":" in reference and not is_digest(reference):
        raise Refusal("DIGEST_INVALID", f"{reference[:200]!r} is no digest")
    found = new_hash(reference if ":" in reference else "sha256:")
    found.update(data)
    digest = f"{found.name}:{found.hexdigest()}"
    if ":" in reference and digest != reference:
        raise Refusal("DIGEST_INVALID", f"the manifest has the digest {digest}, not {reference}")
    return digest


def _is_elsewhere(part: Descriptor) -> bool:
    return "nondistributable" in part.media_type or ".foreign." in part.media_type


def _page(items: Sequence[str], query: Query, path: str) -> tuple[list[str], dict[str, str]]:
    """Return the part of the sorted ``items`` that ``n`` and ``last`` ask for, and the link to the next part."""
    count_text, last = (query.get(key, [""])[0] for key in ("n", "last"))
    if count_text and not (count_text.isascii() and count_text.isdigit() and len(count_text) < 10):
        raise Refusal("UNSUPPORTED", f"n={count_text[:32]!r} is no number", status=HTTPStatus.BAD_REQUEST)
    left = [item for item in items if item > last] if last else list(items)
    count = min(int(count_text), _MOST_LISTED) if count_text else len(left)
    part = left[:count]
    if not part or len(part) == len(left):
        return part, {}
    return part, {"Link": f'<{path}?{urlencode({"n": count, "last": part[-1]})}>; rel="next"'}

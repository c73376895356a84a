"""Blobs over HTTP: fetch them whole or in part, ask for them, delete them; push them in one go, in parts, or by mounting.

A blob is in a repository or it is not, whatever other repositories of the same registry have: the bytes lie once, the right to them is
looked up by name. Mounting makes use of that: it notes that the bytes are in one more repository, and none travels.

Leaves out: several ranges in one answer (the whole blob is sent instead, as HTTP allows).
See: OCI Distribution Specification, "Pulling blobs", "Pushing blobs", "Deleting blobs"; RFC 9110 section 14 (ranges).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from email.message import Message
from http import HTTPStatus

from labkit.image.blobs import BlobStore
from labkit.image.descriptor import is_digest
from labkit.image.registry.server.answers import Answer, FilePart, Refusal
from labkit.image.registry.server.bodies import Body
from labkit.image.registry.server.repositories import Repositories
from labkit.image.registry.server.uploads import Upload, Uploads, place_headers

__all__ = ["BlobRoutes", "collect", "parse_range"]

Query = Mapping[str, Sequence[str]]
_RANGE = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})")


def parse_range(text: str, size: int) -> tuple[int, int] | None:
    """Return offset and length of the part that the header ``Range`` asks for; None if it asks for no part that can be told.

    Raises: Refusal with 416 for a part that a blob of ``size`` bytes does not have.
    """
    match = _RANGE.fullmatch(text.replace(" ", ""))
    if match is None or match.groups() == ("", ""):
        return None
    first_text, last_text = match.groups()
    if first_text:
        first, last = int(first_text), min(int(last_text or size - 1), size - 1)
    else:
        first, last = max(0, size - int(last_text)), size - 1
    if first > last:
        raise Refusal(
            "SIZE_INVALID", f"the blob has {size} bytes, and not those of {text}",
            status=HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, headers={"Content-Range": f"bytes */{size}"},
        )  # fmt: skip
    return first, last - first + 1


class BlobRoutes:
    """What can be asked for below ``/v2/NAME/blobs/``. ``may_read`` says whether the caller may read a repository to mount from."""

    def __init__(
        self, blobs: BlobStore, repositories: Repositories, uploads: Uploads, *, chunk_min_bytes: int = 0
    ) -> None:
        self._blobs, self._repositories, self._uploads = blobs, repositories, uploads
        self._chunk_min_bytes = chunk_min_bytes

    def get(self, name: str, digest: str, headers: Message) -> Answer:
        """Answer GET and HEAD of a blob: 200, 206 for a part, 304 for who has it already. Raises: Refusal with 404 or 416."""
        if not is_digest(digest) or not self._repositories.has_blob(name, digest) or not self._blobs.has(digest):
            raise _unknown(name, digest)
        size = self._blobs.size(digest)
        about = {
            "Content-Type": "application/octet-stream",
            "Docker-Content-Digest": digest,
            "ETag": f'"{digest}"',
            "Accept-Ranges": "bytes",
            "Cache-Control": "max-age=31536000, immutable",
        }
        if headers.get("If-None-Match", "").strip() in (f'"{digest}"', f'W/"{digest}"'):
            return Answer(HTTPStatus.NOT_MODIFIED, about | {"Content-Length": str(size)})
        part = None
        if headers.get("If-Range", f'"{digest}"').strip() == f'"{digest}"':
            part = parse_range(headers.get("Range", ""), size)
        path = self._blobs.path(digest)
        if part is None:
            return Answer(HTTPStatus.OK, about, FilePart(path, 0, size))
        about["Content-Range"] = f"bytes {part[0]}-{sum(part) - 1}/{size}"
        return Answer(HTTPStatus.PARTIAL_CONTENT, about, FilePart(path, *part))

    def delete(self, name: str, digest: str) -> Answer:
        """Take a blob from the repository, and from the store once no repository has it. Raises: Refusal with 404."""
        if not is_digest(digest) or not self._repositories.remove_blob(name, digest):
            raise _unknown(name, digest)
        collect(self._blobs, self._repositories, digest)
        return Answer(HTTPStatus.ACCEPTED)

    def start(self, name: str, query: Query, body: Body, *, may_read: Callable[[str], bool]) -> Answer:
        """Answer POST: mount a blob, take one that comes with the request, or begin an upload."""
        mount, digest = (query.get(key, [""])[0] for key in ("mount", "digest"))
        if mount and self._mount(name, mount, query.get("from", [""])[0], may_read=may_read):
            return _created(name, mount)
        if digest:
            return self._take_whole(name, digest, body)
        headers = place_headers(self._uploads.start(name))
        if self._chunk_min_bytes:
            headers["OCI-Chunk-Min-Length"] = str(self._chunk_min_bytes)
        return Answer(HTTPStatus.ACCEPTED, headers)

    def status(self, name: str, upload_id: str) -> Answer:
        """Answer GET of an upload: how far it is."""
        return Answer(HTTPStatus.NO_CONTENT, place_headers(self._uploads.find(name, upload_id)))

    def patch(self, name: str, upload_id: str, body: Body, headers: Message) -> Answer:
        """Answer PATCH: take the next part. Raises: Refusal with 416 out of order."""
        upload = self._uploads.find(name, upload_id)
        with self._uploads.alone(upload):
            self._uploads.append(upload, body, headers.get("Content-Range", ""))
            return Answer(HTTPStatus.ACCEPTED, place_headers(upload))

    def put(self, name: str, upload_id: str, query: Query, body: Body, headers: Message) -> Answer:
        """Answer PUT: take the last part if there is one, and close the upload. Raises: Refusal with 400 for a wrong digest."""
        upload = self._uploads.find(name, upload_id)
        digest = query.get("digest", [""])[0]
        with self._uploads.alone(upload):
            if not is_digest(digest):
                raise Refusal("DIGEST_INVALID", f"{digest[:200]!r} is no digest; give digest=ALGORITHM:HEX")
            if not body.finished:
                self._uploads.append(upload, body, headers.get("Content-Range", ""))
            self._finish(upload, digest)
        return _created(name, digest)

    def cancel(self, name: str, upload_id: str) -> Answer:
        """Answer DELETE of an upload: what has come of it is gone."""
        upload = self._uploads.find(name, upload_id)
        with self._uploads.alone(upload):
            self._uploads.cancel(upload)
        return Answer(HTTPStatus.NO_CONTENT)

    def _mount(self, name: str, digest: str, source: str, *, may_read: Callable[[str], bool]) -> bool:
        """Note that ``name`` has a blob too which another repository has; False if none has it that the caller may read."""
        if not is_digest(digest):
            return False
        with self._repositories.adding():
            if source:
                found = self._repositories.has_blob(source, digest) and may_read(source)
            else:
                owner = self._repositories.owner_of(digest)
                found = owner is not None and may_read(owner)
            if found and self._blobs.has(digest):
                self._repositories.add_blob(name, digest)
                return True
        return False

    def _take_whole(self, name: str, digest: str, body: Body) -> Answer:
        if not is_digest(digest):
            raise Refusal("DIGEST_INVALID", f"{digest[:200]!r} is no digest; give digest=ALGORITHM:HEX")
        upload = self._uploads.start(name)
        if not body.announced:
            # Some clients name the digest and send nothing yet: they go on with a PUT.
            return Answer(HTTPStatus.ACCEPTED, place_headers(upload))
        try:
            self._uploads.append(upload, body, "")
        except (Refusal, OSError):
            self._uploads.cancel(upload)  # nobody was told its name
            raise
        self._finish(upload, digest)
        return _created(name, digest)

    def _finish(self, upload: Upload, digest: str) -> None:
        with self._repositories.adding():
            self._uploads.finish(upload, digest)
            self._repositories.add_blob(upload.name, digest)


def collect(blobs: BlobStore, repositories: Repositories, digest: str) -> None:
    """Remove ``digest`` from the store unless some repository has it."""
    with repositories.collecting():
        if not repositories.is_used(digest):
            blobs.delete(digest)


def _created(name: str, digest: str) -> Answer:
    headers = {"Location": f"/v2/{name}/blobs/{digest}", "Docker-Content-Digest": digest}
    return Answer(HTTPStatus.CREATED, headers)


def _unknown(name: str, digest: str) -> Refusal:
    return Refusal("BLOB_UNKNOWN", f"the repository {name} has no such blob", detail={"digest": digest[:200]})

"""Uploads in progress: a blob that grows part by part in the content store, until its digest is named and checked.

An upload has a name that nobody guesses. The parts must come in order; what is cut off in the middle stays, and the client asks how far it
came and goes on from there, also after the server was restarted. While an upload is open its writer is kept, and with it the hash of what has
come. What nobody goes on with is removed after a time.

Leaves out: a least size for the parts; the specification allows one, for stores that cannot append.
See: OCI Distribution Specification, "Pushing blobs"; `labkit.image.blobs`.
"""

from __future__ import annotations

import re
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path

from labkit.errors import ImageError, InvalidState
from labkit.image.blobs import CHUNK_BYTES, BlobStore, BlobWriter
from labkit.image.registry.server.answers import Refusal
from labkit.image.registry.server.bodies import Body

__all__ = ["Upload", "Uploads", "parse_span", "place_headers"]

_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
#: When all places are taken, uploads that nobody has written to for so long give theirs up.
_CROWDED_LASTS_S = 600.0
_SPAN = re.compile(r"([0-9]{1,18})-([0-9]{1,18})")


def parse_span(text: str) -> tuple[int, int] | None:
    """Return first and last byte of a part's ``Content-Range`` (``0-1023``); None for what is none."""
    match = _SPAN.fullmatch(text.strip())
    if match is None or int(match.group(2)) < int(match.group(1)):
        return None
    return int(match.group(1)), int(match.group(2))


@dataclass(slots=True)
class Upload:
    """One upload into the repository ``name``."""

    id: str
    name: str
    writer: BlobWriter
    busy: threading.Lock = field(default_factory=threading.Lock)

    @property
    def size(self) -> int:
        """How many bytes have come."""
        return self.writer.offset


class Uploads:
    """The uploads into ``blobs``; which repository each is for lies in ``folder``. Close it to let go of the files.

    No more than ``most_open`` are open at once, none is larger than ``most_bytes``, none lives on for ``lasts_s`` untouched.
    """

    def __init__(
        self, blobs: BlobStore, folder: Path, *, most_bytes: int, most_open: int = 256, lasts_s: float = 86400
    ) -> None:
        self._blobs, self._folder = blobs, folder
        self._most_bytes, self._most_open, self._lasts_s = most_bytes, most_open, lasts_s
        folder.mkdir(parents=True, exist_ok=True)
        self._open: dict[str, Upload] = {}
        self._lock = threading.Lock()

    def start(self, name: str) -> Upload:
        """Begin an upload. Raises: Refusal with 429 if too many are open."""
        self.remove_old()
        if self._count() >= self._most_open:
            self.remove_old(older_than_s=min(self._lasts_s, _CROWDED_LASTS_S))
        with self._lock:
            if self._count() >= self._most_open:
                raise Refusal("TOOMANYREQUESTS", f"{self._most_open} uploads are open: end one, or try again later")
            upload_id = str(uuid.uuid4())
            (self._folder / upload_id).write_text(name)
            upload = self._open[upload_id] = Upload(upload_id, name, self._blobs.writer(upload=upload_id))
        return upload

    def find(self, name: str, upload_id: str) -> Upload:
        """Return the upload ``upload_id`` into the repository ``name``. Raises: Refusal with 404 if there is none."""
        with self._lock:
            upload = self._open.get(upload_id) or self._recall(upload_id)
        if upload is None or upload.name != name:
            raise Refusal("BLOB_UPLOAD_UNKNOWN", "there is no such upload: it was finished, cancelled or too old")
        return upload

    def append(self, upload: Upload, body: Body, content_range: str) -> None:
        """Write the next part, which ``content_range`` places ("": right behind the last).

        Raises: Refusal with 416 for a part out of order, 400 for a length that is not the range's, 413 for too much;
        ConnectionError when it is cut off, after what has come was written.
        """
        span = parse_span(content_range) if content_range else (upload.size, self._most_bytes - 1)
        if span is None:
            raise Refusal("BLOB_UPLOAD_INVALID", f"Content-Range {content_range[:64]!r} is not FIRST-LAST")
        if span[0] != upload.size:
            raise _out_of_order(upload)
        if content_range and body.length is not None and body.length != span[1] - span[0] + 1:
            raise Refusal("SIZE_INVALID", f"the range {content_range} has another size than the body: {body.length}")
        end = min(span[1] + 1, self._most_bytes)
        while data := body.read(CHUNK_BYTES):
            if upload.size + len(data) > end:
                raise self._too_large(content_range)
            upload.writer.write(data)
        if content_range and upload.size != end:
            raise Refusal("SIZE_INVALID", f"fewer bytes came than the range {content_range} has")

    def finish(self, upload: Upload, digest: str) -> None:
        """Check the digest and put the blob in its place. Raises: Refusal with 400 if it is another; nothing stays then."""
        try:
            upload.writer.commit(digest)
        except ImageError as error:
            raise Refusal("DIGEST_INVALID", str(error), detail={"digest": digest}) from error
        finally:
            self.cancel(upload)

    def cancel(self, upload: Upload) -> None:
        """End the upload; what has come of it is gone."""
        with self._lock:
            self._open.pop(upload.id, None)
        upload.writer.cancel()
        (self._folder / upload.id).unlink(missing_ok=True)

    @contextmanager
    def alone(self, upload: Upload) -> Iterator[None]:
        """Keep others from the upload meanwhile. Raises: Refusal with 409 if somebody is at it."""
        if not upload.busy.acquire(blocking=False):
            raise Refusal(
                "BLOB_UPLOAD_INVALID", "another request is writing to this upload", status=HTTPStatus.CONFLICT
            )
        try:
            yield
        finally:
            upload.busy.release()

    def remove_old(self, *, older_than_s: float | None = None) -> int:
        """Remove uploads nobody has written to for a time; return how many."""
        limit_s = self._lasts_s if older_than_s is None else older_than_s
        old = {upload_id for upload_id, _, idle_s in self._blobs.uploads() if idle_s >= limit_s}
        removed = 0
        for upload_id in old:
            with self._lock:
                upload = self._open.get(upload_id) or self._recall(upload_id)
            if upload is not None and not upload.busy.locked():
                self.cancel(upload)
                removed += 1
        self._forget_lost(limit_s)
        return removed

    def _forget_lost(self, limit_s: float) -> None:
        """Remove the notes about uploads that a killed server began to make or had just finished."""
        with self._lock:
            for note in self._folder.iterdir():
                is_lost = note.name not in self._open and not (self._blobs.uploads_folder / note.name).exists()
                if is_lost and time.time() - note.stat().st_mtime >= limit_s:
                    note.unlink(missing_ok=True)

    def close(self) -> None:
        """Let go of the files; what has come stays for the next server."""
        with self._lock:
            for upload in self._open.values():
                upload.writer.close()
            self._open.clear()

    def _count(self) -> int:
        return sum(1 for _ in self._folder.iterdir())

    def _recall(self, upload_id: str) -> Upload | None:
        """Find an upload of the server that ran before this one."""
        place = self._folder / upload_id
        if not _ID.fullmatch(upload_id) or not place.exists():
            return None
        try:
            writer = self._blobs.writer(upload=upload_id)
        except InvalidState:
            return None  # another server on the same folder has it
        self._open[upload_id] = Upload(upload_id, place.read_text(), writer)
        return self._open[upload_id]

    def _too_large(self, content_range: str) -> Refusal:
        if content_range:
            return Refusal("SIZE_INVALID", f"more bytes came than the range {content_range} has")
        status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
        return Refusal("SIZE_INVALID", f"a blob has at most {self._most_bytes} bytes here", status=status)


def place_headers(upload: Upload) -> dict[str, str]:
    """Return the headers that say where to go on and how far it is."""
    return {
        "Location": f"/v2/{upload.name}/blobs/uploads/{upload.id}",
        "Range": f"0-{max(0, upload.size - 1)}",
        "Docker-Upload-UUID": upload.id,
    }


def _out_of_order(upload: Upload) -> Refusal:
    """Return the refusal of a part that does not begin where the last one ended; it says where that is."""
    status = HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE
    message = f"the next part begins at byte {upload.size}"
    return Refusal("BLOB_UPLOAD_INVALID", message, status=status, headers=place_headers(upload))

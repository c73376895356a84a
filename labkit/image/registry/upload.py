"""One blob on its way to a registry: in one request, or in parts, gone on with where it was cut off, or not sent at all.

Not sent at all is best: the repository may have the blob, or another repository of the same registry may, from which it is mounted. Else
an upload is begun (POST), which gives an address of its own; the bytes go there in one request (PUT) or in parts (PATCH, each
saying which bytes it brings), and a last PUT names the digest. When the connection breaks, the registry is asked how far it came.

Leaves out: the single POST with the bytes in it, which not every registry takes.
See: OCI Distribution Specification, "Pushing blobs".
"""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlencode

from labkit.errors import ImageError
from labkit.image.blobs import BlobStore
from labkit.image.descriptor import Descriptor
from labkit.image.registry.auth import scope_of
from labkit.image.registry.client import MOST_ERROR_BYTES
from labkit.image.registry.failures import Interrupted, RegistryError
from labkit.image.registry.fetch import Stopped
from labkit.image.registry.progress import Moved, Reporter
from labkit.image.registry.repository import Repository
from labkit.image.registry.transport import FileSlice, Response

__all__ = ["Uploader"]

_MOST_ATTEMPTS = 4
_FIRST_PAUSE_S = 0.1
_SPAN = re.compile(r"(?:bytes=)?0-([0-9]{1,18})")
_OCTETS = {"Content-Type": "application/octet-stream"}


@dataclass(slots=True)
class _Place:
    """Where an upload goes on: its address, the next byte, and the least size of a part that the registry wants."""

    address: str
    offset: int = 0
    least_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Uploader:
    """Pushes blobs into one repository. ``chunk_bytes``: in parts of that size; 0: in one request.

    ``sources`` says from which other repositories of the registry a blob might be mounted. ``stop`` makes all uploads give up.
    """

    blobs: BlobStore
    repository: Repository
    reporter: Reporter
    sources: Mapping[str, Sequence[str]] = field(default_factory=dict)
    chunk_bytes: int = 0
    stop: threading.Event = field(default_factory=threading.Event)

    def push(self, descriptor: Descriptor) -> Moved:
        """Bring the blob there, unless it is. Raises: RegistryError, DeadlineExceeded; ImageError if our own bytes are damaged."""
        self.reporter.tell(descriptor, "Preparing")
        if self.repository.has_blob(descriptor):
            self.reporter.tell(descriptor, "Layer already exists", descriptor.size)
            return Moved(descriptor, "shared")
        if self.blobs.size(descriptor.digest) != descriptor.size:
            raise ImageError(
                f"The blob {descriptor.digest} has not the {descriptor.size} bytes that its manifest says."
            )
        place: _Place | None = None
        for source in self.sources.get(descriptor.digest, ()):
            place = self._mount(descriptor, source)
            if place is None:
                self.reporter.tell(descriptor, "Mounted from", descriptor.size, source)
                return Moved(descriptor, "mounted")
        self._send(descriptor, place or self._begin())
        self.reporter.tell(descriptor, "Pushed", descriptor.size)
        return Moved(descriptor, "moved")

    def cancel(self, address: str) -> None:
        """Tell the registry that an upload will not be gone on with, so that it need not keep what has come."""
        with self._ask("DELETE", address, expect=(200, 202, 204, 404)) as response:
            response.read_all(MOST_ERROR_BYTES)

    def _mount(self, descriptor: Descriptor, source: str) -> _Place | None:
        """Have the blob mounted; None if it was, else the upload that the registry has begun instead."""
        query = urlencode({"mount": descriptor.digest, "from": source})
        scope = f"{self._scope} {scope_of(source, 'pull')}"
        target = f"/v2/{self.repository.name}/blobs/uploads/?{query}"
        with self._ask("POST", target, scope=scope, expect=(201, 202, 401, 403, 404)) as response:
            response.read_all(MOST_ERROR_BYTES)
            if response.status >= 400:
                return self._begin()  # the other repository is none of ours; this one may be
            return None if response.status == 201 else self._place(response)

    def _begin(self) -> _Place:
        with self._ask("POST", f"/v2/{self.repository.name}/blobs/uploads/", expect=(202,)) as response:
            response.read_all(MOST_ERROR_BYTES)
            return self._place(response)

    def _send(self, descriptor: Descriptor, place: _Place) -> None:
        """Send all bytes and close the upload, going on where it was cut off; then from the beginning if it was forgotten."""
        attempts, pause_s = 0, _FIRST_PAUSE_S
        while True:
            try:
                self._send_rest(descriptor, place)
                return
            except Interrupted:
                attempts += 1
                if attempts >= _MOST_ATTEMPTS:
                    raise
                if self.stop.wait(pause_s):
                    raise Stopped(f"{descriptor.digest} was given up, because another blob failed.") from None
                pause_s *= 2
                if self.repository.has_blob(descriptor):
                    return  # only the answer was lost
                place = self._ask_how_far(place) or self._begin()
            except BaseException:
                self._give_up(place)
                raise

    def _give_up(self, place: _Place) -> None:
        try:
            self.cancel(place.address)
        except (ImageError, TimeoutError):
            return  # what led here is the news; the registry forgets the upload by itself

    def _send_rest(self, descriptor: Descriptor, place: _Place) -> None:
        """Send what is missing, in parts or at once. A part moves ``place`` on."""
        in_parts = self.chunk_bytes or place.offset
        part_bytes = max(self.chunk_bytes or descriptor.size, place.least_bytes)
        while in_parts and place.offset < descriptor.size:
            if self.stop.is_set():
                raise Stopped(f"{descriptor.digest} was given up, because another blob failed.")
            length = min(part_bytes, descriptor.size - place.offset)
            span = {"Content-Range": f"{place.offset}-{place.offset + length - 1}"}
            body = self._slice(descriptor, place.offset, length)
            with self._ask(
                "PATCH", place.address, headers=_OCTETS | span, body=body, expect=(202, 204, 409, 416)
            ) as response:
                response.read_all(MOST_ERROR_BYTES)
                if response.status in (409, 416):
                    # It was still reading what came before the break when it was asked how far it is.
                    raise Interrupted(
                        f"{self.repository.client.registry} has not {place.offset} bytes of it, but others."
                    )
                place.address, place.offset = self._place(response).address, place.offset + length
        body = self._slice(descriptor, place.offset, descriptor.size - place.offset)
        separator = "&" if "?" in place.address else "?"
        target = place.address + separator + urlencode({"digest": descriptor.digest})
        with self._ask("PUT", target, headers=_OCTETS, body=body, expect=(201, 202, 204)) as response:
            response.read_all(MOST_ERROR_BYTES)

    def _ask_how_far(self, place: _Place) -> _Place | None:
        """Ask the registry how much of a broken upload it has; None if it has forgotten it."""
        with self._ask("GET", place.address, expect=(200, 202, 204, 404, 405)) as response:
            response.read_all(MOST_ERROR_BYTES)
            match = _SPAN.fullmatch(response.headers.get("Range", "").strip())
            if response.status >= 400 or match is None:
                return None
            found = self._place(response)
        # "0-0" is said of one byte and of none; which of them, only the next part's refusal would tell.
        found.offset = int(match[1]) + 1 if int(match[1]) else 0
        return found if found.offset else None

    def _slice(self, descriptor: Descriptor, offset: int, length: int) -> FileSlice:
        gone = [offset]

        def sent(count: int) -> None:
            gone[0] += count
            self.reporter.tell(descriptor, "Pushing", gone[0])

        return FileSlice(self.blobs.path(descriptor.digest), offset, length, sent)

    def _place(self, response: Response) -> _Place:
        address = response.headers.get("Location", "")
        if not address:
            raise RegistryError(f"{self.repository.client.registry} began an upload and did not say where it goes on.")
        least = response.headers.get("OCI-Chunk-Min-Length", "")
        return _Place(address, 0, int(least) if least.isascii() and least.isdigit() and len(least) < 12 else 0)

    @property
    def _scope(self) -> str:
        return scope_of(self.repository.name, "pull", "push")

    def _ask(
        self,
        method: str,
        target: str,
        *,
        expect: Sequence[int],
        scope: str = "",
        headers: dict[str, str] | None = None,
        body: FileSlice | None = None,
    ) -> Response:
        what = f"The push to {self.repository.client.registry}/{self.repository.name}"
        return self.repository.client.request(
            method, target, what=what, scope=scope or self._scope, headers=headers, body=body or b"", expect=expect
        )

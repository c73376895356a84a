"""One blob on its way into the store: checked while it comes, gone on with where it was cut off.

What a registry says is not believed: not the length it announces, not the end it makes, not the bytes. A descriptor says how many bytes
there are and which digest they have; one byte more ends the pull, and so does another digest. A connection that breaks is not yet a
lie: the rest is asked for by a range, some times.

Leaves out: several connections for one blob.
See: OCI Distribution Specification, "Pulling blobs"; RFC 9110 section 14.
"""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass, field

from labkit.errors import ImageError, InvalidState, LabkitError
from labkit.image.blobs import BlobStore, BlobWriter
from labkit.image.descriptor import Descriptor, hex_of
from labkit.image.registry.failures import Interrupted
from labkit.image.registry.progress import Moved, Reporter
from labkit.image.registry.repository import Repository
from labkit.image.registry.transport import Response

__all__ = ["Fetcher", "Stopped"]

_PART_BYTES = 1 << 20
_MOST_ATTEMPTS = 4
#: Who gets this far in an attempt has not used it up.
_WORTHWHILE_BYTES = 16 << 20
_FIRST_PAUSE_S = 0.1
_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})/(?:[0-9]{1,18}|\*)")


class Stopped(LabkitError):
    """Another blob of the same transfer failed, so this one need not arrive."""


@dataclass(frozen=True, slots=True)
class Fetcher:
    """Fetches blobs of one repository; ``stop`` makes all of them give up; ``lied``: and keep nothing."""

    blobs: BlobStore
    repository: Repository
    reporter: Reporter
    stop: threading.Event = field(default_factory=threading.Event)
    lied: threading.Event = field(default_factory=threading.Event)

    def fetch(self, descriptor: Descriptor) -> Moved:
        """Bring the blob, unless it is there. Raises: ImageError for wrong bytes; nothing of them stays."""
        if self.blobs.has(descriptor.digest):
            if self.blobs.size(descriptor.digest) != descriptor.size:
                raise ImageError(
                    f"The manifest says that {descriptor.digest} has {descriptor.size} bytes, and it has not."
                )
            self.reporter.tell(descriptor, "Already exists", descriptor.size)
            return Moved(descriptor, "shared")
        self.reporter.tell(descriptor, "Pulling fs layer")
        writer, is_resumed = self._writer(descriptor)
        try:
            self._bring(descriptor, writer)
        except ImageError:
            if not is_resumed or self.stop.is_set():
                raise
            # What an earlier pull left may have been wrong from the start; what comes now is not to blame for it.
            with self.blobs.writer(descriptor) as fresh:
                self._bring(descriptor, fresh)
        self.reporter.tell(descriptor, "Pull complete", descriptor.size)
        return Moved(descriptor, "moved")

    def _writer(self, descriptor: Descriptor) -> tuple[BlobWriter, bool]:
        """Return a writer that goes on where an earlier pull stopped; one of its own while somebody else pulls the same blob."""
        try:
            writer = self.blobs.writer(descriptor, upload=f"pull-{hex_of(descriptor.digest)[:100]}")
        except InvalidState:
            return self.blobs.writer(descriptor), False
        if writer.offset <= descriptor.size:
            return writer, writer.offset > 0
        writer.cancel()
        return self._writer(descriptor)

    def _bring(self, descriptor: Descriptor, writer: BlobWriter) -> None:
        with writer:
            try:
                self._fill(descriptor, writer)
                writer.commit()
            except ImageError:
                # It lies, or ends too early again and again. When it is merely slow or out of reach, what has come may wait.
                self.lied.set()
                writer.cancel()
                raise
            except Stopped:
                if self.lied.is_set():
                    writer.cancel()
                raise
        self.reporter.tell(descriptor, "Download complete", descriptor.size)

    def _fill(self, descriptor: Descriptor, writer: BlobWriter) -> None:
        """Write until the blob has all its bytes, asking again for the rest when the connection breaks."""
        attempts, pause_s = 0, _FIRST_PAUSE_S
        while writer.offset < descriptor.size:
            begun = writer.offset
            try:
                with self.repository.open_blob(descriptor, offset=begun) as response:
                    self._check_head(descriptor, response, begun)
                    self._copy(descriptor, response, writer)
            except Interrupted:
                attempts = 0 if writer.offset - begun >= _WORTHWHILE_BYTES else attempts + 1
                if attempts >= _MOST_ATTEMPTS:
                    raise
                if self.stop.wait(pause_s):
                    raise _stopped(descriptor) from None
                pause_s *= 2
            else:
                if writer.offset < descriptor.size:
                    raise ImageError(f"{descriptor.digest} ends after {writer.offset} of {descriptor.size} bytes.")

    def _check_head(self, descriptor: Descriptor, response: Response, offset: int) -> None:
        """Refuse an answer whose head already tells that it is not the rest of the blob. Raises: ImageError."""
        what, left = f"The registry's answer for {descriptor.digest}", descriptor.size - offset
        match = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
        if offset and (response.status != 206 or match is None or int(match[1]) != offset):
            raise ImageError(f"{what} does not begin at byte {offset}, which was asked for: it knows no ranges.")
        if response.length is not None and response.length != left:
            raise ImageError(f"{what} announces {response.length} bytes, and {left} are due.")

    def _copy(self, descriptor: Descriptor, response: Response, writer: BlobWriter) -> None:
        buffer = memoryview(bytearray(min(_PART_BYTES, descriptor.size)))
        while got := response.readinto(buffer):
            if self.stop.is_set():
                raise _stopped(descriptor)
            writer.write(buffer[:got])
            self.reporter.tell(descriptor, "Downloading", writer.offset)


def _stopped(descriptor: Descriptor) -> Stopped:
    return Stopped(f"{descriptor.digest} was given up, because another blob failed.")

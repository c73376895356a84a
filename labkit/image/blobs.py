"""Blobs: content that is addressed by its digest, one file each in ``blobs/sha256/``.

A blob is written beside its place and moved there by rename(2) once its size and its digest are what was announced and the bytes are on the disk.
So under a digest's name there are those bytes or none, whenever somebody looks and whoever was killed. Two writers of the same
content do not disturb each other: the last rename replaces a file by its equal.

An upload with an id of its own survives its writer: a registry's client comes back and goes on where it was cut off.

Leaves out: checking again what lies on the disk, but for whoever reads it through `BlobStore.open` or `BlobStore.read`.
See: OCI Image Specification, image-layout.md; rename(2); fsync(2).
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from labkit.errors import ImageError, InvalidState
from labkit.image.descriptor import Descriptor, check_digest, hex_of, new_hash
from labkit.image.jsontext import MOST_BYTES
from labkit.image.lock import Leases, StoreLock, hold_new_file
from labkit.linux.fds import Fd

__all__ = ["CHUNK_BYTES", "BlobReader", "BlobStore", "BlobWriter", "sync_folder"]

#: How much is read, hashed and written at once.
CHUNK_BYTES = 1 << 18
_UNKNOWN_TYPE = "application/octet-stream"
_UPLOAD_ID = re.compile(r"[A-Za-z0-9_-]{1,128}")


def sync_folder(folder: Path) -> None:
    """Bring the names in ``folder`` to the disk: a rename is durable only then. See: fsync(2)."""
    with Fd(os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)) as fd:
        os.fsync(fd.number)


class BlobStore:
    """The blobs below ``root``, which is made if need be; safe to use from several processes and threads at once."""

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root)
        self.folder = self.root / "blobs"
        self.tmp = self.root / "tmp"
        self.uploads_folder = self.root / "uploads"
        self.lock = StoreLock(self.root / "lock")
        self.leases = Leases(self.root / "leases")
        for folder in (self.folder / "sha256", self.tmp, self.uploads_folder, self.leases.folder):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def path(self, digest: str) -> Path:
        """Return where the blob ``digest`` lies, or would. Raises: ImageError for what is no digest."""
        check_digest(digest)
        return self.folder / digest.partition(":")[0] / hex_of(digest)

    def has(self, digest: str) -> bool:
        """Say whether the blob is there; while a lease is held (`Leases.take`) it then also stays."""
        path = self.path(digest)
        if not self.leases.any_held:
            return path.exists()
        with self.lock.shared():
            if not path.exists():
                return False
            self.leases.add(digest)
        return True

    def size(self, digest: str) -> int:
        """Return the blob's size in bytes. Raises: ImageError if it is not there."""
        try:
            return self.path(digest).stat().st_size
        except FileNotFoundError:
            raise ImageError(f"The store has no blob {digest}.") from None

    def open(self, digest: str, *, size: int | None = None) -> BlobReader:
        """Return a reader that checks size and digest while it reads. Raises: ImageError if the blob is not there."""
        found_size = self.size(digest)
        if size is not None and size != found_size:
            raise ImageError(f"The blob {digest} has {found_size} bytes, not {size} as announced.")
        return BlobReader(self.path(digest), digest)

    def read(self, descriptor: Descriptor) -> bytes:
        """Return a small blob (a manifest, a configuration) whole and checked. Raises: ImageError."""
        if descriptor.size > MOST_BYTES:
            raise ImageError(f"{descriptor.digest} has {descriptor.size} bytes: too large for a manifest.")
        try:
            data = self.path(descriptor.digest).read_bytes()
        except FileNotFoundError:
            raise ImageError(f"The store has no blob {descriptor.digest} ({descriptor.media_type}).") from None
        return descriptor.check(data, "The blob")

    def put(self, data: bytes, media_type: str) -> Descriptor:
        """Store ``data`` and return its descriptor; what is there already costs no wait for the disk."""
        descriptor = Descriptor.of(data, media_type)
        if self.has(descriptor.digest) and self._has_size(descriptor):
            return descriptor
        with self.writer(descriptor) as writer:
            writer.write(data)
            return writer.commit()

    def _has_size(self, descriptor: Descriptor) -> bool:
        try:
            return self.size(descriptor.digest) == descriptor.size
        except ImageError:
            return False  # collected in between: nobody held a lease

    def writer(self, expected: Descriptor | None = None, *, upload: str | None = None) -> BlobWriter:
        """Return a writer of one blob; with ``expected`` it takes these bytes and no others.

        ``upload`` names an upload that stays when it is not committed: the next writer of that name goes on at ``offset``.
        Raises: InvalidState while somebody else writes to the same upload.
        """
        return BlobWriter(self, expected, upload)

    def uploads(self) -> Iterator[tuple[str, int, float]]:
        """Yield id, bytes so far and idle time in seconds of each upload that was begun and not committed."""
        now = time.time()
        for path in sorted(self.uploads_folder.iterdir()):
            try:
                status = path.stat()
            except FileNotFoundError:
                continue
            yield path.name, status.st_size, now - status.st_mtime

    def delete(self, digest: str) -> bool:
        """Remove the blob whether or not something leads to it; say whether it was there."""
        with self.lock.exclusive():
            return self.unlink(digest)

    def unlink(self, digest: str) -> bool:
        """Remove the blob; for who holds the store's lock alone. Say whether it was there."""
        try:
            self.path(digest).unlink()
        except FileNotFoundError:
            return False
        return True

    def digests(self) -> Iterator[str]:
        """Yield the digest of each blob."""
        for folder in sorted(self.folder.iterdir()):
            for path in sorted(folder.iterdir()):
                yield f"{folder.name}:{path.name}"


class BlobReader:
    """Reads a blob from its beginning; the end is reached only if size and digest were right. A context manager."""

    def __init__(self, path: Path, digest: str) -> None:
        self.digest = digest
        self._file = path.open("rb", buffering=0)
        self._hash = new_hash(digest)
        self.offset = 0

    def read(self, size: int = -1) -> bytes:
        """Return up to ``size`` bytes, nothing at the end. Raises: ImageError at the end if the bytes are not the blob's."""
        data = self._file.read(size)
        self._hash.update(data)
        self.offset += len(data)
        if (not data and size != 0) or size < 0:
            self._check()
        return data

    @property
    def digest_so_far(self) -> str:
        """The digest of what was read."""
        return f"{self._hash.name}:{self._hash.hexdigest()}"

    def reopened(self) -> int:
        """Return a descriptor of the same file at its beginning, which the caller owns."""
        return os.open(f"/proc/self/fd/{self._file.fileno()}", os.O_RDONLY | os.O_CLOEXEC)

    def _check(self) -> None:
        if self._hash.hexdigest() != hex_of(self.digest):
            raise ImageError(f"The blob {self.digest} is damaged: its {self.offset} bytes have another digest.")

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> BlobReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class BlobWriter:
    """Writes one blob: `write` as often as needed, then `commit`. Left without a commit, it vanishes, unless it is an upload."""

    def __init__(self, store: BlobStore, expected: Descriptor | None, upload: str | None) -> None:
        self._store = store
        self.expected = expected
        self._is_upload = upload is not None
        if upload is None:
            self._path, self._fd = hold_new_file(store.tmp)
        else:
            self._path, self._fd = _hold_upload(store.uploads_folder, upload)
        self.offset = os.lseek(self._fd.number, 0, os.SEEK_END)
        # Of an upload that goes on, the first bytes were not seen here; they are hashed at the end.
        self._hash: hashlib._Hash | None = None
        if self.offset == 0:
            self._hash = new_hash(expected.digest if expected else "sha256:")

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Append ``data``. Raises: ImageError when that is more than was announced, OSError with ENOSPC."""
        if self.expected is not None and self.offset + len(data) > self.expected.size:
            raise ImageError(
                f"{self.expected.digest} goes on after the {self.expected.size} bytes that were announced."
            )
        view = memoryview(data)
        while view:
            view = view[os.write(self._fd.number, view) :]
        if self._hash is not None:
            self._hash.update(data)
        self.offset += len(data)
        return len(data)

    def commit(self, digest: str | None = None) -> Descriptor:
        """Put the blob in its place, if it is what was announced or has the ``digest`` given now.

        Raises: ImageError if it has not; then nothing of it stays.
        """
        expected = self.expected.digest if self.expected is not None else digest
        try:
            if self.expected is not None and self.offset != self.expected.size:
                raise ImageError(f"{expected} ends after {self.offset} of {self.expected.size} bytes.")
            found = self._digest(check_digest(expected).partition(":")[0] if expected else "sha256")
            if expected is not None and found != expected:
                raise ImageError(f"{expected} was announced, but the {self.offset} bytes have the digest {found}.")
            self._place(found)
        except ImageError:
            self.cancel()
            raise
        media_type = self.expected.media_type if self.expected is not None else _UNKNOWN_TYPE
        return Descriptor(media_type, found, self.offset)

    def _digest(self, algorithm: str) -> str:
        if self._hash is None or self._hash.name != algorithm:
            with open(os.dup(self._fd.number), "rb") as file:
                file.seek(0)
                self._hash = hashlib.file_digest(file, algorithm)
        return f"{algorithm}:{self._hash.hexdigest()}"

    def _place(self, digest: str) -> None:
        target = self._store.path(digest)
        os.fsync(self._fd.number)
        target.parent.mkdir(mode=0o700, exist_ok=True)
        os.fchmod(self._fd.number, 0o644)
        with self._store.lock.shared():
            os.rename(self._path, target)
            self._store.leases.add(digest)
        sync_folder(target.parent)
        self._fd.close()

    def cancel(self) -> None:
        """Give up; of an upload, too, nothing stays. Safe to call twice and after `commit`."""
        if self._fd.number >= 0:
            self._path.unlink(missing_ok=True)
        self._fd.close()

    def close(self) -> None:
        """Give up what was not committed; an upload only pauses."""
        if self._is_upload:
            self._fd.close()
        else:
            self.cancel()

    def __enter__(self) -> BlobWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _hold_upload(folder: Path, upload: str) -> tuple[Path, Fd]:
    if not _UPLOAD_ID.fullmatch(upload):
        raise ImageError(f"{upload!r} cannot be an upload's id: letters, digits, '-' and '_' only.")
    path = folder / upload
    while True:
        fd = Fd(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            fd.close()
            raise InvalidState(f"The upload {upload} is being written to by somebody else right now.") from None
        if path.exists() and os.path.samestat(path.stat(), os.fstat(fd.number)):
            return path, fd
        fd.close()

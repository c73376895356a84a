"""Checksums of what COPY takes: the part of a cache key that tells whether a file has changed.

What counts is what ends up in the layer: kind, permission bits, content or link target. Times and owners do not: a fresh
checkout of the same files has other ones. Reading every file of a large context takes time, so a file's checksum is kept
together with its status, and holds as long as size, inode, and the times of the last change stay as they were.

A file that was changed in the very moment in which it was hashed could keep its times (the clock ticks every few
milliseconds), so what is younger than two seconds is not kept.

See: dockerfile(5), "COPY" (cache); stat(2) (st_ctim); git's documentation, "racy-git".
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import time
from pathlib import Path

from labkit.image.build.tree import Entry

__all__ = ["Checksums"]

_YOUNG_NS = 2_000_000_000
#: Above this many, what was not asked for in this build is forgotten.
_MOST_KEPT = 50_000


class Checksums:
    """Computes checksums; those of regular files are kept in ``file`` from one build to the next."""

    def __init__(self, file: Path | None = None) -> None:
        self._file = file
        self._known: dict[str, str] = _load(file) if file is not None else {}
        self._used: dict[str, str] = {}
        self.files_read = 0

    def of(self, entry: Entry) -> str:
        """Return the checksum of one entry, a folder without what it holds."""
        if entry.is_folder:
            return f"folder {entry.mode:o}"
        if entry.is_link:
            return f"link {os.fsencode(entry.target).hex()}"
        if not entry.is_file:
            return f"special {entry.status.st_mode:o} {entry.status.st_rdev}"
        return f"{entry.mode:o} {self._content(entry)}"

    def of_bytes(self, data: bytes) -> str:
        """Return the checksum of a text that stands in the Containerfile."""
        return hashlib.sha256(data).hexdigest()

    def _content(self, entry: Entry) -> str:
        status = entry.status
        key = f"{status.st_dev}:{status.st_ino}:{status.st_size}:{status.st_mtime_ns}:{status.st_ctime_ns}"
        found = self._known.get(key) or self._used.get(key)
        if found is None:
            with entry.open() as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
            self.files_read += 1
            if time.time_ns() - max(status.st_ctime_ns, status.st_mtime_ns) < _YOUNG_NS:
                return found
        self._used[key] = found
        return found

    def save(self) -> None:
        """Keep what was learned for the next build; written beside and renamed, so that a reader sees old or new."""
        if self._file is None or all(key in self._known for key in self._used):
            return
        kept = self._known | self._used
        if len(kept) > _MOST_KEPT:
            kept = self._used
        beside = self._file.with_name(f".{self._file.name}-{secrets.token_hex(4)}")
        try:
            beside.write_text(json.dumps(kept))
            os.replace(beside, self._file)
        finally:
            beside.unlink(missing_ok=True)


def _load(file: Path) -> dict[str, str]:
    try:
        found = json.loads(file.read_bytes())
    except (OSError, ValueError):
        return {}  # not there yet, or damaged: then every file is read again
    if not isinstance(found, dict):
        return {}
    return {str(key): str(value) for key, value in found.items()}

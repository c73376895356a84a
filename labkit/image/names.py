"""The names of a store: which reference points to which content, in the ``index.json`` of an OCI image layout; and pins.

The store *is* a layout, so that other tools read it in place: ``skopeo inspect oci:FOLDER:docker.io/library/busybox:latest``. An entry
without a name is an image whose name has moved on ("dangling"). The whole file is written anew for each change, beside its
place, brought to the disk and renamed, so a reader sees the old names or the new ones.

A *pin* keeps content for something else than a name: a build's cache, a registry's repository.

Leaves out: layouts that somebody else writes while labkit does.
See: OCI Image Specification, image-layout.md and annotations.md (``org.opencontainers.image.ref.name``).
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from labkit.errors import ImageError
from labkit.image.blobs import BlobStore, sync_folder
from labkit.image.descriptor import Descriptor
from labkit.image.jsontext import canonical
from labkit.image.lock import hold_new_file
from labkit.image.manifest import Index

__all__ = ["BUILD_CACHE", "LAYOUT", "REF_NAME", "Entry", "Names", "Pins", "write_durably"]

#: The annotation that holds an entry's name.
REF_NAME = "org.opencontainers.image.ref.name"
LAYOUT = canonical({"imageLayoutVersion": "1.0.0"})
#: The kind of pins under which builds keep their results.
BUILD_CACHE = "build-cache"
_PIN_NAME = "labkit.pin.name"


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the index: a name (a canonical reference; empty: dangling) and what it points to."""

    name: str
    descriptor: Descriptor


def write_durably(path: Path, data: bytes, *, tmp: Path) -> None:
    """Replace the file at ``path`` by one with ``data``; a crash leaves the old one or the new one."""
    scratch, fd = hold_new_file(tmp)
    with fd:
        try:
            os.write(fd.number, data)
            os.fchmod(fd.number, 0o644)
            os.fsync(fd.number)
            os.rename(scratch, path)
        except BaseException:
            scratch.unlink(missing_ok=True)
            raise
    sync_folder(path.parent)


class Names:
    """Reads and writes ``index.json`` of the layout that ``blobs`` belong to. Whoever calls `save` holds the store's lock alone."""

    def __init__(self, blobs: BlobStore) -> None:
        self._tmp = blobs.tmp
        self._path = blobs.root / "index.json"
        layout = blobs.root / "oci-layout"
        if not layout.exists():
            write_durably(layout, LAYOUT, tmp=self._tmp)
        with blobs.lock.exclusive():
            if not self._path.exists():
                self.save(())

    def load(self) -> tuple[Entry, ...]:
        """Return all entries. Raises: ImageError if the file is damaged."""
        index = Index.from_bytes(self._path.read_bytes())
        return tuple(
            Entry(found.annotations.get(REF_NAME, ""), replace(found, annotations=_without_name(found)))
            for found in index.manifests
        )

    def save(self, entries: Iterable[Entry]) -> None:
        """Replace all entries."""
        listed = tuple(
            replace(entry.descriptor, annotations=dict(entry.descriptor.annotations) | {REF_NAME: entry.name})
            if entry.name
            else entry.descriptor
            for entry in entries
        )
        write_durably(self._path, Index(listed).to_bytes(), tmp=self._tmp)


def _without_name(descriptor: Descriptor) -> dict[str, str]:
    return {key: value for key, value in descriptor.annotations.items() if key != REF_NAME}


class Pins:
    """Content that is kept without a name, by kind and name: one small index each in ``pins/KIND/``."""

    def __init__(self, blobs: BlobStore) -> None:
        self._blobs = blobs
        self.folder = blobs.root / "pins"
        self.folder.mkdir(mode=0o700, exist_ok=True)

    def _path(self, kind: str, name: str) -> Path:
        # A name may hold slashes and be longer than a file's name can be.
        return self.folder / kind / f"{hashlib.sha256(name.encode()).hexdigest()[:40]}.json"

    def get(self, kind: str, name: str) -> tuple[Descriptor, ...]:
        """Return what is pinned under ``name``; nothing if there is no such pin."""
        try:
            return Index.from_bytes(self._path(kind, name).read_bytes()).manifests
        except FileNotFoundError:
            return ()

    def set(self, kind: str, name: str, descriptors: Sequence[Descriptor]) -> None:
        """Pin exactly ``descriptors`` under ``name``. Raises: ImageError if one of them is not in the store."""
        with self._blobs.lock.exclusive():
            self._write(kind, name, descriptors)

    def add(self, kind: str, name: str, descriptor: Descriptor) -> None:
        """Pin ``descriptor``, too, under ``name``. Raises: ImageError if it is not in the store."""
        with self._blobs.lock.exclusive():
            kept = [found for found in self.get(kind, name) if found.digest != descriptor.digest]
            self._write(kind, name, [*kept, descriptor])

    def _write(self, kind: str, name: str, descriptors: Sequence[Descriptor]) -> None:
        for descriptor in descriptors:
            if not self._blobs.path(descriptor.digest).exists():
                raise ImageError(f"The store has no blob {descriptor.digest}, so it cannot be kept for {name!r}.")
        path = self._path(kind, name)
        path.parent.mkdir(mode=0o700, exist_ok=True)
        index = Index(tuple(descriptors), annotations={_PIN_NAME: name})
        write_durably(path, index.to_bytes(), tmp=self._blobs.tmp)

    def drop(self, kind: str, name: str) -> bool:
        """Pin nothing under ``name`` any more; say whether there was something."""
        with self._blobs.lock.exclusive():
            path = self._path(kind, name)
            was_there = path.exists()
            path.unlink(missing_ok=True)
        return was_there

    def names(self, kind: str) -> tuple[str, ...]:
        """Return the names of all pins of ``kind``."""
        return tuple(sorted(index.annotations[_PIN_NAME] for found_kind, index in self._all() if found_kind == kind))

    def all(self, *, but: Iterable[str] = ()) -> Iterator[Descriptor]:
        """Yield everything that is pinned, except under the kinds in ``but``."""
        for kind, index in self._all():
            if kind not in but:
                yield from index.manifests

    def clear(self, kind: str) -> None:
        """Drop all pins of ``kind``; for who holds the store's lock alone."""
        for path in (self.folder / kind).glob("*.json"):
            path.unlink(missing_ok=True)

    def _all(self) -> Iterator[tuple[str, Index]]:
        for path in sorted(self.folder.glob("*/*.json")):
            try:
                yield path.parent.name, Index.from_bytes(path.read_bytes())
            except FileNotFoundError:
                continue

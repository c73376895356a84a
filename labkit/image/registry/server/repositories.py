"""Repositories on disk: which blobs, manifests, tags and referrers each has, as small files; the bytes lie in the content store.

::

    repositories/alice/web/_blobs/sha256-9f…        empty: this repository has that blob
    repositories/alice/web/_manifests/sha256-41…    the manifest's media type, and the digest of its subject if it has one
    repositories/alice/web/_tags/latest             the digest that the tag stands for
    repositories/alice/web/_referrers/sha256-9f…/sha256-77…   a manifest whose subject is the first digest

The folders begin with ``_``, which no component of a name does, so ``alice`` and ``alice/web`` can both be repositories. Each file is
written beside its place and renamed, after the bytes it speaks of are safe: whatever is killed when, a name never leads to nothing.
A digest that no repository has any more is taken from the content store.

Leaves out: a cache; a listing reads folders, which is quick for the thousands of images that a class has.
See: rename(2), fsync(2), flock(2); OCI Distribution Specification, "Content Management".
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from labkit.image.blobs import sync_folder
from labkit.image.descriptor import is_digest
from labkit.image.reference import is_repository, is_tag

__all__ = ["ManifestEntry", "Repositories"]

_KINDS = ("_blobs", "_manifests")


@dataclass(frozen=True, slots=True)
class ManifestEntry:
    """What is known about a manifest of a repository beside its bytes."""

    digest: str
    media_type: str
    subject: str = ""


class Repositories:
    """The repositories below ``folder``. Threads and processes may use them at once; deletion waits for nobody but additions."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def exists(self, name: str) -> bool:
        """Tell whether anything was ever stored under ``name``."""
        return any((self.folder / name / kind).is_dir() for kind in _KINDS)

    def names(self) -> list[str]:
        """Return the names of all repositories, sorted."""
        found = []
        for folder, folders, _ in os.walk(self.folder):
            if any(kind in folders for kind in _KINDS):
                found.append(str(Path(folder).relative_to(self.folder)))
            folders[:] = [name for name in folders if not name.startswith("_")]
        return sorted(name for name in found if is_repository(name))

    # Blobs

    def has_blob(self, name: str, digest: str) -> bool:
        """Tell whether the repository has the blob."""
        return self._place(name, "_blobs", digest).exists()

    def add_blob(self, name: str, digest: str) -> None:
        """Note that the repository has the blob, whose bytes are safe in the content store already."""
        self._write(self._place(name, "_blobs", digest), "")

    def remove_blob(self, name: str, digest: str) -> bool:
        """Take the blob from the repository; False if it had none such."""
        return _unlink(self._place(name, "_blobs", digest))

    def owner_of(self, digest: str) -> str | None:
        """Return a repository that has the blob; None if none has."""
        file = _file_name(digest)
        return next((name for name in self.names() if (self.folder / name / "_blobs" / file).exists()), None)

    def is_used(self, digest: str) -> bool:
        """Tell whether any repository has ``digest``, as a blob or as a manifest."""
        file = _file_name(digest)
        return any((self.folder / name / kind / file).exists() for name in self.names() for kind in _KINDS)

    def used(self) -> set[str]:
        """Return every digest that some repository has."""
        names = self.names()
        files = (file for name in names for kind in _KINDS for file in _listed(self.folder / name / kind))
        return {_digest(file) for file in files}

    # Manifests

    def manifest(self, name: str, digest: str) -> ManifestEntry | None:
        """Return what is known about a manifest; None if the repository has none such."""
        try:
            found = json.loads(self._place(name, "_manifests", digest).read_text())
        except FileNotFoundError:
            return None
        return ManifestEntry(digest, found["mediaType"], found["subject"])

    def add_manifest(self, name: str, entry: ManifestEntry) -> None:
        """Note the manifest, and that it refers to its subject."""
        if entry.subject:
            self._write(self._referrers(name, entry.subject) / _file_name(entry.digest), "")
        known = {"mediaType": entry.media_type, "subject": entry.subject}
        self._write(self._place(name, "_manifests", entry.digest), json.dumps(known))

    def remove_manifest(self, name: str, digest: str) -> bool:
        """Take the manifest from the repository, and the tags that stand for it; False if it had none such."""
        entry = self.manifest(name, digest)
        if entry is None:
            return False
        for tag in self.tags(name):
            if self.tagged(name, tag) == digest:
                self.remove_tag(name, tag)
        if entry.subject:
            _unlink(self._referrers(name, entry.subject) / _file_name(digest))
            with suppress(OSError):
                self._referrers(name, entry.subject).rmdir()
        return _unlink(self._place(name, "_manifests", digest))

    def has_manifests(self, name: str) -> bool:
        """Tell whether the repository has any manifest."""
        return bool(_listed(self.folder / name / "_manifests"))

    def referrers(self, name: str, subject: str) -> list[str]:
        """Return the digests of the manifests whose subject is ``subject``, sorted."""
        return sorted(_digest(file) for file in _listed(self._referrers(name, subject)))

    # Tags

    def tags(self, name: str) -> list[str]:
        """Return the tags of a repository, in the order of their bytes."""
        return sorted(tag for tag in _listed(self.folder / name / "_tags") if is_tag(tag))

    def tagged(self, name: str, tag: str) -> str | None:
        """Return the digest that ``tag`` stands for; None if there is no such tag."""
        try:
            return (self.folder / name / "_tags" / tag).read_text()
        except FileNotFoundError:
            return None

    def set_tag(self, name: str, tag: str, digest: str) -> None:
        """Let ``tag`` stand for ``digest``."""
        self._write(self.folder / name / "_tags" / tag, digest)

    def remove_tag(self, name: str, tag: str) -> bool:
        """Remove a tag; False if there was none such."""
        return _unlink(self.folder / name / "_tags" / tag)

    # Keeping order

    @contextmanager
    def adding(self) -> Iterator[None]:
        """Hold while bytes are in the store that no repository names yet: nobody collects meanwhile."""
        with self._locked(fcntl.LOCK_SH):
            yield

    @contextmanager
    def collecting(self) -> Iterator[None]:
        """Hold while looking for what no repository names: nobody adds meanwhile."""
        with self._locked(fcntl.LOCK_EX):
            yield

    def remove_unfinished(self) -> None:
        """Remove what a killed server was about to rename; for who holds `collecting`."""
        for path in self.folder.rglob(".new-*"):
            _unlink(path)

    def remove_repository(self, name: str) -> None:
        """Remove a repository with everything it names; those below it stay."""
        for kind in (*_KINDS, "_tags", "_referrers"):
            shutil.rmtree(self.folder / name / kind, ignore_errors=True)

    @contextmanager
    def _locked(self, kind: int) -> Iterator[None]:
        # Each holder has a descriptor of its own: flock(2) then also parts the threads of one process.
        fd = os.open(self.folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, kind)
            yield
        finally:
            os.close(fd)

    def _place(self, name: str, kind: str, digest: str) -> Path:
        return self.folder / name / kind / _file_name(digest)

    def _referrers(self, name: str, subject: str) -> Path:
        return self.folder / name / "_referrers" / _file_name(subject)

    def _write(self, path: Path, text: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        new_path = path.parent / f".new-{os.getpid()}-{threading.get_ident()}"
        with open(new_path, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.rename(new_path, path)
        sync_folder(path.parent)


def _file_name(digest: str) -> str:
    # 128 letters of sha512 and its name still fit into the 255 bytes of a file's name.
    return digest.replace(":", "-", 1)


def _digest(file: str) -> str:
    return file.replace("-", ":", 1)


def _listed(folder: Path) -> list[str]:
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return []
    return [name for name in names if not name.startswith(".") and (folder.name == "_tags" or is_digest(_digest(name)))]


def _unlink(path: Path) -> bool:
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    sync_folder(path.parent)
    return True

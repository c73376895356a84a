"""What differs between two images, or between two stacks of layers: read from the layers' tars, without unpacking anything.

A stack is read from below: each layer adds and replaces files, and its whiteouts take away what lower ones brought. Two files are the same
if kind, mode, owner, size, link and content are; times are not looked at.

See: OCI Image Specification, layer.md ("Applying Changesets"); docker-diff(1).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from labkit.image import tarheader as tar
from labkit.image import whiteout
from labkit.image.layer import LayerReader
from labkit.image.store import Image, ImageStore
from labkit.image.tarstream import TarReader, filler

__all__ = ["Change", "File", "compare", "diff_images", "files_of"]


@dataclass(frozen=True, slots=True)
class File:
    """A file of an image. ``kind`` is tar's letter; ``content`` is the digest of its bytes (of regular files)."""

    kind: str
    mode: int
    uid: int
    gid: int
    size: int = 0
    link: str = ""
    content: str = ""


@dataclass(frozen=True, slots=True)
class Change:
    """One path that differs: A(dded), C(hanged) or D(eleted), as docker-diff(1) shows it."""

    kind: Literal["A", "C", "D"]
    path: str
    size_bytes: int = 0

    def __str__(self) -> str:
        return f"{self.kind} {self.path}"


def files_of(store: ImageStore, image: Image, *, layers: int | None = None) -> dict[str, File]:
    """Return the files of the image's lowest ``layers`` layers (default: all) by path. Raises: ImageError."""
    files: dict[str, File] = {}
    stack = list(zip(image.manifest.layers, image.config.diff_ids, strict=True))
    for descriptor, diff_id in stack[:layers]:
        with LayerReader(store.blobs, descriptor, diff_id=diff_id) as reader:
            _apply(TarReader(filler(reader)), files)
    return files


def _apply(reader: TarReader, files: dict[str, File]) -> None:
    """Let one layer change ``files``. Its whiteouts concern what was there before, so its own files come afterwards."""
    new: dict[str, File] = {}
    for entry in reader.entries():
        path = "/" + "/".join(part for part in _text(entry.name).split("/") if part not in ("", "."))
        folder, _, name = path.rpartition("/")
        if name.startswith(_text(whiteout.PREFIX)):
            if name == _text(whiteout.OPAQUE_MARKER):
                _remove(files, folder, itself=False)
            elif hidden := whiteout.hidden_name(name.encode(errors="surrogateescape")):
                _remove(files, f"{folder}/{_text(hidden)}", itself=True)
            continue
        if path != "/":
            new[path] = _file(entry, reader, new, files)
    for path, file in new.items():
        if file.kind != "folder" and path in files and files[path].kind == "folder":
            _remove(files, path, itself=True)
        files[path] = file


def _text(data: bytes) -> str:
    return data.decode(errors="surrogateescape")


def _remove(files: dict[str, File], path: str, *, itself: bool) -> None:
    for known in [known for known in files if known.startswith(f"{path}/") or (itself and known == path)]:
        del files[known]


_KINDS = {tar.FILE: "file", tar.DIRECTORY: "folder", tar.SYMLINK: "link", tar.FIFO: "fifo"}


def _file(entry: tar.Entry, reader: TarReader, new: dict[str, File], old: dict[str, File]) -> File:
    if entry.kind == tar.HARD_LINK:
        target = "/" + "/".join(part for part in _text(entry.link).split("/") if part not in ("", "."))
        found = new.get(target) or old.get(target)
        if found is not None:
            return found
    content = ""
    if entry.kind == tar.FILE:
        digest = hashlib.sha256()
        for part in reader.parts():
            digest.update(part)
        content = digest.hexdigest()
    kind = _KINDS.get(entry.kind, "other")
    mode = 0 if kind == "link" else entry.mode  # a link's own mode means nothing to Linux
    return File(kind, mode, entry.uid, entry.gid, entry.real_size, _text(entry.link), content)


def compare(old: dict[str, File], new: dict[str, File]) -> list[Change]:
    """Return what happened from ``old`` to ``new``, in the order of paths. Of a folder that went, its contents went along."""
    changes = []
    for path in sorted(old.keys() | new.keys()):
        if path not in new:
            changes.append(Change("D", path, old[path].size))
        elif path not in old:
            changes.append(Change("A", path, new[path].size))
        elif old[path] != new[path]:
            changes.append(Change("C", path, new[path].size))
    return changes


def diff_images(store: ImageStore, images: Sequence[Image]) -> list[Change]:
    """Return what leads from the first image to the second; of one image, what its topmost layer did. Raises: ImageError."""
    first, last = images[0], images[-1]
    layers = len(first.manifest.layers) - 1 if len(images) == 1 else None
    return compare(files_of(store, first, layers=layers), files_of(store, last))

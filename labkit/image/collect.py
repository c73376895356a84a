"""Garbage collection: what no name, pin or lease leads to goes away.

Mark and sweep. The marks start from the names (``index.json``), the pins and the living leases, and follow every manifest to its
configuration and layers; the configuration's chain ids mark the unpacked layers. The caller holds the store's lock alone, so that
nothing is put in its place meanwhile; what is half done lies in ``tmp/`` under a lock of its own.

Leaves out: referrers: a manifest with a ``subject`` needs a name or a pin of its own.
See: OCI Image Specification, "image-layout.md"; `labkit.image.lock`.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from labkit.errors import ImageError
from labkit.image.blobs import BlobStore
from labkit.image.config import ImageConfig
from labkit.image.jsontext import MOST_BYTES
from labkit.image.lock import dead_entries
from labkit.image.manifest import Index, Manifest, parse_manifest
from labkit.image.rootfs import remove_tree
from labkit.linux.fds import Fd

if TYPE_CHECKING:
    from labkit.image.store import ImageStore

__all__ = [
    "UPLOAD_IDLE_S",
    "Collected",
    "Reachable",
    "cache_mounts",
    "dead_scratch",
    "discard",
    "mark",
    "remove_scratch",
    "sweep",
]

#: After so long without a byte an unfinished upload is given up.
UPLOAD_IDLE_S = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class Collected:
    """What a collection removed: names, blobs (digests), unpacked layers (chain ids), half-done things, and the bytes it freed."""

    untagged: tuple[str, ...] = ()
    blobs: tuple[str, ...] = ()
    layers: tuple[str, ...] = ()
    scratch: tuple[str, ...] = ()
    freed_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Reachable:
    """What is needed: blobs by digest, unpacked layers by chain id."""

    digests: frozenset[str]
    chains: frozenset[str]


def mark(blobs: BlobStore, roots: Iterable[str]) -> Reachable:
    """Return what the content with the digests ``roots`` leads to, itself included."""
    digests: set[str] = set()
    chains: set[str] = set()
    waiting = list(roots)
    while waiting:
        digest = waiting.pop()
        if digest in digests:
            continue
        digests.add(digest)
        manifest = _manifest_in(blobs, digest)
        if manifest is None:
            continue
        waiting += [child.digest for child in manifest.references]
        if isinstance(manifest, Manifest):
            chains.update(_chains_of(blobs, manifest))
    return Reachable(frozenset(digests), frozenset(chains))


def _manifest_in(blobs: BlobStore, digest: str) -> Manifest | Index | None:
    """Return the manifest or index in a blob; None for anything else, by its content: a lease lists digests only."""
    try:
        with blobs.path(digest).open("rb") as file:
            head = file.read(1)
            if head != b"{" or os.fstat(file.fileno()).st_size > MOST_BYTES:
                return None
            return parse_manifest(head + file.read())
    except (FileNotFoundError, ImageError):
        return None


def _chains_of(blobs: BlobStore, manifest: Manifest) -> tuple[str, ...]:
    try:
        return ImageConfig.from_bytes(blobs.read(manifest.config)).chain_ids
    except ImageError:
        return ()  # an artifact without a configuration, or one that is not here


def sweep(store: ImageStore) -> tuple[Collected, list[Path]]:
    """Take away what nothing leads to; return what that was, and the folders that wait to be removed.

    The caller holds the store's lock alone, and calls `remove_tree` for the folders when it has let go: that may take a while.
    """
    blobs = store.blobs
    needed = mark(blobs, _roots(store))
    freed_bytes, gone = 0, []
    for digest in list(blobs.digests()):
        if digest not in needed.digests:
            freed_bytes += blobs.path(digest).stat().st_size
            blobs.unlink(digest)
            gone.append(digest)
    scratch = [str(path) for path in dead_scratch(blobs)]
    layers = store.layers.sweep(needed.chains)
    freed_bytes += sum(size_bytes for _, size_bytes, _ in layers)
    collected = Collected((), tuple(gone), tuple(chain for chain, _, _ in layers), tuple(scratch), freed_bytes)
    return collected, [Path(path) for path in scratch] + [trash for _, _, trash in layers]


def cache_mounts(store: ImageStore) -> list[Path]:
    """Move the folders of builds' cache mounts (``RUN --mount=type=cache``) away; return what waits to be removed.

    The caller holds the store's lock alone. A build that has one mounted goes on with it.
    """
    trash = store.blobs.tmp / f"labkit-gone-mounts-{os.getpid()}"
    try:
        os.rename(store.root / "build-cache" / "mounts", trash)
    except FileNotFoundError:
        return []
    return [trash]


def _roots(store: ImageStore) -> set[str]:
    roots = {entry.descriptor.digest for entry in store.entries()}
    return roots | {descriptor.digest for descriptor in store.pins.all()} | store.blobs.leases.leased()


def discard(store: ImageStore, digests: Iterable[str]) -> None:
    """Remove those of ``digests`` that nothing leads to: what came with an image that was refused. The caller's lease is over."""
    with store.blobs.lock.exclusive():
        for digest in set(digests) - mark(store.blobs, _roots(store)).digests:
            store.blobs.unlink(digest)


def dead_scratch(blobs: BlobStore) -> list[Path]:
    """Return the half-done things whose makers are gone, and uploads idle for longer than `UPLOAD_IDLE_S`."""
    found = [path for path, _ in dead_entries(blobs.tmp)]
    idle = {name for name, _, idle_s in blobs.uploads() if idle_s > UPLOAD_IDLE_S}
    return found + [path for path, _ in dead_entries(blobs.uploads_folder) if path.name in idle]


def remove_scratch(paths: Iterable[Path]) -> None:
    """Remove half-done things, but those that another collection is removing. Raises: ImageError, OSError for what will not go."""
    for path in paths:
        try:
            fd = Fd(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK))
        except FileNotFoundError:
            continue
        with fd:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            remove_tree(path)

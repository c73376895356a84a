"""How many bytes images take: each one whole, and what is its own; layers that are shared count once.

An image of 100 MB on top of another one may add one megabyte to the disk, because both name the same layers. ``shared`` is what at
least one other image has, too; ``unique`` is what would be freed if the image went.

Leaves out: block sizes and metadata of the file system: sizes are those of contents.
See: docker-system-df(1).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from labkit.image.collect import dead_scratch, mark

if TYPE_CHECKING:
    from labkit.image.store import ImageStore

__all__ = ["ImageUsage", "Usage", "measure"]


@dataclass(frozen=True, slots=True)
class ImageUsage:
    """One image: its names (none: dangling), its digest, and the bytes of its blobs."""

    names: tuple[str, ...]
    digest: str
    size_bytes: int
    shared_bytes: int

    @property
    def unique_bytes(self) -> int:
        """What nothing else of the store needs."""
        return self.size_bytes - self.shared_bytes


@dataclass(frozen=True, slots=True)
class Usage:
    """The whole store: blobs, what of them nothing needs, layers unpacked, and what is half done."""

    images: tuple[ImageUsage, ...]
    blob_bytes: int
    unreachable_bytes: int
    unpacked_bytes: int
    half_done: int

    @property
    def sum_of_images_bytes(self) -> int:
        """What the images would take if nothing were shared."""
        return sum(image.size_bytes for image in self.images)


def measure(store: ImageStore) -> Usage:
    """Return the usage of ``store`` at this moment."""
    with store.blobs.lock.exclusive():
        sizes = {digest: store.blobs.path(digest).stat().st_size for digest in store.blobs.digests()}
        names: dict[str, list[str]] = {}
        for entry in store.entries():
            names.setdefault(entry.descriptor.digest, []).extend([entry.name] if entry.name else [])
        needs = {digest: mark(store.blobs, [digest]).digests & sizes.keys() for digest in names}
        pinned = mark(store.blobs, [descriptor.digest for descriptor in store.pins.all()]).digests & sizes.keys()
        users = Counter(digest for needed in needs.values() for digest in needed)
        leased = mark(store.blobs, store.blobs.leases.leased()).digests
    images = tuple(
        ImageUsage(
            tuple(names[digest]), digest, sum(sizes[part] for part in needed),
            sum(sizes[part] for part in needed if users[part] > 1 or part in pinned),
        )
        for digest, needed in needs.items()
    )  # fmt: skip
    unreachable = sizes.keys() - users.keys() - pinned - leased
    unpacked = sum(note.bytes for note in store.layers.chains().values())
    unreachable_bytes = sum(sizes[digest] for digest in unreachable)
    return Usage(images, sum(sizes.values()), unreachable_bytes, unpacked, len(dead_scratch(store.blobs)))

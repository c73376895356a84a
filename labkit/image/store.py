"""The store: images by name, their blobs, and their layers unpacked.

::

    FOLDER/  oci-layout  index.json  blobs/sha256/...    an OCI image layout, which other tools can read
             layers/CHAIN/diff/                          each layer unpacked, once, for all containers
             tmp/  leases/  uploads/  pins/  lock        half-done things; who needs what; see labkit.image.lock

An image is complete when its name appears: its blobs are on the disk before, so a crash loses nothing that was acknowledged. What is half
done when a program is killed is never reachable by a name, and the next collection takes it away.

Leaves out: sharing a store between users; stores on network file systems.
See: OCI Image Specification, image-layout.md.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from labkit.errors import ImageError
from labkit.image import media_types
from labkit.image.blobs import BlobStore
from labkit.image.config import ImageConfig
from labkit.image.descriptor import Descriptor, Platform, hex_of, is_digest
from labkit.image.lock import Lease
from labkit.image.manifest import Index, Manifest, choose_platform, parse_manifest
from labkit.image.names import BUILD_CACHE, Entry, Names, Pins
from labkit.image.reference import Reference
from labkit.image.rootfs import LayerFolders

# What removes and counts is loaded by who removes and counts: looking an image up is what everybody waits for.
if TYPE_CHECKING:
    from labkit.image.collect import Collected
    from labkit.image.usage import Usage

__all__ = ["Image", "ImageStore", "default_store", "state_folder"]

_SHORTEST_ID = 4


@dataclass(frozen=True, slots=True)
class Image:
    """One image of a store, for one platform. ``root`` is what its names point to: the manifest, or an index above it."""

    descriptor: Descriptor
    manifest: Manifest
    config: ImageConfig
    root: Descriptor
    references: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        """The digest of the configuration, by which ``docker images`` names an image."""
        return self.manifest.config.digest

    @property
    def size(self) -> int:
        """The bytes of its layers as they are stored and moved."""
        return sum(layer.size for layer in self.manifest.layers)


class ImageStore:
    """The images below ``root``, which is made if need be; safe to use from several processes and threads at once."""

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root)
        self.blobs = BlobStore(self.root)
        self.pins = Pins(self.blobs)
        self._names = Names(self.blobs)
        self.layers = LayerFolders(self.blobs)

    def lease(self) -> Lease:
        """Return a lease: until it is closed, what this object brings, finds or looks up is not collected. A context manager."""
        return self.blobs.leases.take()

    def entries(self) -> tuple[Entry, ...]:
        """Return every name with what it points to, and the images that have lost theirs."""
        return self._names.load()

    def tag(self, reference: Reference | str, descriptor: Descriptor) -> None:
        """Let ``reference`` name the image, which must be complete; what it named before stays, without this name.

        Raises: ImageError if something that the image needs is not in the store; InvalidSpec for what is no reference.
        """
        name = _name_of(reference)
        with self.blobs.lock.exclusive():
            check_complete(self.blobs, descriptor)
            before = self.entries()
            after = [entry for entry in before if entry.name != name]
            after = [entry for entry in after if entry.name or entry.descriptor.digest != descriptor.digest]
            if len(after) == len(before) - 1 and Entry(name, descriptor) in before:
                return  # it is so already
            self._names.save([*_keep_dangling(before, after, descriptor), Entry(name, descriptor)])

    def keep(self, descriptor: Descriptor) -> None:
        """Keep an image that has no name, as a build without a tag does, until `prune`. Raises: ImageError if it is not complete."""
        with self.blobs.lock.exclusive():
            check_complete(self.blobs, descriptor)
            before = self.entries()
            if all(entry.descriptor.digest != descriptor.digest for entry in before):
                self._names.save([*before, Entry("", descriptor)])

    def resolve(self, text: str | Reference) -> Descriptor:
        """Return what ``text`` names: a reference, a digest, or the beginning of an image's id.

        Raises: ImageError if nothing or more than one image is named so; InvalidSpec for what cannot be a name.
        """
        with self.blobs.lock.shared():
            found = self._find(text)
            self.blobs.leases.add(found.digest)
        return found

    def _find(self, text: str | Reference) -> Descriptor:
        entries = self.entries()
        if isinstance(text, str) and (by_id := self._find_by_id(text, entries)) is not None:
            return by_id
        reference = Reference.parse(text) if isinstance(text, str) else text
        name = _name_of(reference)
        for entry in entries:
            same = entry.name == name
            if same or (reference.digest == entry.descriptor.digest and entry.name.startswith(reference.name + ":")):
                return entry.descriptor
        raise ImageError(f"There is no image {reference.familiar} here: `labkit image ls` lists those that are.")

    def _find_by_id(self, text: str, entries: tuple[Entry, ...]) -> Descriptor | None:
        digits = hex_of(text) if is_digest(text) else text
        if len(digits) < _SHORTEST_ID or not set(digits) <= set("0123456789abcdef"):
            return None
        found = {entry.descriptor.digest: entry.descriptor for entry in entries if self._has_id(entry, digits)}
        if len(found) > 1:
            raise ImageError(f"{text} is the beginning of {len(found)} images' ids: write more digits.")
        if is_digest(text) and not found:
            raise ImageError(f"There is no image with the digest {text} here.")
        return next(iter(found.values()), None)

    def _has_id(self, entry: Entry, digits: str) -> bool:
        if hex_of(entry.descriptor.digest).startswith(digits):
            return True
        try:
            return hex_of(self._load(entry.descriptor, None).id).startswith(digits)
        except ImageError:
            return False  # damaged, or for other machines only

    def image(self, which: str | Reference | Descriptor, *, platform: Platform | None = None) -> Image:
        """Return the image for ``platform`` (default: this machine). Raises: ImageError, InvalidSpec."""
        root = which if isinstance(which, Descriptor) else self.resolve(which)
        image = self._load(root, platform)
        names = tuple(entry.name for entry in self.entries() if entry.name and entry.descriptor.digest == root.digest)
        return replace(image, references=names)

    def _load(self, root: Descriptor, platform: Platform | None) -> Image:
        descriptor = root
        found = parse_manifest(self.blobs.read(root), root.media_type)
        for _ in range(_DEEPEST_INDEX):
            if not isinstance(found, Index):
                break
            descriptor = choose_platform(found, platform)
            found = parse_manifest(self.blobs.read(descriptor), descriptor.media_type)
        if not isinstance(found, Manifest):
            raise ImageError(f"{root.digest} is an index of indexes, nested more than {_DEEPEST_INDEX} deep.")
        config = load_config(self.blobs, found)
        return Image(descriptor, found, config, root)

    def images(self) -> list[Image]:
        """Return every image that is whole and for this machine, newest first; one that has several names once."""
        found: dict[str, Image] = {}
        for entry in self.entries():
            try:
                if entry.descriptor.digest not in found:
                    found[entry.descriptor.digest] = self.image(entry.descriptor)
            except ImageError:
                continue  # damaged, of another platform, or no image at all: `entries` has it
        return sorted(found.values(), key=lambda image: image.config.created, reverse=True)

    def remove(self, which: str | Reference, *, force: bool = False) -> Collected:
        """Take a name away; with the last name the image goes, and the blobs that nothing else needs.

        An id stands for the image's only name; with ``force`` for all of them. Raises: ImageError, InvalidSpec.
        """
        from labkit.image import collect

        with self.blobs.lock.exclusive():
            descriptor = self._find(which)
            before = self.entries()
            name = _name_of(which) if _is_name(which, before) else ""
            names = [entry.name for entry in before if entry.descriptor.digest == descriptor.digest and entry.name]
            if not name and len(names) > 1 and not force:
                raise ImageError(
                    f"{which} has {len(names)} names ({', '.join(names)}): remove these, or use --force for all."
                )
            gone = [name] if name else names
            after = [e for e in before if e.name not in gone or not e.name]
            if len(gone) == len(names):
                after = [e for e in after if e.descriptor.digest != descriptor.digest]
            self._names.save(after)
            collected, trash = collect.sweep(self)
        collect.remove_scratch(trash)
        return replace(collected, untagged=tuple(gone))

    def prune(self, *, all_unused: bool = False, build_cache: bool = False) -> Collected:
        """Remove images without a name (``all_unused``: all images that no lease holds) and what nothing needs.

        Unfinished uploads that have been idle for a day, half-done things of killed programs and, with ``build_cache``, the
        results that builds kept go, too.
        """
        from labkit.image import collect

        with self.blobs.lock.exclusive():
            before = self.entries()
            leased = self.blobs.leases.leased()
            kept = [e for e in before if e.descriptor.digest in leased or (e.name and not all_unused)]
            self._names.save(kept)
            if build_cache:
                self.pins.clear(BUILD_CACHE)
            collected, trash = collect.sweep(self)
            trash += collect.cache_mounts(self) if build_cache else []
        collect.remove_scratch(trash)
        return replace(collected, untagged=tuple(entry.name for entry in before if entry not in kept and entry.name))

    def usage(self) -> Usage:
        """Return how many bytes each image and each layer takes, and which of them are shared."""
        from labkit.image import usage

        return usage.measure(self)

    def lowers(self, image: Image) -> list[Path]:
        """Return the folders of the image's layers, topmost first, unpacking those that are not yet. Raises: ImageError."""
        return self.layers.lowers(image.manifest, image.config)


_DEEPEST_INDEX = 4


def load_config(blobs: BlobStore, manifest: Manifest) -> ImageConfig:
    """Return an image's configuration. Raises: ImageError unless it is one and speaks of the same layers as the manifest."""
    if manifest.config.media_type not in media_types.CONFIGS:
        raise ImageError(
            f"This is no image, but content of type {manifest.artifact_type or manifest.config.media_type}."
        )
    config = ImageConfig.from_bytes(blobs.read(manifest.config))
    if len(config.diff_ids) != len(manifest.layers):
        raise ImageError(
            f"The manifest has {len(manifest.layers)} layers, its configuration {len(config.diff_ids)}: one of them lies."
        )
    return config


def check_complete(blobs: BlobStore, descriptor: Descriptor) -> None:
    """Refuse a manifest that is no manifest or that needs what is not there. Raises: ImageError.

    Of an index, one image must be there; those for other machines may be missing.
    """
    found = parse_manifest(blobs.read(descriptor), descriptor.media_type)
    if isinstance(found, Index):
        there = [child for child in found.manifests if blobs.path(child.digest).exists()]
        for child in there:
            check_complete(blobs, child)
        if found.manifests and not there:
            raise ImageError(
                f"The index {descriptor.digest} lists {len(found.manifests)} images, none of which is here."
            )
        return
    for child in found.references:
        if blobs.size(child.digest) != child.size:
            raise ImageError(f"The blob {child.digest} has {blobs.size(child.digest)} bytes, not {child.size}.")
    if found.config.media_type in media_types.CONFIGS:
        load_config(blobs, found)


def _name_of(reference: Reference | str) -> str:
    reference = Reference.parse(reference) if isinstance(reference, str) else reference
    return replace(reference, tag=None).canonical if reference.digest else reference.canonical


def _is_name(which: str | Reference, entries: tuple[Entry, ...]) -> bool:
    if isinstance(which, str) and is_digest(which):
        return False
    try:
        name = _name_of(which)
    except ValueError:
        return False  # 64 digits: an id
    return any(entry.name == name for entry in entries)


def _keep_dangling(before: tuple[Entry, ...], after: list[Entry], new: Descriptor) -> list[Entry]:
    """Return ``after``, with an entry without a name for each image that has just lost its last one."""
    still = {entry.descriptor.digest for entry in after} | {new.digest}
    lost = {entry.descriptor.digest: entry.descriptor for entry in before if entry.descriptor.digest not in still}
    return [*after, *(Entry("", descriptor) for descriptor in lost.values())]


def state_folder() -> Path:
    """Return where labkit keeps what outlives a program: LABKIT_STATE, /var/lib/labkit, or $XDG_DATA_HOME/labkit."""
    if chosen := os.environ.get("LABKIT_STATE", ""):
        return Path(chosen).absolute()
    if os.geteuid() == 0 and os.access("/var/lib", os.W_OK):
        return Path("/var/lib/labkit")
    base = os.environ.get("XDG_DATA_HOME", "")
    return (Path(base) if base.startswith("/") else Path.home() / ".local" / "share") / "labkit"


def default_store() -> ImageStore:
    """Return the store of this user, in `state_folder`."""
    return ImageStore(state_folder() / "images")

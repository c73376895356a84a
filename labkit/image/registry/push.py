"""Push: bring an image from the store to a registry. What the registry has already does not travel.

Blobs first, manifests after them, the tag last, so that a registry never has a name that leads to a hole. Whoever is killed in the middle
has changed nothing that anybody sees. A layer that the registry has in another repository is mounted from there; the store's own names tell
which repositories these may be.

Leaves out: signatures; re-compressing layers (the bytes go as they are, or the digest would be another).
See: OCI Distribution Specification, "Push".
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack

from labkit.errors import ImageError, InvalidSpec
from labkit.image.descriptor import Descriptor
from labkit.image.manifest import Index, Manifest, parse_manifest
from labkit.image.reference import DEFAULT_TAG, Reference
from labkit.image.registry.client import RegistryClient
from labkit.image.registry.parallel import PARALLEL, for_each
from labkit.image.registry.progress import Progress, Reporter, Transfer
from labkit.image.registry.repository import Repository
from labkit.image.registry.upload import Uploader
from labkit.image.store import ImageStore

__all__ = ["push"]

_MOST_SOURCES = 3


def push(
    reference: Reference,
    store: ImageStore,
    *,
    source: str | Reference | None = None,
    client: RegistryClient | None = None,
    progress: Progress | None = None,
    parallel: int = PARALLEL,
    chunk_bytes: int = 0,
    mount_from: Sequence[str] = (),
) -> Transfer:
    """Push an image to where ``reference`` says; ``source`` is its name in the store if that is another one.

    ``chunk_bytes`` above 0 sends blobs in parts of that size. ``mount_from`` names repositories of the registry that may have
    some of the layers. Raises: ImageError if it is not in the store; RegistryError for what the registry refuses;
    DeadlineExceeded for a registry that is stuck.
    """
    if reference.digest is not None and reference.tag is None:
        raise InvalidSpec(
            f"{reference} names an image by its digest: push it under a tag, as in {reference.familiar_name}:1."
        )
    with ExitStack() as stack:
        stack.enter_context(store.lease())
        root = store.resolve(source if source is not None else reference)
        manifests = _whole_manifests(store, root)
        used = client or stack.enter_context(RegistryClient(reference.registry))
        before = used.transport.exchanged.copy()
        repository = Repository(used, reference.repository)
        images = [found for found in manifests if isinstance(found, Manifest)]
        wanted = [blob for image in images for blob in image.references]
        uploader = Uploader(
            store.blobs, repository, Reporter(progress), _sources(store, reference, mount_from, wanted), chunk_bytes
        )
        blobs = for_each(wanted, uploader.push, parallel=parallel, stop=uploader.stop, cut=used.transport.cut)
        for found in manifests[:-1]:
            repository.put_manifest(found.descriptor.digest, found)
        repository.put_manifest(reference.tag or DEFAULT_TAG, manifests[-1])
        return Transfer.since(before, used.transport.exchanged, manifests[-1].descriptor, blobs)


def _whole_manifests(store: ImageStore, root: Descriptor) -> list[Manifest | Index]:
    """Return the manifests to push, what an index lists before the index itself.

    Of an index whose other images are not in the store (they are for other machines) only this machine's image is pushed.
    """
    found = parse_manifest(store.blobs.read(root), root.media_type)
    if not isinstance(found, Index):
        return [found]
    try:
        return [*_below(store, found), found]
    except ImageError:
        return [store.image(root).manifest]


def _below(store: ImageStore, index: Index) -> Iterator[Manifest | Index]:
    for child in index.manifests:
        found = parse_manifest(store.blobs.read(child), child.media_type)
        if isinstance(found, Index):
            yield from _below(store, found)
        yield found


def _sources(
    store: ImageStore, reference: Reference, mount_from: Sequence[str], wanted: Sequence[Descriptor]
) -> dict[str, list[str]]:
    """Return for each blob from which repositories of the registry it might be mounted: those whose images have it here, too."""
    found: dict[str, list[str]] = {blob.digest: list(mount_from) for blob in wanted}
    for entry in store.entries():
        other = Reference.parse(entry.name) if entry.name else reference
        if other.registry != reference.registry or other.repository == reference.repository:
            continue
        for blob in _blobs_of(store, entry.descriptor):
            if blob in found and other.repository not in found[blob]:
                found[blob].append(other.repository)
    return {digest: names[:_MOST_SOURCES] for digest, names in found.items()}


def _blobs_of(store: ImageStore, root: Descriptor) -> list[str]:
    try:
        return [blob.digest for blob in store.image(root).manifest.references]
    except ImageError:
        return []  # damaged, or of another platform: nothing to learn from it

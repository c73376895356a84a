"""Pull: bring an image from a registry into the store. What the store has already is not asked for.

First the manifest, which names everything else by digest and size; of an index the manifest for this machine. Then the blobs, several
at once, each checked while it is written. Last the name: until then nothing leads to what has come, and whoever is killed has lost
nothing but time: an unfinished blob waits as an upload of the store, and the next pull asks for the rest of it only.

Leaves out: signatures; unpacking, which happens when the image is first run; layers that are kept elsewhere ("foreign").
See: OCI Distribution Specification, "Pull".
"""

from __future__ import annotations

from contextlib import ExitStack

from labkit.errors import ImageError
from labkit.image import collect
from labkit.image.descriptor import Platform
from labkit.image.manifest import Index, Manifest, choose_platform
from labkit.image.reference import DEFAULT_TAG, Reference
from labkit.image.registry.client import RegistryClient
from labkit.image.registry.failures import Unreachable
from labkit.image.registry.fetch import Fetcher
from labkit.image.registry.parallel import PARALLEL, for_each
from labkit.image.registry.progress import Progress, Reporter, Transfer
from labkit.image.registry.repository import Repository
from labkit.image.store import ImageStore
from labkit.units import GiB

__all__ = ["MOST_BYTES", "pull"]

#: More than this for all layers together is refused before a byte of them has come.
MOST_BYTES = 64 * GiB
_DEEPEST_INDEX = 4


def pull(
    reference: Reference,
    store: ImageStore,
    *,
    client: RegistryClient | None = None,
    platform: Platform | None = None,
    progress: Progress | None = None,
    parallel: int = PARALLEL,
) -> Transfer:
    """Bring the image that ``reference`` names into ``store``, under that name; ``client`` stays open.

    Raises: RegistryError for what the registry refuses; ImageError for what lies; DeadlineExceeded for a registry that is
    stuck. Nothing wrong stays in the store.
    """
    try:
        return _pull(reference, store, client, platform, Reporter(progress), parallel)
    except Unreachable:
        raise  # what has come so far was right, and need not come again
    except ImageError:
        _forget_what_came(store)
        raise


def _pull(
    reference: Reference,
    store: ImageStore,
    client: RegistryClient | None,
    platform: Platform | None,
    reporter: Reporter,
    parallel: int,
) -> Transfer:
    with ExitStack() as stack:
        used = client or stack.enter_context(RegistryClient(reference.registry))
        stack.enter_context(store.lease())
        before = used.transport.exchanged.copy()
        repository = Repository(used, reference.repository)
        root = repository.manifest(reference.digest or reference.tag or DEFAULT_TAG)
        manifest, path = _choose(repository, root, platform)
        _check(reference, manifest)
        fetcher = Fetcher(store.blobs, repository, reporter)
        blobs = for_each(
            manifest.references, fetcher.fetch, parallel=parallel, stop=fetcher.stop, cut=used.transport.cut
        )
        for found in path:
            store.blobs.put(found.to_bytes(), found.media_type)
        store.tag(reference, root.descriptor)
        return Transfer.since(before, used.transport.exchanged, root.descriptor, blobs)


def _forget_what_came(store: ImageStore) -> None:
    """Remove what a registry that lied had brought before it was found out: nothing leads to it."""
    with store.blobs.lock.exclusive():
        _, trash = collect.sweep(store)
    collect.remove_scratch(trash)


def _choose(
    repository: Repository, root: Manifest | Index, platform: Platform | None
) -> tuple[Manifest, list[Manifest | Index]]:
    """Return the manifest for ``platform``, and all that leads from the root to it."""
    found, path = root, [root]
    while isinstance(found, Index):
        if len(path) > _DEEPEST_INDEX:
            raise ImageError(f"{repository.name} is an index of indexes, nested more than {_DEEPEST_INDEX} deep.")
        chosen = choose_platform(found, platform)
        found = repository.manifest(chosen.digest, chosen)
        path.append(found)
    return found, path


def _check(reference: Reference, manifest: Manifest) -> None:
    """Refuse what should not even be begun. Raises: ImageError."""
    if reference.digest is not None and reference.digest.startswith("sha512:"):
        raise ImageError(f"{reference} is named by SHA-512, labkit names images by SHA-256: pull it by its tag.")
    total = sum(blob.size for blob in manifest.references)
    if total > MOST_BYTES:
        raise ImageError(f"{reference} claims to have {total} bytes; more than {MOST_BYTES} are not pulled.")
    for layer in manifest.layers:
        if "nondistributable" in layer.media_type or ".foreign." in layer.media_type:
            raise ImageError(
                f"The layer {layer.digest} of {reference} is kept elsewhere ({layer.media_type}): not pulled."
            )

"""What killed programs left in the store of images, for ``labkit clean``.

Half-done files and folders lie in the store's ``tmp/``, each under a lock that its maker held; leases of dead programs have none either. The
store's own collection (``labkit image prune``) takes the same things away; blobs that nothing needs are its business alone.

See: `labkit.image.lock`, flock(2).
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from labkit.image.blobs import BlobStore
from labkit.image.collect import dead_scratch, remove_scratch
from labkit.image.lock import dead_entries
from labkit.image.store import state_folder

__all__ = ["find_half_done", "remove_half_done"]


def find_half_done(root: Path | None = None) -> list[Path]:
    """Return what is half done and belongs to nobody in the store at ``root`` (default: this user's, if there is one)."""
    root = root or state_folder() / "images"
    if not (root / "blobs").is_dir():
        return []
    blobs = BlobStore(root)
    return dead_scratch(blobs) + [path for path, _ in dead_entries(blobs.leases.folder)]


def remove_half_done(paths: Iterable[Path]) -> None:
    """Remove it. Raises: ImageError, OSError for what will not go."""
    remove_scratch(paths)

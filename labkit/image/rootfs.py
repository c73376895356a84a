"""Unpacked layers: each one a folder, once for all images and containers that share it.

A layer unpacked depends on those below it (a hard link may lead there), so its folder is named by the *chain id* of the whole stack up to
it. OverlayFS puts the folders together (`labkit.container`, ``Container(rootfs=[...])``); they are written once and never changed.

Files belong to the ids that containers have (for root: 0x70000000 + the image's), so that nothing has to be shifted when they are mounted,
no file of theirs belongs to the machine's root, and what a container wrote on top can become a layer as it is (`LayerFolders.adopt`).

A layer is unpacked in ``tmp/`` and moved to its place when it is whole. It is not brought to the disk, as that would take longer
than unpacking: a folder from before the last start of the machine is unpacked again from its blob.

Leaves out: ID-mapped layers of other tools' stores.
See: OCI Image Specification, config.md ("Layer ChainID"); overlayfs.rst in Linux.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from labkit.errors import ImageError
from labkit.image.blobs import BlobStore
from labkit.image.config import ImageConfig, chain_ids
from labkit.image.descriptor import Descriptor, hex_of
from labkit.image.layer import LayerReader
from labkit.image.lock import hold_new_folder
from labkit.image.manifest import Manifest
from labkit.image.treewalk import empty_folder
from labkit.image.unpack import UnpackLimits, unpack
from labkit.linux.fds import Fd

__all__ = ["LayerFolders", "Unpack", "remove_tree"]


@dataclass(frozen=True, slots=True)
class Unpack:
    """What is noted beside an unpacked layer."""

    diff_id: str
    boot_id: str
    entries: int = 0
    bytes: int = 0
    skipped: int = 0
    opaque_root: bool = False


class LayerFolders:
    """The unpacked layers of one store, in ``layers/`` below its root."""

    def __init__(self, blobs: BlobStore) -> None:
        self._blobs = blobs
        self.folder = blobs.root / "layers"
        self.folder.mkdir(mode=0o700, exist_ok=True)

    def path(self, chain_id: str) -> Path:
        """Return the folder with the files of the layer that ends the stack ``chain_id``; it need not be there."""
        return self.folder / hex_of(chain_id) / "diff"

    def note(self, chain_id: str) -> Unpack | None:
        """Return what is noted of an unpacked layer; None if it is not there, or from before the machine's last start."""
        try:
            note = Unpack(**json.loads((self.folder / hex_of(chain_id) / "layer.json").read_text()))
        except (FileNotFoundError, ValueError, TypeError):
            return None
        return note if note.boot_id == _boot_id() else None

    def lowers(
        self, manifest: Manifest, config: ImageConfig, *, limits: UnpackLimits | None = None
    ) -> list[Path]:  # fmt: skip
        """Return the folders of an image's layers, topmost first, unpacking what is missing. Raises: ImageError."""
        stack: list[Path] = []
        for layer, diff_id, chain_id in zip(manifest.layers, config.diff_ids, config.chain_ids, strict=True):
            note = self.note(chain_id)
            if note is None:
                with self._unpacking():
                    note = self.note(chain_id) or self._unpack(layer, diff_id, chain_id, stack, limits)
            if note.opaque_root:
                stack.clear()
            stack.insert(0, self.path(chain_id))
        return stack

    def _unpack(
        self, layer: Descriptor, diff_id: str, chain_id: str, below: list[Path], limits: UnpackLimits | None
    ) -> Unpack:
        with self._scratch() as scratch:
            diff = scratch / "diff"
            diff.mkdir(mode=0o755)
            with LayerReader(self._blobs, layer, diff_id=diff_id, limits=limits) as reader:
                done = unpack(reader, diff, limits=limits, lowers=below, plain_fd=reader.plain_fd)
            note = Unpack(diff_id, _boot_id(), **asdict(done))
            self._place(scratch, chain_id, note)
        return note

    def adopt(self, parent_diff_ids: tuple[str, ...], diff_id: str, upper: Path) -> Path:
        """Make the upper folder of a container, which was packed as ``diff_id``, the unpacked layer above ``parent_diff_ids``.

        The folder is moved, not copied, so it must lie on the store's file system, and no container may use it any more.
        """
        chain_id = chain_ids((*parent_diff_ids, diff_id))[-1]
        if self.note(chain_id) is None:
            with self._scratch() as scratch:
                os.rename(upper, scratch / "diff")
                self._place(scratch, chain_id, Unpack(diff_id, _boot_id()))
        return self.path(chain_id)

    def _place(self, scratch: Path, chain_id: str, note: Unpack) -> None:
        (scratch / "layer.json").write_text(json.dumps(asdict(note)))
        target = self.folder / hex_of(chain_id)
        with self._blobs.lock.shared():
            if target.exists():
                if self.note(chain_id) is not None:
                    return  # somebody else was as quick; ours is removed
                os.rename(target, scratch / "before")
            os.rename(scratch, target)
        if (target / "before").exists():
            remove_tree(target / "before")

    @contextmanager
    def _scratch(self) -> Iterator[Path]:
        path, fd = hold_new_folder(self._blobs.tmp)
        with fd:
            try:
                yield path
            finally:
                if path.exists():
                    remove_tree(path)

    @contextmanager
    def _unpacking(self) -> Iterator[None]:
        """One at a time: a second process that wants the same layer waits for it instead of doing it again."""
        with Fd(os.open(self._blobs.root / "unpack.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)) as fd:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield

    def sweep(self, needed: frozenset[str]) -> list[tuple[str, int, Path]]:
        """Take away what no chain id in ``needed`` names; return chain id, size, and where it waits for `remove_tree`.

        The caller holds the store's lock alone, and removes the folders when it has let go: that may take a while.
        """
        kept = {hex_of(chain_id) for chain_id in needed}
        gone = []
        for folder in sorted(self.folder.iterdir()):
            if folder.name not in kept:
                chain_id = f"sha256:{folder.name}"
                note = self.note(chain_id)
                trash = self._blobs.tmp / f"labkit-gone-{folder.name[:24]}-{os.getpid()}"
                os.rename(folder, trash)
                gone.append((chain_id, note.bytes if note is not None else 0, trash))
        return gone

    def chains(self) -> dict[str, Unpack]:
        """Return the unpacked layers that are there, with what is noted of each."""
        found = {
            f"sha256:{folder.name}": self.note(f"sha256:{folder.name}") for folder in sorted(self.folder.iterdir())
        }
        return {chain_id: note for chain_id, note in found.items() if note is not None}


@lru_cache(maxsize=1)
def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def remove_tree(path: Path) -> None:
    """Remove a file, or a folder with everything in it, whoever it belongs to in containers and however deep it is.

    An ordinary user may not remove what belongs to the user's subordinate ids; the confined child may.
    Raises: ImageError, OSError for what will not go.
    """
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
        return
    from labkit.image.confined import Confined, open_folder, owners_here  # see `labkit.image.unpack`

    with open_folder(path) as folder:
        if owners_here().kind == "user":
            options: dict[str, Any] = {}
            with Confined("remove", folder.number, options, stream_fd=folder.number) as child:
                child.result()
        else:
            empty_folder(folder.number)
    try:
        path.rmdir()
    except OSError as error:
        raise ImageError(f"{path} could not be removed: {error.strerror}.") from error

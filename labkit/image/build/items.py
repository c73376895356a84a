"""What goes into a layer: one `Item` for each file, folder and link, in the order in which it is written.

A layer is a tar archive of changes, so an item's folder comes before it. Folders that are there already are written once more with
the owner and the mode that they have: in the union the topmost layer's folder is the one that is seen.

A name that begins with ``.wh.`` means in a layer that something is deleted; a file of that name cannot be put into one.

See: OCI Image Specification, layer.md.
"""

from __future__ import annotations

import posixpath
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import IO, Literal

from labkit.image.build.errors import BuildError
from labkit.image.build.tree import Entry, Tree

__all__ = ["Item", "Items", "Kind", "Owner"]

Kind = Literal["file", "folder", "link"]
_MARK = ".wh."


@dataclass(frozen=True, slots=True)
class Owner:
    """Numeric user and group, as they are inside the image."""

    uid: int = 0
    gid: int = 0


@dataclass(frozen=True, slots=True)
class Item:
    """One entry of a layer. ``path`` has no leading slash; ``open`` gives the content of a file of ``size_bytes``."""

    path: str
    kind: Kind
    mode: int
    owner: Owner = field(default_factory=Owner)
    mtime_s: int = 0
    target: str = ""
    size_bytes: int = 0
    open: Callable[[], IO[bytes]] | None = None

    @classmethod
    def of(cls, entry: Entry, path: str, owner: Owner, *, mode: int | None = None) -> Item:
        """Return the item that puts ``entry`` at ``path``. Raises: BuildError for what is no file, folder or link."""
        status = entry.status
        bits = entry.mode if mode is None else mode
        common = cls(path.strip("/"), "folder", bits, owner, int(status.st_mtime))
        if entry.is_folder:
            return common
        if entry.is_link:
            return replace(common, kind="link", mode=0o777, target=entry.target)
        if entry.is_file:
            return replace(common, kind="file", size_bytes=status.st_size, open=entry.open)
        kind = {stat.S_IFIFO: "a FIFO", stat.S_IFSOCK: "a socket"}.get(stat.S_IFMT(status.st_mode), "a device")
        raise BuildError(f"COPY failed: {entry.path} is {kind}: only files, folders and links can be copied.")


class Items:
    """Collects the items of one layer over the file tree ``below``; adds the folders that lead to each."""

    def __init__(self, below: Tree, owner_of: Callable[[Entry], Owner]) -> None:
        self._below = below
        self._owner_of = owner_of
        self._items: dict[str, Item] = {}

    def __iter__(self) -> Iterator[Item]:
        return iter(self._items.values())

    def __len__(self) -> int:
        return len(self._items)

    def add(self, item: Item, *, new_folders: Owner) -> None:
        """Add ``item``; folders on the way that are not there yet belong to ``new_folders``. Raises: BuildError."""
        name = posixpath.basename(item.path)
        if name.startswith(_MARK):
            raise BuildError(
                f"{item.path}: a name that begins with {_MARK} means a deletion in a layer; rename the file."
            )
        if not item.path:
            return  # the root is always there
        self.add_folders(posixpath.dirname(item.path), new_folders)
        before = self._items.get(item.path)
        if before is not None and (before.kind == "folder") != (item.kind == "folder"):
            raise BuildError(f"cannot put a {item.kind} over a {before.kind}: /{item.path}.")
        if before is not None and before.kind == "folder" and item.kind == "folder":
            return
        self._items.pop(item.path, None)
        self._items[item.path] = item

    def add_folders(self, path: str, owner: Owner) -> None:
        """Add the folder ``path`` and those above it, as they are or, if they are not there, new ones of ``owner``."""
        parts = [part for part in path.split("/") if part]
        for number in range(1, len(parts) + 1):
            folder = "/".join(parts[:number])
            known = self._items.get(folder)
            if known is not None:
                if known.kind != "folder":
                    raise BuildError(f"cannot make a folder at /{folder}: a {known.kind} was put there.")
                continue
            entry = self._below.find(f"/{folder}", follow=False)
            if entry is not None and entry.is_folder:
                self._items[folder] = Item.of(entry, folder, self._owner_of(entry))
            elif entry is None:
                self._items[folder] = Item(folder, "folder", 0o755, owner)
            else:
                raise BuildError(f"cannot make a folder at /{folder}: the image has something else there.")

    def is_folder(self, path: str) -> bool:
        """Say whether ``path`` is a folder, in what was added so far or in the image below."""
        known = self._items.get(path.strip("/"))
        if known is not None:
            return known.kind == "folder"
        entry = self._below.find(path)
        return entry is not None and entry.is_folder

"""File trees that a build reads from: the context's folder, and the layers of an image seen as one tree.

Nothing is mounted for that. A folder of the merged tree is a list of host folders, topmost layer first; a name is looked for in each.
A whiteout ends the look-up, a folder marked opaque hides those below it, a file hides everything. Symbolic links are followed
component by component as if the tree's root were ``/``, so that no link, and no folder that is a link in a lower layer,
leads out of the tree.

Leaves out: extended attributes other than OverlayFS's own marks.
See: Documentation/filesystems/overlayfs.rst in Linux; path_resolution(7).
"""

from __future__ import annotations

import errno
import os
import posixpath
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from io import BufferedReader
from pathlib import Path

from labkit.image.build.errors import BuildError

__all__ = ["Entry", "Tree"]

_MOST_LINKS = 40  # as the kernel: path_resolution(7)
_NO_SUCH_FILE = (errno.ENOENT, errno.ENOTDIR)
_OPAQUE = ("user.overlay.opaque", "trusted.overlay.opaque")
_WHITEOUT = ("user.overlay.whiteout", "trusted.overlay.whiteout")


@dataclass(frozen=True, slots=True)
class Entry:
    """Something in a tree: its path (``/`` is the root), its status, and where it lies on the host (a folder: in each layer)."""

    path: str
    status: os.stat_result = field(repr=False)
    places: tuple[str, ...] = field(repr=False)

    @property
    def is_folder(self) -> bool:
        """True for a folder."""
        return stat.S_ISDIR(self.status.st_mode)

    @property
    def is_file(self) -> bool:
        """True for a regular file."""
        return stat.S_ISREG(self.status.st_mode)

    @property
    def is_link(self) -> bool:
        """True for a symbolic link."""
        return stat.S_ISLNK(self.status.st_mode)

    @property
    def mode(self) -> int:
        """The permission bits."""
        return stat.S_IMODE(self.status.st_mode)

    @property
    def target(self) -> str:
        """What a symbolic link says."""
        return os.readlink(self.places[0])

    def open(self) -> BufferedReader:
        """Open a regular file for reading. Raises: OSError; BuildError if it is no regular file any more."""
        fd = os.open(self.places[0], os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        file = os.fdopen(fd, "rb")
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            file.close()
            raise BuildError(f"{self.path} changed while it was read: it is no regular file any more.")
        return file


class Tree:
    """A file tree on one folder, or on the layers of an image (``layers``: topmost first, with whiteouts).

    ``hides`` says which paths (without the leading slash) are not there, as .dockerignore wants it.
    """

    def __init__(
        self, folders: Sequence[Path | str], *, layers: bool = False, hides: Callable[[str], bool] | None = None,
        prunes: Callable[[str], bool] | None = None,
    ) -> None:  # fmt: skip
        self._layers = layers
        self._hides = hides or (lambda path: False)
        self._prunes = prunes or self._hides
        places = tuple(os.fspath(folder) for folder in folders)
        # FROM scratch has no layer; its root is an empty folder that nobody owns.
        status = os.lstat(places[0]) if places else os.stat_result((stat.S_IFDIR | 0o755, *(0,) * 9))
        self.root = Entry("/", status, places)

    def child(self, folder: Entry, name: str) -> Entry | None:
        """Return what ``folder`` holds under ``name``; None if nothing. Links are not followed."""
        path = f"{folder.path.rstrip('/')}/{name}"
        if self._hides(path[1:]):
            return self._hidden_folder(folder, name, path)
        return self._child(folder, name, path)

    def _hidden_folder(self, folder: Entry, name: str, path: str) -> Entry | None:
        """A hidden folder is still a way to what a later ``!pattern`` has taken back in."""
        if self._prunes(path[1:]):
            return None
        entry = self._child(folder, name, path)
        if entry is None or not entry.is_folder or not any(True for _ in self.walk(entry)):
            return None
        return entry

    def _child(self, folder: Entry, name: str, path: str) -> Entry | None:
        found: os.stat_result | None = None
        places: list[str] = []
        for place in folder.places:
            here = f"{place}/{name}"
            try:
                status = os.lstat(here)
            except OSError as error:
                if error.errno in _NO_SUCH_FILE:
                    continue
                raise
            if (self._layers and is_whiteout(here, status)) or (found and not stat.S_ISDIR(status.st_mode)):
                break
            found = found or status
            places.append(here)
            if not stat.S_ISDIR(status.st_mode) or (self._layers and is_opaque(here)):
                break
        return Entry(path, found, tuple(places)) if found else None

    def children(self, folder: Entry) -> Iterator[Entry]:
        """Yield what ``folder`` holds, sorted by name."""
        names: set[str] = set()
        for place in folder.places:
            names.update(os.listdir(place))
        for name in sorted(names, key=os.fsencode):
            entry = self.child(folder, name)
            if entry is not None:
                yield entry

    def walk(self, folder: Entry) -> Iterator[Entry]:
        """Yield all below ``folder``, each folder before what it holds."""
        waiting = [self.children(folder)]
        while waiting:
            entry = next(waiting[-1], None)
            if entry is None:
                waiting.pop()
                continue
            yield entry
            if entry.is_folder:
                waiting.append(self.children(entry))

    def find(self, path: str, *, follow: bool = True) -> Entry | None:
        """Return what lies at ``path`` seen from the root; ``follow`` a symbolic link that stands at its end.

        Raises: BuildError for a circle of links.
        """
        entry, missing = self._resolve(path, follow=follow)
        return None if missing else entry

    def place_of(self, path: str) -> tuple[Entry, list[str]]:
        """Return the last entry of ``path`` that is there, links followed, and the names that are not there yet."""
        return self._resolve(path, follow=True)

    def _resolve(self, path: str, *, follow: bool) -> tuple[Entry, list[str]]:
        above: list[Entry] = []
        entry, links = self.root, 0
        todo = [name for name in path.split("/") if name not in ("", ".")][::-1]
        while todo:
            name = todo.pop()
            if name == "..":
                entry = above.pop() if above else self.root
                continue
            found = self.child(entry, name) if entry.is_folder else None
            if found is None:
                rest = posixpath.normpath("/".join([name, *todo[::-1]]))
                return entry, [part for part in rest.split("/") if part not in ("", ".", "..")]
            if found.is_link and (todo or follow):
                links += 1
                if links > _MOST_LINKS:
                    raise BuildError(f"{path}: too many levels of symbolic links.")
                target = found.target
                if target.startswith("/"):
                    entry, above = self.root, []
                todo += [part for part in target.split("/") if part not in ("", ".")][::-1]
                continue
            above.append(entry)
            entry = found
        return entry, []


def is_whiteout(path: str, status: os.stat_result) -> bool:
    """Say whether an entry of a layer's folder only hides its namesakes below. See: `labkit.isolation.overlay`."""
    if stat.S_ISCHR(status.st_mode):
        return status.st_rdev == 0
    return stat.S_ISREG(status.st_mode) and status.st_size == 0 and any(_has_mark(path, name) for name in _WHITEOUT)


def is_opaque(path: str) -> bool:
    """Say whether a folder of a layer hides its namesakes below whole."""
    return any(_has_mark(path, name) for name in _OPAQUE)


def _has_mark(path: str, name: str) -> bool:
    try:
        return os.getxattr(path, name, follow_symlinks=False) == b"y"
    except OSError:
        return False  # ENODATA; or a file system, or a user, that has no such attributes

"""COPY and ADD: which files end up where in the layer, with which owner and mode.

The rules are Docker's: a target that ends with a slash, or is a folder already, takes files in; a folder's *contents* are copied, not the folder
itself; several sources need a target that ends with a slash; everything belongs to root unless ``--chown`` says
otherwise; missing folders are made. The target is looked up in the image as it is so far, links followed inside it.

Leaves out: ``--parents``; ``--chmod`` with letters.
See: dockerfile(5), "COPY", "ADD".
"""

from __future__ import annotations

import io
import posixpath
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from labkit.image.build.archive import is_archive, unpacked_items
from labkit.image.build.context import select
from labkit.image.build.dockerignore import Ignore
from labkit.image.build.errors import BuildError
from labkit.image.build.items import Item, Items, Owner
from labkit.image.build.tree import Entry, Tree

__all__ = ["CopyPlan", "Selected", "check_sources", "parse_chmod", "plan_copy", "select_sources"]

_REMOTE = re.compile(r"[a-z][a-z0-9+.-]*://|git@", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Selected:
    """What one COPY takes: entries of a tree (each with all below it), and files that stand in the Containerfile."""

    tree: Tree
    entries: tuple[Entry, ...]
    texts: tuple[tuple[str, bytes], ...] = ()
    excluded: Ignore = field(default_factory=Ignore)

    def below(self, entry: Entry) -> Iterable[tuple[str, Entry]]:
        """Yield path relative to ``entry`` and entry of all below it that is not excluded."""
        for found in self.tree.walk(entry):
            if not self.excluded.hides(found.path[1:]):
                yield found.path[len(entry.path.rstrip("/")) + 1 :], found


@dataclass(frozen=True, slots=True)
class CopyPlan:
    """How to copy: the resolved instruction."""

    target: str
    workdir: str
    owner: Owner = field(default_factory=Owner)
    mode: int | None = None
    unpacks: bool = False
    keeps_archive_owners: bool = True


def check_sources(sources: Sequence[str], keyword: str, *, line: int) -> None:
    """Refuse what lies on another machine. Raises: BuildError with the remedy."""
    for source in sources:
        if _REMOTE.match(source):
            remedy = "download it into the context first (curl -O), and COPY or ADD the file"
            raise BuildError(f"{keyword} {source}: remote sources are not fetched in a build: {remedy}.", line=line)


def select_sources(
    tree: Tree, sources: Sequence[str], *, where: str, excludes: Sequence[str] = (), line: int = 0
) -> Selected:
    """Return what ``sources`` name in ``tree``. Raises: BuildError for one that is missing or outside."""
    entries = [entry for source in sources for entry in select(tree, source, where=where, line=line)]
    return Selected(tree, tuple(entries), excluded=Ignore.from_patterns(excludes, where="--exclude"))


def parse_chmod(text: str, *, line: int) -> int | None:
    """Return the mode that ``--chmod`` names; None for an empty text. Raises: BuildError."""
    if not text:
        return None
    if not re.fullmatch(r"[0-7]{3,4}", text):
        raise BuildError(f"invalid chmod parameter: {text!r}: write it in octal digits, as in --chmod=755.", line=line)
    return int(text, 8)


def plan_copy(
    selected: Selected, plan: CopyPlan, below: Tree, owner_of: Callable[[Entry], Owner], scratch: Callable[[], Path],
    *, line: int,
) -> Items:  # fmt: skip
    """Return the items of the layer. What archives hold lies in a folder that ``scratch`` gives, until the layer is written.

    Raises: BuildError for a target that cannot take the sources.
    """
    items = Items(below, owner_of)
    number = len(selected.entries) + len(selected.texts)
    if number > 1 and not _names_folder(plan.target):
        raise BuildError(
            "When using COPY with more than one source file, the destination must be a directory and end with a /.",
            line=line,
        )
    try:
        copier = _Copier(items, plan, below, scratch)
        for entry in selected.entries:
            copier.copy(entry, selected)
        for name, data in selected.texts:
            copier.put_text(name, data)
    except BuildError as error:
        raise BuildError(str(error), line=line) from error
    return items


def _names_folder(target: str) -> bool:
    return target.endswith("/") or posixpath.basename(target) in (".", "..", "")


class _Copier:
    def __init__(self, items: Items, plan: CopyPlan, below: Tree, scratch: Callable[[], Path]) -> None:
        self.items, self.plan, self.below, self.scratch = items, plan, below, scratch
        self.target = self._resolved(posixpath.join(plan.workdir or "/", plan.target))

    def _resolved(self, path: str) -> str:
        """Return ``path`` with the links in the image followed."""
        entry, missing = self.below.place_of(path)
        if missing and not entry.is_folder:
            raise BuildError(f"cannot copy to non-directory: {entry.path}.")
        return posixpath.join(entry.path, *missing)

    def copy(self, entry: Entry, selected: Selected) -> None:
        if entry.is_folder:
            self._copy_folder(entry, selected)
        elif self.plan.unpacks and entry.is_file and is_archive(entry):
            self._unpack(entry)
        else:
            self._put(Item.of(entry, self._file_target(entry.path), self.plan.owner, mode=self.plan.mode))

    def put_text(self, name: str, data: bytes) -> None:
        mode = 0o644 if self.plan.mode is None else self.plan.mode
        path = self._file_target(name).strip("/")
        self._put(Item(path, "file", mode, self.plan.owner, 0, "", len(data), lambda: io.BytesIO(data)))

    def _file_target(self, source: str) -> str:
        if _names_folder(self.plan.target) or self.items.is_folder(self.target):
            return self._resolved(posixpath.join(self.target, posixpath.basename(source)))
        return self.target

    def _put(self, item: Item) -> None:
        if item.kind != "folder" and self.items.is_folder(f"/{item.path}"):
            raise BuildError(f"cannot copy a file over the folder /{item.path}.")
        self.items.add(item, new_folders=self.plan.owner)

    def _copy_folder(self, folder: Entry, selected: Selected) -> None:
        self._make_target(Item.of(folder, self.target, self.plan.owner, mode=self.plan.mode))
        moved: dict[str, str] = {"": self.target}
        for relative, entry in selected.below(folder):
            parent, name = posixpath.split(relative)
            if parent not in moved:
                moved[parent] = posixpath.join(self.target, parent)  # its folder is excluded, what is in it is not
            path = posixpath.join(moved[parent], name)
            if entry.is_folder:
                # Where the image has a link to a folder (/bin -> usr/bin), the files go there, as cp does it.
                moved[relative] = path = self._resolved(path)
            if not (entry.is_folder and self.items.is_folder(path)):
                self._put(Item.of(entry, path, self.plan.owner, mode=self._mode(entry)))

    def _mode(self, entry: Entry) -> int | None:
        return None if entry.is_link else self.plan.mode

    def _make_target(self, folder: Item) -> None:
        """Make the target folder: a new one like the source, unless there is one."""
        if self.items.is_folder(self.target):
            self.items.add_folders(self.target, self.plan.owner)
        elif self.below.find(self.target) is not None:
            raise BuildError(f"cannot copy to non-directory: {self.target}.")
        else:
            self.items.add(folder, new_folders=self.plan.owner)

    def _unpack(self, archive: Entry) -> None:
        self.items.add_folders(self.target, self.plan.owner)
        owner = None if self.plan.keeps_archive_owners else self.plan.owner
        for item in unpacked_items(archive, self.target, owner=owner, mode=self.plan.mode, scratch=self.scratch()):
            if item.kind == "folder" and self.items.is_folder(f"/{item.path}"):
                continue
            self._put(item)

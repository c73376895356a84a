"""The build context: the folder of files that COPY and ADD may take, and nothing outside it.

A context is a folder of the caller's, or a tar stream (as ``docker build`` sends one), which is unpacked into a temporary folder first.
Sources are paths within it; ``*``, ``?`` and ``[…]`` match names, one path component at a time. A symbolic link that is named
as a source is followed inside the context only.

Leaves out: contexts from a URL or a git repository.
See: dockerfile(5), "COPY"; docker-build(1), "PATH".
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from labkit.image.build.dockerignore import Ignore, glob_regex, read_ignore_file
from labkit.image.build.errors import BuildError, ContainerfileError
from labkit.image.build.tree import Entry, Tree

__all__ = ["NAMES", "Context", "check_context_name", "find_containerfile", "select"]

#: Where a Containerfile is looked for if nobody says which.
NAMES = ("Containerfile", "Dockerfile")
_SPECIAL = re.compile(r"[*?\[\\]")


@dataclass(slots=True)
class Context:
    """The files of a build: ``tree`` without what .dockerignore leaves out."""

    folder: Path
    ignore: Ignore
    tree: Tree

    @classmethod
    def of(cls, folder: Path, containerfile_name: str = "Containerfile") -> Context:
        """Return the context in ``folder``. Raises: BuildError if it is no folder, ContainerfileError for a bad ignore file."""
        if not folder.is_dir():
            raise BuildError(f"unable to prepare context: path {str(folder)!r} not found: give a folder of files.")
        ignore = read_ignore_file(folder, containerfile_name)
        return cls(folder, ignore, Tree([folder], hides=ignore.hides, prunes=ignore.hides_all_below))


def find_containerfile(folder: Path, name: str | None = None) -> Path:
    """Return the Containerfile of a context: ``name`` (in the folder, or a path), else Containerfile, else Dockerfile.

    Raises: ContainerfileError naming what was looked for.
    """
    names = NAMES if name is None else (name,)
    for candidate in names:
        for path in (folder / candidate, Path(candidate)):
            if path.is_file() and (name is not None or path.parent == folder):
                return path
    raise ContainerfileError(
        f"failed to read dockerfile: open {names[0]}: no such file or directory in {folder}: write one there, or name it with -f."
    )


def select(tree: Tree, source: str, *, where: str, line: int = 0) -> list[Entry]:
    """Return what ``source`` names in ``tree``, links at its end followed, sorted. ``where`` is the tree's name in errors.

    Raises: BuildError as Docker does: outside the context, not found, a pattern that matches nothing.
    """
    depth = 0
    for part in source.lstrip("/").split("/"):
        depth += {"..": -1, ".": 0, "": 0}.get(part, 1)
        if depth < 0 and where == "build context":
            raise BuildError(
                f"COPY failed: forbidden path outside the build context: {source} (): only files below the context's folder"
                " can be copied; build from a folder further up.",
                line=line,
            )
    path = posixpath.normpath(f"/{source}").replace("//", "/")
    try:
        found = [] if not _SPECIAL.search(path) else list(_glob(tree, tree.root, path[1:].split("/")))
    except ValueError as error:
        raise BuildError(f"COPY failed: {source!r} is no pattern ({error}).", line=line) from None
    literal = tree.find(path) if not found else None
    if literal is not None:
        found = [_named(literal, path)]
    if not found:
        raise BuildError(_not_found(source, where, has_pattern=bool(_SPECIAL.search(path))), line=line)
    return found


def _not_found(source: str, where: str, *, has_pattern: bool) -> str:
    if has_pattern:
        return f"COPY failed: no source files were specified: {source!r} matches nothing in the {where}."
    hint = " or excluded by .dockerignore" if where == "build context" else ""
    name = source.lstrip("/")
    return f"COPY failed: file not found in {where}{hint}: stat {name}: file does not exist."


def _glob(tree: Tree, folder: Entry, parts: list[str]) -> Iterator[Entry]:
    """Yield what fits the components ``parts`` below ``folder``."""
    part, rest = parts[0], parts[1:]
    if not _SPECIAL.search(part):
        entries = [entry] if (entry := tree.find(f"{folder.path}/{part}")) else []
    else:
        pattern = re.compile(f"{glob_regex(part)}\\Z", re.DOTALL)
        entries = [entry for entry in tree.children(folder) if pattern.match(posixpath.basename(entry.path))]
    for entry in entries:
        followed = tree.find(entry.path) if entry.is_link else entry
        if followed is None:
            continue  # a link that leads nowhere matches nothing
        if not rest:
            yield _named(followed, entry.path)
        elif followed.is_folder:
            yield from _glob(tree, followed, rest)


def _named(entry: Entry, path: str) -> Entry:
    """A file that a link leads to is copied under the link's name; of a folder only the contents are copied."""
    return entry if entry.is_folder else replace(entry, path=path)


def check_context_name(name: str) -> str:
    """Return ``name`` if a Containerfile of the context can be called so. Raises: ContainerfileError."""
    if posixpath.normpath(f"/{name}") == "/" or ".." in name.split("/"):
        raise ContainerfileError(f"the Dockerfile ({name}) must be within the build context.")
    return name

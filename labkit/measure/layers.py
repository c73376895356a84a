"""Stacked layers, looked at file by file: what lies in each folder, and what the container sees of it.

A layer is a folder on the host, so it can be read from outside while a container uses it. What OverlayFS leaves in the writable
one tells what happened: a whole file where one was changed or made, a *whiteout* where one was deleted (a character device 0:0,
or an empty file with a mark), an *opaque* mark on a folder that hides its namesakes below. What the container sees is read from
``/proc/PID/root``, so it is the kernel's answer and not a calculation from the layers.

Leaves out: extended attributes other than OverlayFS's own marks; hard links; files that only the container's users may read.
See: Documentation/filesystems/overlayfs.rst in Linux, `labkit.isolation.overlay`, proc_pid_root(5).
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from labkit.container.container import Container
from labkit.errors import InvalidState
from labkit.measure.record import Result

__all__ = ["Entry", "Layer", "Stack", "changed_between", "look_at_stack", "read_layer", "writable_folder"]

#: How much of a file's first line stands in its entry.
_TEXT_BYTES = 24
_NO_SUCH_FILE = (errno.ENOENT, errno.ENOTDIR)
#: No such mark, or a file system that keeps none.
_NO_MARK = (errno.ENODATA, errno.EOPNOTSUPP, errno.EPERM, errno.EACCES)


@dataclass(frozen=True, slots=True)
class Entry(Result):
    """One name in a layer. ``kind``: file, folder, opaque folder, whiteout, link, other. ``text`` is a file's first line."""

    path: str
    kind: str
    mode: int
    size_bytes: int
    text: str = ""

    def __str__(self) -> str:
        """Return one line, as a lesson prints it."""
        size = f"{self.size_bytes} B" if self.kind == "file" else ""
        return f"{self.path:<16} {self.kind:<14} {size:>12}  {self.text}".rstrip()


@dataclass(frozen=True, slots=True)
class Layer(Result):
    """One folder of the stack; only the topmost one is ever ``writable``."""

    name: str
    writable: bool
    entries: tuple[Entry, ...]

    def entry(self, path: str) -> Entry | None:
        """Return what stands at ``path`` in this layer alone; None if nothing does."""
        return next((entry for entry in self.entries if entry.path == path), None)

    def at(self, paths: Sequence[str]) -> Layer:
        """Return this layer as a look at ``paths`` alone would have shown it."""
        return replace(self, entries=tuple(entry for entry in self.entries if entry.path in paths))


@dataclass(frozen=True, slots=True)
class Stack(Result):
    """The layers of one container, topmost first, and the one tree that it sees (``merged``), at ``paths``."""

    name: str
    paths: tuple[str, ...]
    layers: tuple[Layer, ...]
    merged: tuple[Entry, ...]

    @property
    def upper(self) -> Layer:
        """The writable layer."""
        return self.layers[0]

    def sees(self, path: str) -> Entry | None:
        """Return what the container sees at ``path``; None if there is nothing."""
        return next((entry for entry in self.merged if entry.path == path), None)

    def source(self, path: str) -> str:
        """Return the name of the topmost layer that says anything about ``path``: where the lookup ends; "" if none does."""
        return next((layer.name for layer in self.layers if layer.entry(path) is not None), "")


def read_layer(folder: Path, paths: Iterable[str] | None = None) -> tuple[Entry, ...]:
    """Return what lies in ``folder``, read from outside, sorted by path; only at ``paths`` (as ``/etc/motd``) if given."""
    if paths is None:
        paths = sorted(_walk(folder, ""))
    found = (_entry(folder, path) for path in paths)
    return tuple(entry for entry in found if entry is not None)


def look_at_stack(container: Container, paths: Sequence[str], *, name: str = "") -> Stack:
    """Return the layers of a running ``container`` and what it sees, at ``paths`` and wherever its writable layer has something.

    Raises: InvalidState unless the container runs with ``rootfs=`` folders and a ``writable=`` one.
    """
    rootfs = container.spec.rootfs
    if container.status != "running" or rootfs.kind != "overlay" or rootfs.writable is None:
        raise InvalidState(
            f"{container.name} shows no stack: start it, with rootfs=[folders] and writable=FOLDER, before looking."
        )
    upper = read_layer(Path(rootfs.writable, "upper"))
    wanted = tuple(dict.fromkeys([*paths, *(entry.path for entry in upper)]))
    lowers = tuple(
        Layer(Path(path).name, writable=False, entries=read_layer(Path(path), wanted)) for path in rootfs.lowers
    )
    merged = read_layer(Path(f"/proc/{container.pid}/root"), wanted)
    return Stack(name or container.name, wanted, (Layer("upper", writable=True, entries=upper), *lowers), merged)


@contextmanager
def writable_folder(folder: Path) -> Iterator[Path]:
    """Make ``folder`` for a container's ``writable=``; in the end let whoever made it remove it.

    OverlayFS makes a scratch folder of its own inside ``work``, with mode 000: root may pass, its owner may not.
    """
    folder.mkdir()
    try:
        yield folder
    finally:
        scratch = folder / "work" / "work"
        if scratch.is_dir() and scratch.stat().st_uid == os.geteuid():
            scratch.chmod(0o700)


def changed_between(before: Layer, after: Layer) -> tuple[str, ...]:
    """Return what happened to a layer, one clause a path: "a whiteout at /srv/old appeared"."""
    clauses = []
    for path in dict.fromkeys(entry.path for entry in (*before.entries, *after.entries)):
        old, new = before.entry(path), after.entry(path)
        if new is None:
            clauses.append(f"{path} went away")
        elif old is None:
            clauses.append(f"{_with_article(new.kind)} at {path} appeared")
        elif old != new:
            clauses.append(f"{path} changed" if old.kind == new.kind else f"{path} became {_with_article(new.kind)}")
    return tuple(clauses)


def _with_article(kind: str) -> str:
    return f"an {kind}" if kind[0] in "aeiou" else f"a {kind}"


def _walk(folder: Path, below: str) -> list[str]:
    """Return the paths under ``folder``; a folder that may not be read is a path without further ones."""
    try:
        names = sorted(os.listdir(f"{folder}{below}"))
    except PermissionError:
        return []
    paths = []
    for name in names:
        path = f"{below}/{name}"
        paths.append(path)
        if stat.S_ISDIR(os.lstat(f"{folder}{path}").st_mode):
            paths += _walk(folder, path)
    return paths


def _entry(folder: Path, path: str) -> Entry | None:
    place = f"{folder}{path}"
    try:
        status = os.lstat(place)
        kind = _kind(place, status)
        text = _first_line(place) if kind == "file" else os.readlink(place) if kind == "link" else ""
    except OSError as error:
        if error.errno in _NO_SUCH_FILE:
            return None
        raise
    return Entry(path, kind, stat.S_IMODE(status.st_mode), status.st_size if kind == "file" else 0, text)


def _kind(place: str, status: os.stat_result) -> str:
    if stat.S_ISCHR(status.st_mode) and status.st_rdev == 0:
        return "whiteout"
    if stat.S_ISDIR(status.st_mode):
        return "opaque folder" if _mark(place, "opaque") == b"y" else "folder"
    if stat.S_ISREG(status.st_mode):
        return "whiteout" if status.st_size == 0 and _mark(place, "whiteout") is not None else "file"
    return "link" if stat.S_ISLNK(status.st_mode) else "other"


def _mark(place: str, name: str) -> bytes | None:
    """Return one of OverlayFS's marks; in a user namespace they are ``user.`` attributes, else ``trusted.`` ones."""
    for prefix in ("user.overlay.", "trusted.overlay."):
        try:
            return os.getxattr(place, prefix + name, follow_symlinks=False)
        except OSError as error:
            if error.errno not in _NO_MARK:
                raise
    return None


def _first_line(place: str) -> str:
    try:
        with open(place, "rb") as file:
            data = file.read(_TEXT_BYTES)
    except PermissionError:
        return ""
    text = data.split(b"\n")[0].decode(errors="replace")
    return text if text.isprintable() else ""

"""Locks of the content store: several programs read and write it at once, and each of them may be killed at any moment.

Three kinds, all of them flock(2), which the kernel drops when their holder ends, however it ends:

* the *store's lock*, held for moments: shared while something is put in its place, exclusive while names change or garbage is collected;
* *scratch*: a half-made file or folder in ``tmp/`` is locked by its maker, so one that can be locked is a leftover;
* a *lease*: a list of digests that its holder (a pull, a build, a running container) needs although no name leads to them yet.

A collection takes the store's lock for itself, and counts what living leases list as needed. So it never has to wait for a
pull, and never takes away what one has just brought.

Leaves out: locks across machines (network file systems).
See: flock(2).
"""

from __future__ import annotations

import fcntl
import os
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from labkit.linux.fds import Fd

__all__ = ["SCRATCH_PREFIX", "Lease", "Leases", "StoreLock", "dead_entries", "hold_new_file", "hold_new_folder"]

SCRATCH_PREFIX = "labkit-"


class StoreLock:
    """The lock of one store. Each use opens the file anew, so threads exclude each other as processes do; never nest two."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Hold the lock together with others, while something finished is put in its place."""
        with self._held(fcntl.LOCK_SH):
            yield

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Hold the lock alone, while names change or garbage goes."""
        with self._held(fcntl.LOCK_EX):
            yield

    @contextmanager
    def _held(self, kind: int) -> Iterator[None]:
        with Fd(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)) as fd:
            fcntl.flock(fd, kind)
            yield


def hold_new_file(folder: Path, name: str = "") -> tuple[Path, Fd]:
    """Make an empty file in ``folder`` and lock it; return its path and the descriptor that holds the lock."""
    while True:
        path = folder / (name or f"{SCRATCH_PREFIX}{secrets.token_hex(8)}")
        fd = Fd(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
        if _lock_while_there(path, fd):
            return path, fd
        fd.close()


def hold_new_folder(folder: Path) -> tuple[Path, Fd]:
    """Make an empty folder in ``folder`` and lock it; return its path and the descriptor that holds the lock."""
    while True:
        path = folder / f"{SCRATCH_PREFIX}{secrets.token_hex(8)}"
        os.mkdir(path, 0o700)
        try:
            fd = Fd(os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW))
        except FileNotFoundError:
            continue
        if _lock_while_there(path, fd):
            return path, fd
        fd.close()


def _lock_while_there(path: Path, fd: Fd) -> bool:
    """Lock ``fd``; False if a collection found it unlocked a moment before and has removed it."""
    fcntl.flock(fd, fcntl.LOCK_EX)
    try:
        return os.path.samestat(os.lstat(path), os.fstat(fd.fileno()))
    except FileNotFoundError:
        return False


def dead_entries(folder: Path) -> Iterator[tuple[Path, Fd]]:
    """Yield what lies in ``folder`` and is held by nobody, each with a lock on it while the caller looks at it or removes it."""
    try:
        names = sorted(os.listdir(folder))
    except FileNotFoundError:
        return
    for name in names:
        path = folder / name
        try:
            fd = Fd(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK))
        except OSError:
            continue
        with fd:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            if path.exists():
                yield path, fd


class Lease:
    """Keeps digests from being collected until `close`, or until the process ends. Made by `Leases.take`."""

    def __init__(self, leases: Leases, path: Path, fd: Fd) -> None:
        self._leases = leases
        self._path = path
        self._fd = fd
        self._added: set[str] = set()

    def add(self, digest: str) -> None:
        """Keep ``digest``, and all that a manifest of this digest leads to."""
        if digest not in self._added and self._fd.number >= 0:
            # One write at the end of the file: what a killed holder leaves has whole lines only.
            os.write(self._fd.number, f"{digest}\n".encode())
            self._added.add(digest)

    def close(self) -> None:
        """Let go; safe to call twice."""
        self._leases.forget(self)
        if self._fd.number >= 0:
            self._path.unlink(missing_ok=True)
        self._fd.close()

    def __enter__(self) -> Lease:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Leases:
    """The leases of one store: those that this object's owner holds, and those of everybody in ``folder``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._own: list[Lease] = []
        self._mutex = threading.Lock()

    def take(self) -> Lease:
        """Return a new lease; from now on whatever this store's owner brings or finds is added to it."""
        path, fd = hold_new_file(self.folder)
        os.set_inheritable(fd.number, False)  # noqa: FBT003 - the function takes it only so
        lease = Lease(self, path, fd)
        with self._mutex:
            self._own.append(lease)
        return lease

    def forget(self, lease: Lease) -> None:
        """Take a lease that ends off the list."""
        with self._mutex:
            if lease in self._own:
                self._own.remove(lease)

    def add(self, digest: str) -> None:
        """Add ``digest`` to every lease that is held here. The caller holds the store's lock, at least shared."""
        with self._mutex:
            for lease in self._own:
                lease.add(digest)

    @property
    def any_held(self) -> bool:
        """True while this object's owner holds a lease."""
        return bool(self._own)

    def leased(self) -> set[str]:
        """Return the digests that living leases list, anybody's; remove dead ones. The caller holds the store's lock alone."""
        for path, _ in dead_entries(self.folder):
            path.unlink(missing_ok=True)
        found: set[str] = set()
        for path in self.folder.iterdir():
            try:
                found |= set(path.read_text().split())
            except FileNotFoundError:
                continue  # closed meanwhile
        return found

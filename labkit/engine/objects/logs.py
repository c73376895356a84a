"""Reading a container's log: from the rotated files, oldest first, and on while it grows.

`read` begins at a time or so many lines from the end. `follow` is told by the keeper that the file has grown; it goes on in the next
file when the log is rotated under it.

See: `labkit.engine.keeper.logfile`; docker-logs(1).
"""

from __future__ import annotations

import json
import os
import select
import socket
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import BinaryIO

__all__ = ["Entry", "follow", "read"]

_MOST_FILES = 1000
_LOOK_MS = 2000


@dataclass(frozen=True, slots=True)
class Entry:
    """A piece of output: ``stream`` 1 or 2, when, and the bytes."""

    stream: int
    time: str
    data: bytes


def _parse(line: bytes) -> Entry | None:
    try:
        document = json.loads(line)
        stream = 2 if document["stream"] == "stderr" else 1
        return Entry(stream, str(document["time"]), str(document["log"]).encode())
    except (ValueError, KeyError, TypeError):
        return None  # half a line at a crash


def _files(path: str) -> list[str]:
    older = [f"{path}.{number}" for number in range(1, _MOST_FILES) if os.path.exists(f"{path}.{number}")]
    return [*reversed(older), *([path] if os.path.exists(path) else [])]


def read(
    path: str, *, tail: int | None, streams: frozenset[int], since: str = "", until: str = "", end: tuple[int, int] | None = None
) -> Iterator[Entry]:  # fmt: skip
    """Yield the entries of the log from ``since`` to ``until`` (RFC 3339; empty: no bound), only the last ``tail`` lines.

    ``end`` is an offset in the file of that inode: what has been written behind it since is left to `follow`. The files are opened
    now and not with the first entry: a client may remove the container before it reads what it asked for.
    """
    chosen = _chosen(list(_opened(path)), streams, since, until, end)
    if tail is None:
        return chosen
    return iter(deque(chosen, maxlen=tail))


def _opened(path: str) -> Iterator[BinaryIO]:
    for name in _files(path):
        with suppress(FileNotFoundError):
            yield open(name, "rb")


def _chosen(
    files: list[BinaryIO], streams: frozenset[int], since: str, until: str, end: tuple[int, int] | None
) -> Iterator[Entry]:
    for opened in files:
        with opened as file:
            left = end[0] if end is not None and os.fstat(file.fileno()).st_ino == end[1] else None
            for line in file:
                if left is not None and (left := left - len(line)) < 0:
                    break
                entry = _parse(line)
                if entry is None or entry.stream not in streams or entry.time < since:
                    continue
                if until and entry.time > until:
                    return
                yield entry


def follow(
    path: str, watch: socket.socket, *, streams: frozenset[int], after: int, inode: int
) -> Iterator[Entry | None]:
    """Yield what is written from the offset ``after`` of the file ``inode`` on, until ``watch`` ends; None now and then.

    The file is opened now, as in `read`.
    """
    return _following(path, _reopen(path, None, inode, after), watch, streams)


def _following(
    path: str, file: BinaryIO | None, watch: socket.socket, streams: frozenset[int]
) -> Iterator[Entry | None]:
    poll = select.poll()
    poll.register(watch, select.POLLIN)
    try:
        ended = False
        while True:
            for entry in _new_entries(file):
                if entry.stream in streams:
                    yield entry
            if _is_rotated(path, file):
                file = _reopen(path, file, 0, 0)
                continue
            if ended:
                return
            if not poll.poll(_LOOK_MS):
                yield None
                continue
            ended = not watch.recv(64)
    finally:
        if file is not None:
            file.close()


def _new_entries(file: BinaryIO | None) -> Iterator[Entry]:
    while file is not None:
        at = file.tell()
        line = file.readline()
        if not line.endswith(b"\n"):
            file.seek(at)  # not all of it is there yet
            return
        entry = _parse(line)
        if entry is not None:
            yield entry


def _is_rotated(path: str, file: BinaryIO | None) -> bool:
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return False
    return file is None or os.fstat(file.fileno()).st_ino != status.st_ino


def _reopen(path: str, before: BinaryIO | None, inode: int, offset: int) -> BinaryIO | None:
    if before is not None:
        before.close()
    try:
        file = open(path, "rb")
    except FileNotFoundError:
        return None
    if os.fstat(file.fileno()).st_ino == inode:
        file.seek(offset)
    return file

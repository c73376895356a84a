"""Where the image commands write archives to and read them from: a file, or the standard streams.

An archive is never written to a terminal, and a file appears under its name only when it is whole.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from labkit.errors import InvalidSpec

__all__ = ["reading", "writing"]


@contextmanager
def writing(path: str | None) -> Iterator[IO[bytes]]:
    """Give a binary file to write to: ``path``, or standard output for None and ``-``. Raises: InvalidSpec for a terminal."""
    if path is None or path == "-":
        if sys.stdout.isatty():
            raise InvalidSpec(
                "An archive would only garble the terminal: write it to a file with -o FILE, or into a pipe."
            )
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    target = Path(path)
    if target.exists() and not target.is_file():
        with target.open("wb") as out:  # a device or a FIFO
            yield out
        return
    scratch = target.with_name(f".labkit-{os.getpid()}-{target.name}")
    try:
        with scratch.open("wb") as out:
            yield out
        scratch.replace(target)
    finally:
        scratch.unlink(missing_ok=True)


@contextmanager
def reading(path: str | None) -> Iterator[IO[bytes]]:
    """Give a binary file to read from: ``path``, or standard input for None and ``-``. Raises: InvalidSpec for a terminal."""
    if path is None or path == "-":
        if sys.stdin.isatty():
            raise InvalidSpec("There is nothing to read but the terminal: name a file, or use a pipe.")
        yield sys.stdin.buffer
        return
    with open(path, "rb") as file:
        yield file

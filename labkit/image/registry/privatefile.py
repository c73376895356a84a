"""A file of secrets that several programs change: read, changed and written back as a whole, by one at a time, for its owner alone.

A lock on a file beside it keeps others out; readers need none, as the new file takes the old one's place by rename(2).

See: flock(2), rename(2).
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

__all__ = ["changing"]

_Document = TypeVar("_Document", bound=dict[str, Any])


@contextmanager
def changing(path: Path, read: Callable[[], _Document]) -> Iterator[_Document]:
    """Give what ``read`` returns, to be changed; then write it to ``path`` as JSON. An error in between leaves the file as it was."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lock_fd = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock_fd, fcntl.LOCK_EX)
        document = read()
        yield document
        fd = os.open(f"{path}.new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with open(fd, "w") as file:
            os.fchmod(fd, 0o600)
            json.dump(document, file, indent=2)
            file.flush()
            os.fsync(fd)
        os.rename(f"{path}.new", path)
    finally:
        os.close(lock_fd)

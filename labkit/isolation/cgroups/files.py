"""Reading and writing cgroup files: one open, one read or write, one close each.

A cgroup has no system calls of its own: making one is mkdir(2), limiting it is write(2), deleting it is rmdir(2).
The kernel answers a write that it does not like with an errno; `write_limit` turns that into a sentence.

See: cgroups(7).
"""

from __future__ import annotations

import errno
import logging
import os

from labkit.errors import FeatureMissing, InvalidSpec, InvalidState, LabkitError

__all__ = ["explain_mkdir", "read_number", "read_pids", "read_text", "try_read", "write_limit", "write_text"]

log = logging.getLogger(__name__)


def read_text(path: str) -> str:
    """Return the whole file. Raises: OSError with ENOENT or ENODEV once the cgroup is gone."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        chunks = []
        while chunk := os.read(fd, 65536):
            chunks.append(chunk)
    finally:
        os.close(fd)
    return b"".join(chunks).decode()


def try_read(path: str) -> str | None:
    """Return the whole file, or None if this kernel does not have it, hides it or has just removed the cgroup."""
    try:
        return read_text(path)
    except OSError as error:
        # EOPNOTSUPP: pressure files of a kernel booted with psi=0; cgroup.procs of a threaded group.
        if error.errno in (errno.ENOENT, errno.ENODEV, errno.EACCES, errno.EOPNOTSUPP):
            return None
        raise


def read_number(path: str) -> int | None:
    """Return a file's single number; None for ``max`` or for no such file."""
    text = try_read(path)
    return int(text) if text is not None and text.strip().isdecimal() else None


def read_pids(path: str) -> list[int]:
    """Return the PIDs in a ``cgroup.procs`` file; an empty list once the cgroup is gone.

    A process outside the reader's PID namespace shows as 0.
    """
    return [int(word) for word in (try_read(path) or "").split()]


def write_text(path: str, text: str) -> None:
    """Write ``text`` in one write(2), as cgroup files demand. Raises: OSError."""
    log.debug("write(%r, %r)", path, text)
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


def write_limit(path: str, text: str) -> None:
    """Write a limit and say in one sentence what the kernel had against it.

    Raises: InvalidSpec (the value), InvalidState (the moment), FeatureMissing (the machine or the permissions).
    """
    try:
        write_text(path, text)
    except OSError as error:
        raise _explain(error, path, text) from error


def explain_mkdir(error: OSError, folder: str) -> LabkitError:
    """Return the sentence for an mkdir(2) of the cgroup ``folder`` that failed."""
    if error.errno == errno.EEXIST:
        return InvalidState(f"A cgroup {folder} exists already: choose another name.")
    if error.errno == errno.ENOENT:
        return InvalidState(f"The cgroup {os.path.dirname(folder)} was removed by somebody else.")
    return FeatureMissing(
        f"The cgroup {folder} cannot be made ({error.strerror}).", remedy="See cgroup.max.descendants."
    )


def _explain(error: OSError, path: str, text: str) -> LabkitError:
    asked = f"The kernel refused {text!r} for {path} ({os.strerror(error.errno or 0)})"
    if error.errno in (errno.EINVAL, errno.ERANGE):
        return InvalidSpec(f"{asked}: the value is wrong or more than a group above it allows.")
    if error.errno == errno.ENOENT and os.path.isdir(os.path.dirname(path)):
        return FeatureMissing(f"This kernel has no {os.path.basename(path)}.", remedy="Leave that limit out here.")
    if error.errno in (errno.ENOENT, errno.ENODEV) and not os.path.isdir(os.path.dirname(path)):
        return InvalidState(f"{asked}: the cgroup has been deleted.")
    if error.errno == errno.EBUSY:
        return InvalidState(f"{asked}: the group uses more than that and the kernel could not take enough back.")
    return FeatureMissing(f"{asked}.", remedy="Have the cgroup delegated to this user, or run as root.")

"""Unpacking an archive into a folder, whoever made it: with limits, into the container's ids, and by a child that is confined to the folder.

`unpack` feeds the tar to the child (`labkit.image.confined`, `labkit.image.extract`) through a pipe and gives back what the child counted. The stream is
read here, so that whatever it does on the way (checking a digest, decompressing) happens in parallel with the writing of files.
Of a layer that is not compressed the child reads the file itself, while the stream is only checked here.

What starts the child is loaded when there is something to unpack: a build whose steps are all in the cache does without it.

Leaves out: resuming; what is in the folder after an error is the caller's to remove.
See: OCI Image Specification, layer.md.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

from labkit.errors import ImageError
from labkit.image.tarstream import Readable
from labkit.linux.fds import Fd, pipe

__all__ = ["IdPolicy", "Readable", "UnpackLimits", "Unpacked", "unpack"]

_PIPE_BYTES = 1 << 20
_PART_BYTES = 1 << 18


@dataclass(frozen=True, slots=True)
class UnpackLimits:
    """What an archive may ask for at the most. ``ratio`` is unpacked to compressed, and counts from ``ratio_from_bytes`` on."""

    total_bytes: int = 64 << 30
    entries: int = 2_000_000
    path_bytes: int = 4096
    ratio: int = 400
    ratio_from_bytes: int = 1 << 30


@dataclass(frozen=True, slots=True)
class IdPolicy:
    """Who unpacked files belong to. ``keep_owners``: the image's ids, in the container's range; else all to its root."""

    keep_owners: bool = True

    @classmethod
    def here(cls) -> IdPolicy:
        """Return what is possible: with a single id (no range in /etc/subuid) everything belongs to it."""
        from labkit.image.confined import owners_here

        return cls(keep_owners=owners_here().has_range)


@dataclass(frozen=True, slots=True)
class Unpacked:
    """What was unpacked. ``skipped`` counts devices and attributes that were left out; ``opaque_root`` hides all lower layers."""

    entries: int
    bytes: int
    skipped: int
    opaque_root: bool


def unpack(
    stream: Readable, target: Path | str | int, *, limits: UnpackLimits | None = None, ids: IdPolicy | None = None,
    lowers: Sequence[Path] = (), is_layer: bool = True, plain_fd: int = -1,
) -> Unpacked:  # fmt: skip
    """Unpack the tar in ``stream`` (not compressed: see `labkit.image.layer`) into the folder ``target``.

    A layer's whiteouts become OverlayFS's; hard links may lead to ``lowers``, the folders of the layers below, topmost first. With
    ``is_layer`` False the archive is plain: names like ``.wh.x`` mean nothing. The folder itself is given to the container's root.
    ``plain_fd`` is a file with the very bytes of ``stream``: the child reads it, and the stream need not go through a pipe.

    Raises: ImageError naming the entry, FeatureMissing where no user namespace can be made, and what ``stream`` raises.
    """
    from labkit.image.confined import Confined, open_folder, owners_here

    limits = limits or UnpackLimits()
    ids = ids or IdPolicy.here()
    options = asdict(limits) | {"is_layer": is_layer, "keep_owners": ids.keep_owners}
    with ExitStack() as stack:
        folder_fd = stack.enter_context(open_folder(target))
        lower_fds = [stack.enter_context(open_folder(lower)).number for lower in lowers]
        source, write_end = _wide_pipe(stack) if plain_fd < 0 else (Fd(os.dup(plain_fd)), None)
        stack.enter_context(source)
        owners = owners_here()
        if owners.kind == "mapped":
            os.fchown(folder_fd.number, owners.root_uid, owners.root_gid)
        child = stack.enter_context(
            Confined("unpack", folder_fd.number, options, stream_fd=source.number, others=lower_fds)
        )
        source.close()
        try:
            _feed(stream, write_end)
        except ImageError as error:
            at = child.reached()
            raise ImageError(f"{error} Unpacking had come as far as {at}." if at else str(error)) from error
        report = child.result()
    return Unpacked(report["entries"], report["bytes"], report["skipped"], report["opaque_root"])


def _wide_pipe(stack: ExitStack) -> tuple[Fd, Fd]:
    """Return the ends of a pipe that holds a megabyte: fewer turns between the two processes. A user's limit may refuse it."""
    read_end, write_end = pipe()
    stack.enter_context(write_end)
    try:
        fcntl.fcntl(write_end.number, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
    except OSError as error:
        if error.errno != errno.EPERM:
            raise
    return read_end, write_end


def _feed(stream: Readable, write_end: Fd | None) -> None:
    """Read the stream to its end, and move it into the pipe if there is one.

    A child that gives up closes its end; what it has to say follows as its report.
    """
    try:
        while data := stream.read(_PART_BYTES):
            view = memoryview(data if write_end is not None else b"")
            while view and write_end is not None:
                view = view[os.write(write_end.number, view) :]
    except BrokenPipeError:
        pass
    except OSError as error:
        raise ImageError(f"The archive could not be read: {error.strerror}.") from error
    finally:
        if write_end is not None:
            write_end.close()

"""Packing a folder as tar: a whole tree, or what a container changed, the same files always to the same bytes.

A container's changes lie in the upper folder of its overlay, in OverlayFS's terms; with ``is_layer`` they are written in the image's:
whiteouts and opaque markers (`labkit.image.whiteout`). The files belong to the container's ids and may be closed to everybody else, so
the confined child reads them (`labkit.image.confined`), and sees owners as the container does. What starts it is loaded when it is needed.

See: OCI Image Specification, layer.md ("Creating Layers"); https://reproducible-builds.org/specs/source-date-epoch/.
"""

from __future__ import annotations

import os
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from labkit.linux.fds import pipe

__all__ = ["Packed", "Writable", "pack"]

_PART_BYTES = 1 << 18


class Writable(Protocol):
    """What bytes are written to: a file, a layer's writer."""

    def write(self, data: bytes, /) -> object:
        """Take all of ``data``."""
        ...


@dataclass(frozen=True, slots=True)
class Packed:
    """What was packed. ``bytes`` counts the files' contents; ``skipped`` sockets and devices."""

    entries: int
    bytes: int
    skipped: int


def pack(
    folder: Path | str | int, out: Writable, *, is_layer: bool = True, latest_s: int | None = None,
    owner: tuple[int, int] | None = None,
) -> Packed:  # fmt: skip
    """Write ``folder`` as tar to ``out``, in the order of names, the folder itself left out.

    ``latest_s`` (seconds since 1970; SOURCE_DATE_EPOCH): no file is newer. ``owner``: everything belongs to this uid and gid.
    Files of ids that the container does not know (the machine's root) become "nobody" (65534), unless ``owner`` is given.
    Raises: ImageError, FeatureMissing, and what ``out`` raises.
    """
    from labkit.image.confined import Confined, open_folder

    options = {"is_layer": is_layer, "latest_s": latest_s, "owner": owner}
    with ExitStack() as stack:
        folder_fd = stack.enter_context(open_folder(folder))
        read_end, write_end = pipe()
        stack.enter_context(read_end)
        stack.enter_context(write_end)
        child = stack.enter_context(Confined("pack", folder_fd.number, options, stream_fd=write_end.number))
        write_end.close()
        while data := os.read(read_end.number, _PART_BYTES):
            out.write(data)
        report = child.result()
    return Packed(report["entries"], report["bytes"], report["skipped"])

"""Whiteouts: how a layer says that something of the layers below is gone.

A tar knows only files, so the image format uses names: an empty file ``.wh.NAME`` removes NAME, ``.wh..wh..opq`` makes its folder opaque
(nothing below it shows). They speak of lower layers only, wherever they stand in the archive: ``.wh.d`` and a new ``d`` in one layer
mean that the old ``d`` is gone *and* a new one is there. OverlayFS uses files: a character device 0:0, and the attribute
``user.overlay.opaque`` (what it reads in a user namespace). This module is the dictionary between the two.

An attribute that OverlayFS would read is never taken from an archive: it would make a file mean what its layer does not say.

Leaves out: AUFS's own book-keeping (``.wh..wh.plnk``, ``.wh..wh.aufs``), which is skipped.
See: OCI Image Specification, layer.md ("Whiteouts"); Documentation/filesystems/overlayfs.rst in Linux.
"""

from __future__ import annotations

import errno
import os
import stat

from labkit.errors import ImageError

__all__ = [
    "OPAQUE_ATTRIBUTE",
    "OPAQUE_MARKER",
    "PREFIX",
    "hidden_name",
    "is_opaque",
    "is_overlay_attribute",
    "is_whiteout",
    "make_opaque",
    "make_whiteout",
]

PREFIX = b".wh."
OPAQUE_MARKER = b".wh..wh..opq"
OPAQUE_ATTRIBUTE = "user.overlay.opaque"
_META_PREFIX = b".wh..wh."
_OVERLAY_PREFIXES = ("user.overlay.", "trusted.overlay.")
_WHITEOUT_DEVICE = os.makedev(0, 0)


def hidden_name(name: bytes) -> bytes | None:
    """Return the name that the whiteout file ``name`` removes; None if it is AUFS's and means nothing here.

    Raises: ImageError for one that would remove its folder or nothing (``.wh.``, ``.wh..``, ``.wh...``).
    """
    if name.startswith(_META_PREFIX):
        return None
    hidden = name[len(PREFIX) :]
    if hidden in (b"", b".", b".."):
        raise ImageError(f"{os.fsdecode(name)!r} is a whiteout of nothing that could be removed.")
    return hidden


def is_whiteout(status: os.stat_result) -> bool:
    """Say whether a file is OverlayFS's whiteout: a character device 0:0."""
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == _WHITEOUT_DEVICE


def make_whiteout(name: bytes, dir_fd: int) -> None:
    """Make OverlayFS's whiteout ``name``. Everybody may (Linux 5.8): it is a device that no driver answers for."""
    os.mknod(name, stat.S_IFCHR, _WHITEOUT_DEVICE, dir_fd=dir_fd)


def make_opaque(folder_fd: int) -> None:
    """Let nothing of lower layers show in the folder. Raises: OSError with EOPNOTSUPP where there are no attributes."""
    os.setxattr(folder_fd, OPAQUE_ATTRIBUTE, b"y")


def is_opaque(folder_fd: int) -> bool:
    """Say whether the folder is marked as opaque."""
    try:
        return os.getxattr(folder_fd, OPAQUE_ATTRIBUTE) == b"y"
    except OSError as error:
        if error.errno in (errno.ENODATA, errno.EOPNOTSUPP):
            return False
        raise


def is_overlay_attribute(name: str) -> bool:
    """Say whether OverlayFS gives a meaning to the attribute ``name``."""
    return name.startswith(_OVERLAY_PREFIXES)

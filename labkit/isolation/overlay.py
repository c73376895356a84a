"""OverlayFS: several folders seen as one, written to only on top.

``lowerdir`` are the read-only layers, topmost first; ``upperdir`` takes what is written. A file that is changed is copied up
whole first; a file that is deleted leaves a *whiteout* in the upper folder (a character device 0:0, or an empty file with
an attribute where device nodes are not allowed); a folder that replaces another is marked *opaque*. ``workdir``
is scratch on the same file system as the upper folder, so that each change can appear by an atomic rename.

In a user namespace OverlayFS keeps its marks in ``user.overlay.*`` attributes (option ``userxattr``, Linux 5.11).

Leaves out: metacopy, redirect_dir, index, data-only layers, NFS export.
See: Documentation/filesystems/overlayfs.rst in Linux.
"""

from __future__ import annotations

from collections.abc import Sequence

from labkit.errors import InvalidSpec
from labkit.linux.steps import Step

__all__ = ["overlay", "overlay_options"]

_PAGE_BYTES = 4096


def overlay_options(
    lowers: Sequence[str], *, upper: str | None = None, work: str | None = None, userxattr: bool = False
) -> str:
    """Return the data string for mount(2); without ``upper`` the union is read-only.

    Raises: InvalidSpec if the options do not fit into one page, the most that mount(2) takes.
    """
    options = ["lowerdir=" + ":".join(_escape(path) for path in lowers)]
    if upper is not None and work is not None:
        options += [f"upperdir={_escape(upper)}", f"workdir={_escape(work)}"]
    if userxattr:
        options.append("userxattr")
    text = ",".join(options)
    if len(text.encode()) >= _PAGE_BYTES:
        raise InvalidSpec(
            f"{len(lowers)} layers have paths too long for one mount (over {_PAGE_BYTES} bytes): use fewer layers or shorter paths."
        )
    return text


def overlay(
    target: str, lowers: Sequence[str], *, upper: str | None = None, work: str | None = None, userxattr: bool = False
) -> list[Step]:
    """Mount the union of ``lowers`` (topmost first) and ``upper`` at ``target``.

    Refused with EINVAL if upper and work lie on different file systems or on one that cannot hold an upper
    layer, ESTALE if a layer changed places, ELOOP for too deep a stack, EPERM in a user namespace before Linux 5.11.
    """
    options = overlay_options(lowers, upper=upper, work=work, userxattr=userxattr)
    return [Step("mount", ("labkit-overlay", target, "overlay", 0, options), f"mount an overlay at {target}")]


def _escape(path: str) -> str:
    # A colon separates layers and a comma options; both may stand in a folder's name (overlayfs.rst).
    return path.replace("\\", "\\\\").replace(":", "\\:").replace(",", "\\,")

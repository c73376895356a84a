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

import os
import stat
from collections.abc import Sequence
from pathlib import Path

from labkit.errors import InvalidSpec
from labkit.isolation import mounts
from labkit.linux.constants import NS
from labkit.linux.steps import Step, perform

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
    target: str, lowers: Sequence[str], *, upper: str | None = None, work: str | None = None, userxattr: bool = False,
    flags: int = 0,
) -> list[Step]:  # fmt: skip
    """Mount the union of ``lowers`` (topmost first) and ``upper`` at ``target``; ``flags`` are those of mount(2).

    Refused with EINVAL if upper and work lie on different file systems or on one that cannot hold an upper
    layer, ESTALE if a layer changed places, ELOOP for too deep a stack, EPERM in a user namespace before Linux 5.11.
    """
    options = overlay_options(lowers, upper=upper, work=work, userxattr=userxattr)
    return [Step("mount", ("labkit-overlay", target, "overlay", flags, options), f"mount an overlay at {target}")]


def _escape(path: str) -> str:
    # A colon separates layers and a comma options; both may stand in a folder's name (overlayfs.rst).
    return path.replace("\\", "\\\\").replace(":", "\\:").replace(",", "\\,")


def _demonstrate() -> None:
    stage = Path("/tmp/labkit-stage")  # on a tmpfs that only this mount namespace has
    perform(mounts.private() + mounts.tmpfs("/tmp"))
    for name in ("lower", "upper", "work", "merged"):
        (stage / name).mkdir(parents=True)
    (stage / "lower" / "kept").write_text("from below\n")
    (stage / "lower" / "gone").write_text("from below\n")
    steps = overlay(f"{stage}/merged", [f"{stage}/lower"], upper=f"{stage}/upper", work=f"{stage}/work", userxattr=True)
    print(*steps, sep="\n")
    perform(steps)
    merged, upper = stage / "merged", stage / "upper"
    print("merged at first: ", sorted(os.listdir(merged)), " upper:", sorted(os.listdir(upper)))
    with (merged / "kept").open("a") as file:
        file.write("and changed\n")
    (merged / "gone").unlink()
    print("after a change and a deletion:", sorted(os.listdir(merged)), " upper:", sorted(os.listdir(upper)))
    mark = (upper / "gone").lstat()
    print(f"upper/gone is a whiteout: character device {stat.S_ISCHR(mark.st_mode)}, number {mark.st_rdev}")


def main() -> int:
    """Stack two folders in a child, change one file and delete another, and look into the upper folder."""
    from labkit.isolation.demonstration import in_child

    return in_child(_demonstrate, NS.MNT)


if __name__ == "__main__":
    raise SystemExit(main())

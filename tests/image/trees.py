"""File trees as data: made at random, written as tar by Python's own tarfile, read back from a folder."""

from __future__ import annotations

import hashlib
import io
import os
import stat
import tarfile
from dataclasses import dataclass
from pathlib import Path

from hypothesis import strategies as st

from labkit.image.confined import owners_here

__all__ = ["Node", "listing", "trees", "write_tar"]


@dataclass(frozen=True)
class Node:
    """One file: kind is file, folder, link, hard or fifo; ``text`` is content or target."""

    path: str
    kind: str
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    mtime: int = 0
    text: bytes = b""


names = st.sampled_from(["a", "b", "c", "long" * 40, "ä ö", "x.y", "-", "…", "new\nline"])
paths = st.lists(names, min_size=1, max_size=4).map("/".join)


@st.composite
def trees(draw: st.DrawFn) -> list[Node]:
    """A list of entries in archive order, which may repeat paths and leave folders out; nothing lies below a file."""
    nodes: list[Node] = []
    kinds: dict[str, str] = {}
    for path in draw(st.lists(paths, min_size=1, max_size=14)):
        parts = path.split("/")
        above = ["/".join(parts[:n]) for n in range(1, len(parts))]
        if any(kinds.get(folder, "folder") != "folder" for folder in above):
            continue
        has_inside = any(other.startswith(path + "/") for other in kinds)
        kind = "folder" if has_inside else draw(st.sampled_from(["file", "file", "folder", "link", "hard", "fifo"]))
        files = [known for known, what in kinds.items() if what == "file" and known != path]
        if kind == "hard" and not files:
            kind = "file"
        text = b""
        if kind == "file":
            text = draw(st.binary(max_size=1500))
        elif kind == "link":
            text = draw(st.sampled_from([b"a", b"/etc/passwd", b"../../..", b"nowhere", b"x" * 150]))
        elif kind == "hard":
            text = draw(st.sampled_from(files)).encode()
        mode = draw(st.sampled_from([0o644, 0o755, 0o600, 0o4755, 0o2755, 0o1777, 0o400]))
        if kind == "folder":
            mode |= 0o700
        owner = draw(st.sampled_from([(0, 0), (0, 0), (1000, 1000), (65535, 1)]))
        nodes.append(Node(path, kind, mode, *owner, draw(st.integers(0, 2**33)), text))
        kinds |= dict.fromkeys(above, "folder")
        kinds[path] = "file" if kind == "hard" else kind
    return nodes


def write_tar(nodes: list[Node], *, format_: int = tarfile.PAX_FORMAT) -> bytes:
    """Return ``nodes`` as an archive."""
    types = {"file": tarfile.REGTYPE, "folder": tarfile.DIRTYPE, "link": tarfile.SYMTYPE, "hard": tarfile.LNKTYPE, "fifo": tarfile.FIFOTYPE}  # fmt: skip
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format_) as archive:
        for node in nodes:
            info = tarfile.TarInfo(node.path)
            info.type, info.mode, info.uid, info.gid, info.mtime = (
                types[node.kind],
                node.mode,
                node.uid,
                node.gid,
                node.mtime,
            )
            if node.kind in ("link", "hard"):
                info.linkname = node.text.decode()
            body = node.text if node.kind == "file" else b""
            info.size = len(body)
            archive.addfile(info, io.BytesIO(body))
    return buffer.getvalue()


def listing(folder: Path, *, times: bool = True, root: tuple[int, int] | None = None) -> dict[str, tuple[object, ...]]:
    """Return what lies in ``folder`` by path: kind, mode, owner seen from ``root``'s namespace (default: the container's), time of files, links, content."""
    root_uid, root_gid = root or (owners_here().root_uid, owners_here().root_gid)
    found: dict[str, tuple[object, ...]] = {}
    inodes: dict[int, list[str]] = {}
    for base, folders, files in os.walk(folder):
        for name in folders + files:
            path = Path(base, name)
            status = path.lstat()
            key = str(path.relative_to(folder))
            kind, text = stat.filemode(status.st_mode)[0], b""
            if kind == "-":
                text = hashlib.sha256(path.read_bytes()).hexdigest().encode()
                inodes.setdefault(status.st_ino, []).append(key)
            elif kind == "l":
                text = os.fsencode(os.readlink(path))
            mode = 0 if kind == "l" else stat.S_IMODE(status.st_mode)
            owner = (status.st_uid - root_uid, status.st_gid - root_gid)
            found[key] = (kind, mode, owner, int(status.st_mtime) if times and kind not in "d" else 0, text)
    for paths_ in inodes.values():
        for path_ in paths_:
            found[path_] += (tuple(sorted(paths_)),)
    return found

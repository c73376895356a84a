"""Stores for tests of builds: one with a small base image, and a look at images that needs nothing of labkit but the blobs."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any

from labkit.image.build.builder import BuildResult, build
from labkit.image.store import ImageStore
from labkit.setup.parts import find_busybox
from tests.image.build.corpus import BASE

__all__ = ["Node", "build_base", "config_of", "flatten", "layers_of", "write_base_context"]

#: kind, mode, uid, gid, and the content's digest or the link's target.
Node = tuple[str, int, int, int, str]
_BASE = """FROM scratch
COPY skeleton/ /
COPY --chmod=755 busybox /bin/busybox
COPY <<passwd <<group /etc/
root:x:0:0:root:/root:/bin/sh
nobody:x:65534:65534:nobody:/:/bin/false
passwd
root:x:0:
nobody:x:65534:
group
RUN ["/bin/busybox", "sh", "-c", "/bin/busybox --install -s /bin; chmod 1777 /tmp"]
ENV PATH=/bin
CMD ["sh"]
"""


def write_base_context(folder: Path) -> Path:
    """Write the context of the base image: busybox and a Containerfile."""
    busybox = find_busybox()
    assert busybox is not None
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "busybox").write_bytes(busybox.read_bytes())
    for name in ("dev", "proc", "root", "run", "sys", "tmp", "var"):
        (folder / "skeleton" / name).mkdir(mode=0o755, parents=True, exist_ok=True)
    (folder / "Containerfile").write_text(_BASE)
    return folder


def build_base(store: ImageStore, folder: Path) -> BuildResult:
    """Build the base image of the corpus into ``store``."""
    return build(write_base_context(folder), store=store, tags=[BASE])


def _blob(store: ImageStore, digest: str) -> bytes:
    data = (store.root / "blobs" / digest.replace(":", "/")).read_bytes()
    assert hashlib.sha256(data).hexdigest() == digest.removeprefix("sha256:")
    return data


def _manifest(store: ImageStore, digest: str) -> dict[str, Any]:
    return dict(json.loads(_blob(store, digest)))


def config_of(store: ImageStore, result: BuildResult) -> dict[str, Any]:
    """Return the configuration of a built image, read from its blobs."""
    manifest = _manifest(store, result.descriptor.digest)
    return dict(json.loads(_blob(store, manifest["config"]["digest"])))


def layers_of(store: ImageStore, result: BuildResult) -> list[tarfile.TarFile]:
    """Return the layers of a built image as open archives, lowest first."""
    found = []
    for layer in _manifest(store, result.descriptor.digest)["layers"]:
        data = _blob(store, layer["digest"])
        data = gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
        found.append(tarfile.open(fileobj=io.BytesIO(data)))
    return found


def flatten(store: ImageStore, result: BuildResult) -> dict[str, Node]:
    """Return the file tree of a built image: its layers applied one after the other, as the specification says."""
    tree: dict[str, Node] = {}
    for layer in layers_of(store, result):
        new: dict[str, Node] = {}
        for member in layer:
            folder, _, name = member.name.rpartition("/")
            if name == ".wh..wh..opq":
                _remove(tree, folder, itself=False)
            elif name.startswith(".wh."):
                _remove(tree, f"{folder}/{name[4:]}".lstrip("/"), itself=True)
            else:
                new[member.name] = _node(layer, member, new)
        for path, node in new.items():
            if node[0] != "folder":
                _remove(tree, path, itself=True)
        tree |= new
    return tree


def _remove(tree: dict[str, Node], path: str, *, itself: bool) -> None:
    for known in list(tree):
        if known.startswith(f"{path}/") or (itself and known == path):
            del tree[known]


def _node(layer: tarfile.TarFile, member: tarfile.TarInfo, new: dict[str, Node]) -> Node:
    if member.islnk():
        return new[member.linkname]
    if member.issym():
        return "link", 0o777, member.uid, member.gid, member.linkname
    if member.isdir():
        return "folder", member.mode, member.uid, member.gid, ""
    file = layer.extractfile(member)
    assert file is not None
    return "file", member.mode, member.uid, member.gid, hashlib.sha256(file.read()).hexdigest()

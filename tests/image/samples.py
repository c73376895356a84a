"""Images for tests: small, real, of several layers, with a static busybox in them."""

from __future__ import annotations

from pathlib import Path

from labkit.image.commit import store_image
from labkit.image.config import History, ImageConfig, RunConfig
from labkit.image.layer import Layer, LayerWriter
from labkit.image.media_types import Compression
from labkit.image.store import Image, ImageStore
from labkit.setup.parts import find_busybox
from tests.image.tars import FILE, FOLDER, HARD, LINK, entry, tar

__all__ = ["busybox_image"]

_APPLETS = ("sh", "cat", "ls", "id", "echo", "touch", "rm", "mkdir", "stat", "pwd", "env", "find", "readlink")


def _layer(store: ImageStore, data: bytes, compression: Compression) -> Layer:
    with LayerWriter(store.blobs, compression) as writer:
        writer.write(data)
        return writer.commit()


def busybox_image(store: ImageStore, name: str, *, compression: Compression = "gzip") -> Image:
    """Store an image of three layers: busybox and users, some files, and changes to these files."""
    busybox = find_busybox()
    assert busybox is not None
    base = tar(
        entry(FOLDER, "bin", mode=0o755), entry(FILE, "bin/busybox", busybox.read_bytes(), mode=0o755),
        *(entry(LINK, f"bin/{applet}", link="busybox") for applet in _APPLETS),
        entry(FOLDER, "etc", mode=0o755), entry(FILE, "etc/passwd", b"root:x:0:0::/root:/bin/sh\nweb:x:1000:1000::/srv:/bin/sh\n"),
        entry(FILE, "etc/group", b"root:x:0:\nweb:x:1000:\n"), entry(FOLDER, "tmp", mode=0o1777),
    )  # fmt: skip
    files = tar(
        entry(FOLDER, "srv", mode=0o755, uid=1000, gid=1000), entry(FILE, "srv/page", b"page 1\n", uid=1000, gid=1000),
        entry(HARD, "srv/again", link="srv/page"), entry(FILE, "srv/old", b"old\n"), entry(FILE, "srv/dir/inside", b"1"),
    )  # fmt: skip
    changes = tar(entry(FILE, "srv/.wh.old"), entry(FILE, "srv/dir/.wh..wh..opq"), entry(FILE, "srv/dir/new", b"2"))
    with store.lease():
        layers = [_layer(store, data, compression) for data in (base, files, changes)]
        config = ImageConfig(
            diff_ids=tuple(layer.diff_id for layer in layers), created="2026-01-02T03:04:05Z",
            config=RunConfig(user="web", env=("PATH=/bin", "GREETING=hello"), entrypoint=("/bin/echo",), cmd=("from", "cmd"), working_dir="/srv"),
            history=(
                History(created_by="busybox"), History(created_by="USER web", empty_layer=True), History(created_by="files"),
                History(created_by="changes"),
            ),
        )  # fmt: skip
        store.tag(name, store_image(store, config, [layer.descriptor for layer in layers]))
    return store.image(name)


def tool_environment(folder: Path) -> dict[str, str]:
    """Return the environment for podman and buildah with a store of their own in ``folder``."""
    import os

    conf = folder / "storage.conf"
    conf.write_text(f'[storage]\ndriver = "vfs"\nrunroot = "{folder}/run"\ngraphroot = "{folder}/graph"\n')
    policy = folder / "policy.json"
    policy.write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
    return {**os.environ, "CONTAINERS_STORAGE_CONF": str(conf), "TMPDIR": str(folder)}

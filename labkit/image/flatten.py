"""One tar out of many layers, and one layer out of a tar: ``export`` and ``import``.

For export the layers are mounted as one tree, read-only, in the confined child, and that tree is packed: what OverlayFS shows is what a container
would see. Import takes any tar of a root filesystem (debootstrap's, another export) as the only layer of a new image; it is unpacked
once into nothing but its digest first, so a damaged or hostile archive is refused before it has a name.

Leaves out: configuration (an export has none).
See: docker-export(1), docker-import(1).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from labkit.image.archive import plain_source
from labkit.image.commit import add_layer, store_image
from labkit.image.config import ImageConfig, RunConfig
from labkit.image.confined import Confined, open_folder
from labkit.image.layer import LayerWriter
from labkit.image.lock import hold_new_folder
from labkit.image.media_types import Compression
from labkit.image.pack import Packed, Writable
from labkit.image.reference import Reference
from labkit.image.rootfs import remove_tree
from labkit.image.store import Image, ImageStore
from labkit.image.tarstream import Readable, TarReader, filler
from labkit.linux.fds import pipe

__all__ = ["export_image", "export_stack", "import_archive"]

_PART_BYTES = 1 << 18


def export_image(store: ImageStore, image: Image, out: Writable) -> Packed:
    """Write the file tree of ``image`` as one tar to ``out``. Raises: ImageError."""
    with store.lease() as lease:
        lease.add(image.root.digest)
        return export_stack(store, store.lowers(image), out)


def export_stack(store: ImageStore, folders: Sequence[Path], out: Writable) -> Packed:
    """Write what OverlayFS shows of ``folders`` (topmost first; unpacked layers, or a container's upper) as one tar."""
    options = {"is_layer": False, "latest_s": None, "owner": None}
    with ExitStack() as stack:
        scratch, held = hold_new_folder(store.blobs.tmp)
        stack.enter_context(held)
        stack.callback(remove_tree, scratch)
        (scratch / "merged").mkdir()
        scratch.chmod(0o711)
        folder_fd = stack.enter_context(open_folder(scratch))
        lower_fds = [stack.enter_context(open_folder(folder)).number for folder in folders]
        read_end, write_end = pipe()
        stack.enter_context(read_end)
        stack.enter_context(write_end)
        child = stack.enter_context(
            Confined("pack", folder_fd.number, options, stream_fd=write_end.number, others=lower_fds)
        )
        write_end.close()
        while data := os.read(read_end.number, _PART_BYTES):
            out.write(data)
        report = child.result()
    return Packed(report["entries"], report["bytes"], report["skipped"])


class _Tee:
    """Reads a stream and writes what passes to a layer."""

    def __init__(self, source: Readable, writer: LayerWriter) -> None:
        self._source = source
        self._writer = writer

    def read(self, size: int, /) -> bytes:
        data = self._source.read(size)
        self._writer.write(data)
        return data


def import_archive(
    store: ImageStore, stream: Readable, *, tag: Reference | str | None = None, message: str = "", source: str = "-",
    run_config: RunConfig | None = None, compression: Compression = "gzip", created: str | None = None,
) -> Image:  # fmt: skip
    """Make an image whose only layer is the tar in ``stream``, compressed or not. Raises: ImageError for a damaged one."""
    with store.lease():
        with LayerWriter(store.blobs, compression) as writer:
            for _ in TarReader(filler(_Tee(plain_source(stream), writer))).entries():
                pass
            layer = writer.commit()
        base = replace(ImageConfig(), config=run_config or RunConfig())
        config = add_layer(base, layer, created_by=f"import from {source}", comment=message, created=created)
        descriptor = store_image(store, config, [layer.descriptor])
        if tag is not None:
            store.tag(tag, descriptor)
        return store.image(descriptor)

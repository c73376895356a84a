"""Layers: a tar of changes, compressed or not, with two names: the digest of the blob, and the *diff id*, the digest of the plain tar.

Reading a layer checks both while the bytes pass: nothing is written to the disk first and checked afterwards, and no layer is ever
in memory as a whole. Decompression is where a small blob can become endless, so the reader counts what goes in and what comes out.

Making one goes the other way: a folder is packed, hashed, compressed and hashed again, straight into the store.

Leaves out: zstd dictionaries; seekable layers (eStargz, zstd:chunked) are read as the plain gzip or zstd that they also are.
See: OCI Image Specification, layer.md and config.md ("DiffID"); RFC 1952 (gzip); RFC 8878 (zstd).
"""

from __future__ import annotations

import hashlib
import os
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from labkit.errors import ImageError
from labkit.image import media_types
from labkit.image.background import BackgroundHash
from labkit.image.blobs import BlobStore, BlobWriter
from labkit.image.descriptor import Descriptor
from labkit.image.media_types import Compression, compression_of
from labkit.image.tarstream import Readable
from labkit.image.unpack import UnpackLimits

if TYPE_CHECKING:
    import zstandard

    from labkit.image.pack import Packed

__all__ = ["Decompressor", "Layer", "LayerReader", "LayerWriter", "make_layer", "sniff_compression"]

_READ_BYTES, _PLAIN_BYTES = 1 << 18, 1 << 19
_ZSTD_INPUT_BYTES = 1 << 10
_GZIP_WINDOW = 31  # zlib: 15 bits of window, and a gzip header and trailer around
_ZSTD_MAGIC, _ZSTD_SKIPPABLE = b"\x28\xb5\x2f\xfd", b"\x2a\x4d\x18"
#: A frame that asks for more memory than this is refused; ``zstd -19`` asks for 8 MiB, ``--ultra -22`` for 128.
_ZSTD_WINDOW_BYTES = 128 << 20


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer in a store: what points to its blob, its diff id, and how many bytes it has unpacked."""

    descriptor: Descriptor
    diff_id: str
    size_bytes: int = 0


def sniff_compression(head: bytes) -> Compression:
    """Return how data that begin with ``head`` (at least 8 bytes) are compressed, by their magic number."""
    if head[:2] == b"\x1f\x8b":
        return "gzip"
    if head[:4] == _ZSTD_MAGIC or (head[1:4] == _ZSTD_SKIPPABLE and 0x50 <= head[0] <= 0x5F):
        return "zstd"
    return "none"


class _Member:
    """One gzip member or one zstd frame, decompressed in parts of bounded size; its own checksum is verified at its end."""

    def __init__(self, compression: Compression) -> None:
        self._gzip = zlib.decompressobj(wbits=_GZIP_WINDOW) if compression == "gzip" else None
        self._zstd = None if compression == "gzip" else _zstd_frame()
        #: Input that was taken but not used; at the end of the member, what follows it.
        self.rest = b""
        self.has_more = False

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        """Return plain bytes out of ``data``, and whether the member is over."""
        if self._gzip is not None:
            plain = self._gzip.decompress(data, _PLAIN_BYTES)
            self.has_more = len(plain) >= _PLAIN_BYTES
            self.rest = self._gzip.unused_data if self._gzip.eof else self._gzip.unconsumed_tail
            return plain, self._gzip.eof
        return self._feed_zstd(data)

    def _feed_zstd(self, data: bytes) -> tuple[bytes, bool]:
        # A block of 4 bytes can stand for 128 KiB, and the library gives out all that its input holds: so it gets little at once.
        frame, parts, size, at = cast("zstandard.ZstdDecompressionObj", self._zstd), [], 0, 0
        while at < len(data) and size < _PLAIN_BYTES:
            parts.append(frame.decompress(data[at : at + _ZSTD_INPUT_BYTES]))
            size += len(parts[-1])
            at += _ZSTD_INPUT_BYTES
            if frame.eof:
                self.rest = frame.unused_data + data[at:]
                return b"".join(parts), True
        self.rest = data[at:]
        return b"".join(parts), False


class Decompressor:
    """Reads plain bytes out of ``source``; several gzip members or zstd frames in a row are one stream."""

    def __init__(self, source: Readable, compression: Compression, *, limits: UnpackLimits | None = None) -> None:
        self._source = source
        self._compression = compression
        self._limits = limits or UnpackLimits()
        self._member: _Member | None = None
        self._input = b""
        self._is_over = False
        self.read_bytes = self.given_bytes = 0

    def read(self, size: int = -1, /) -> bytes:
        """Return the next part, of any length, nothing at the end. Raises: ImageError for damage, or past the ratio's limit."""
        if self._compression == "none":
            data = self._source.read(_READ_BYTES)
            self.given_bytes += len(data)
            return data
        while not self._is_over:
            data = self._next()
            if data:
                self._count(len(data))
                return data
        return b""

    def _next(self) -> bytes:
        if not self._input and not (self._member is not None and self._member.has_more):
            self._input = self._source.read(_READ_BYTES)
            self.read_bytes += len(self._input)
            if not self._input:
                self._end()
                return b""
        if self._member is None:
            if self._is_padding():
                return b""
            self._member = _Member(self._compression)
        return self._decode(self._member)

    def _end(self) -> None:
        self._is_over = True
        if self._member is not None or self.read_bytes == 0:
            raise ImageError(f"The {self._compression} data end in the middle, after {self.read_bytes} bytes.")

    def _decode(self, member: _Member) -> bytes:
        import zstandard

        try:
            data, is_over = member.feed(self._input)
        except (zlib.error, zstandard.ZstdError, MemoryError) as error:
            raise ImageError(f"The {self._compression} data are damaged: {error}.") from error
        self._input = member.rest
        if is_over:
            self._member = None
        return data

    def _is_padding(self) -> bool:
        """Zeros after a gzip member fill up a block of a tape; gzip(1) ignores them, too."""
        if self._compression == "gzip" and self.given_bytes and not self._input.strip(b"\0"):
            self._input = b""
            return True
        return False

    def _count(self, size: int) -> None:
        self.given_bytes += size
        limits = self._limits
        if self.given_bytes > limits.ratio_from_bytes and self.given_bytes > limits.ratio * max(self.read_bytes, 1):
            raise ImageError(
                f"{self.read_bytes} bytes of {self._compression} have become more than {self.given_bytes} bytes, over"
                f" {limits.ratio} times as much: this is taken for an attack."
            )


def _zstd_frame() -> zstandard.ZstdDecompressionObj:
    import zstandard

    return zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW_BYTES).decompressobj()


class LayerReader:
    """The plain tar of a layer in ``blobs``, with digest, size, diff id (if given) checked on the way. A context manager."""

    def __init__(
        self, blobs: BlobStore, descriptor: Descriptor, *, diff_id: str = "", limits: UnpackLimits | None = None
    ) -> None:
        compression = compression_of(descriptor.media_type)
        if compression is None:
            raise ImageError(
                f"The layer {descriptor.digest} is of type {descriptor.media_type}, which is no layer here."
            )
        self._blob = blobs.open(descriptor.digest, size=descriptor.size)
        self._plain = Decompressor(self._blob, compression, limits=limits)
        algorithm = "sha512" if diff_id.startswith("sha512") else "sha256"
        # What is not compressed is the tar itself, and has one digest for both.
        same = compression == "none" and descriptor.digest.startswith(algorithm)
        self._hash = None if same else BackgroundHash(algorithm)
        self._wanted = diff_id
        #: A file with the plain tar, at its beginning; -1 if the layer is compressed.
        self.plain_fd = self._blob.reopened() if compression == "none" else -1

    def read(self, size: int = -1, /) -> bytes:
        """Return the next part of the tar, nothing at its end. Raises: ImageError if it is not the layer that was promised."""
        data = self._plain.read()
        if self._hash is not None:
            self._hash.update(data)
        if not data:
            # Not only the tar but the whole blob must be what its digest says.
            while self._blob.read(_READ_BYTES):
                pass
            if self._wanted and self.diff_id != self._wanted:
                raise ImageError(f"The layer {self._blob.digest} unpacks to {self.diff_id}, not to {self._wanted}.")
        return data

    @property
    def diff_id(self) -> str:
        """The digest of what was read so far; at the end, the layer's diff id."""
        return self._blob.digest_so_far if self._hash is None else self._hash.digest()

    @property
    def size_bytes(self) -> int:
        """How many plain bytes were read so far."""
        return self._plain.given_bytes

    def close(self) -> None:
        """Close the blob; safe to call twice."""
        self._blob.close()
        if self._hash is not None:
            self._hash.close()
        if self.plain_fd >= 0:
            os.close(self.plain_fd)
            self.plain_fd = -1

    def __enter__(self) -> LayerReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class LayerWriter:
    """Takes a plain tar and writes a layer into ``blobs``: `write`, then `commit`. A context manager; without a commit nothing stays."""

    def __init__(self, blobs: BlobStore, compression: Compression = "gzip") -> None:
        self._compression = compression
        self._writer: BlobWriter = blobs.writer()
        self._hash = hashlib.sha256()
        self._size_bytes = 0
        self._compress, self._flush = _compressor(compression)

    def write(self, data: bytes | memoryview) -> int:
        """Append ``data`` of the plain tar."""
        self._hash.update(data)
        self._size_bytes += len(data)
        self._writer.write(self._compress(data))
        return len(data)

    def commit(self) -> Layer:
        """Put the blob in its place."""
        self._writer.write(self._flush())
        found = self._writer.commit()
        descriptor = Descriptor(media_types.layer_type(self._compression), found.digest, found.size)
        return Layer(descriptor, f"sha256:{self._hash.hexdigest()}", self._size_bytes)

    def __enter__(self) -> LayerWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._writer.close()


def _compressor(compression: Compression) -> tuple[Callable[[bytes | memoryview], bytes], Callable[[], bytes]]:
    if compression == "gzip":
        # zlib writes no time and no file name into the header, so the same tar gives the same bytes.
        gzip = zlib.compressobj(6, zlib.DEFLATED, _GZIP_WINDOW)
        return gzip.compress, gzip.flush
    if compression == "zstd":
        import zstandard

        zstd = zstandard.ZstdCompressor(level=3, write_checksum=True).compressobj()
        return zstd.compress, zstd.flush
    return bytes, bytes


def make_layer(
    blobs: BlobStore, folder: Path | str | int, *, compression: Compression = "gzip", is_layer: bool = True,
    latest_s: int | None = None, owner: tuple[int, int] | None = None,
) -> tuple[Layer, Packed]:  # fmt: skip
    """Pack ``folder`` (see `labkit.image.pack.pack`) into a new layer; return it, and what was packed."""
    from labkit.image.pack import pack  # whoever only reads layers does without

    with LayerWriter(blobs, compression) as writer:
        packed = pack(folder, writer, is_layer=is_layer, latest_s=latest_s, owner=owner)
        return writer.commit(), packed

"""Layers: decompression with limits, digests checked on the way, packing that gives the same bytes twice."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import random
import stat
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from labkit.container import Container, run
from labkit.container.spec import Rootfs
from labkit.errors import ImageError
from labkit.image.blobs import BlobStore
from labkit.image.descriptor import Descriptor
from labkit.image.layer import Decompressor, LayerReader, LayerWriter, make_layer, sniff_compression
from labkit.image.pack import pack
from labkit.image.rootfs import remove_tree
from labkit.image.unpack import UnpackLimits, unpack
from labkit.setup.parts import find_busybox
from tests.image.tars import FILE, FOLDER, LINK, entry, tar, zstd_bomb
from tests.image.trees import Node, listing, trees, write_tar
from tests.support import requires

SMALL = UnpackLimits(ratio=50, ratio_from_bytes=1 << 20)


def read_all(source: Decompressor | LayerReader) -> bytes:
    return b"".join(iter(lambda: source.read(1), b""))


def plain(data: bytes, compression: str, **options: object) -> bytes:
    return read_all(Decompressor(io.BytesIO(data), compression, **options))  # type: ignore[arg-type]


COMPRESS = {"gzip": lambda data: gzip.compress(data, 5), "zstd": zstandard.ZstdCompressor(write_checksum=True).compress}


@pytest.mark.parametrize("kind", COMPRESS)
@settings(max_examples=30)
@given(st.lists(st.binary(max_size=5000), min_size=1, max_size=4))
def test_members_one_after_another_are_one_stream(kind: str, parts: list[bytes]) -> None:
    assert plain(b"".join(COMPRESS[kind](part) for part in parts), kind) == b"".join(parts)


@pytest.mark.parametrize("kind", COMPRESS)
def test_megabytes_come_out_as_the_tools_compressed_them(kind: str) -> None:
    data = random.Random(1).randbytes(3 << 20) + bytes(20 << 20) + b"end"
    tool = {"gzip": ["gzip", "-9"], "zstd": ["zstd", "-19", "--long=27"]}[kind]
    packed = subprocess.run([*tool, "-c"], input=data, capture_output=True, check=True).stdout
    assert hashlib.sha256(plain(packed, kind)).digest() == hashlib.sha256(data).digest()
    assert sniff_compression(packed[:8]) == kind


@pytest.mark.parametrize("kind", COMPRESS)
@pytest.mark.parametrize("cut", [1, 4, 9, 100, -9, -4, -1])
def test_truncated_data_are_refused(kind: str, cut: int) -> None:
    packed = COMPRESS[kind](random.Random(2).randbytes(5000))
    with pytest.raises(ImageError, match=r"end in the middle|damaged"):
        plain(packed[:cut], kind)


@pytest.mark.parametrize("kind", COMPRESS)
@pytest.mark.parametrize("at", [0, 30, 2000, -2])
def test_damaged_data_are_refused(kind: str, at: int) -> None:
    packed = bytearray(COMPRESS[kind](random.Random(3).randbytes(5000)))
    packed[at] ^= 0x55
    with pytest.raises(ImageError):
        assert plain(bytes(packed), kind) == random.Random(3).randbytes(5000)
        raise ImageError("the flipped bit did no harm: it was in a field that is not used")


@pytest.mark.parametrize("kind", COMPRESS)
def test_garbage_after_the_end_is_refused_but_gzip_s_padding_is_not(kind: str) -> None:
    with pytest.raises(ImageError):
        plain(COMPRESS[kind](b"x") + b"garbage", kind)
    if kind == "gzip":
        assert plain(gzip.compress(b"x") + bytes(512), kind) == b"x"


def test_nothing_is_neither_gzip_nor_zstd() -> None:
    for kind in COMPRESS:
        with pytest.raises(ImageError):
            plain(b"", kind)
    assert plain(b"", "none") == b""


def test_a_bomb_is_cut_off_at_the_ratio_and_says_so() -> None:
    for kind, data in (("gzip", gzip.compress(bytes(64 << 20))), ("zstd", zstd_bomb(4096))):
        source = Decompressor(io.BytesIO(data), kind, limits=SMALL)  # type: ignore[arg-type]
        with pytest.raises(ImageError, match="50 times as much"):
            read_all(source)
        assert source.given_bytes < 40 << 20


def test_a_zstd_bomb_is_never_in_memory_as_a_whole() -> None:
    source = Decompressor(io.BytesIO(zstd_bomb(4096)), "zstd")  # 16 KiB that stand for 512 MiB
    largest = 0
    while part := source.read(1):
        largest = max(largest, len(part))
    assert source.given_bytes == 512 << 20
    assert largest <= 34 << 20


def test_a_frame_that_wants_a_window_of_gigabytes_is_refused() -> None:
    with pytest.raises(ImageError, match="damaged"):
        plain(b"\x28\xb5\x2f\xfd" + bytes([0x00, 0xF8]) + b"\0" * 10, "zstd")


@pytest.fixture
def blobs(tmp_path: Path) -> BlobStore:
    return BlobStore(tmp_path / "store")


@pytest.mark.parametrize("compression", ["none", "gzip", "zstd"])
def test_a_layer_written_is_read_back_with_both_digests_right(blobs: BlobStore, compression: str) -> None:
    data = write_tar([Node("f", "file", text=b"x" * 100_000)])
    with LayerWriter(blobs, compression) as writer:  # type: ignore[arg-type]
        writer.write(data)
        layer = writer.commit()
    assert layer.diff_id == "sha256:" + hashlib.sha256(data).hexdigest()
    stored = blobs.path(layer.descriptor.digest).read_bytes()
    assert layer.descriptor.digest == "sha256:" + hashlib.sha256(stored).hexdigest()
    with LayerReader(blobs, layer.descriptor, diff_id=layer.diff_id) as reader:
        assert read_all(reader) == data


def test_a_layer_with_another_diff_id_than_announced_is_refused_at_its_end(blobs: BlobStore) -> None:
    descriptor = blobs.put(gzip.compress(tar()), "application/vnd.oci.image.layer.v1.tar+gzip")
    with (
        LayerReader(blobs, descriptor, diff_id="sha256:" + "0" * 64) as reader,
        pytest.raises(ImageError, match="unpacks to"),
    ):
        read_all(reader)


def test_a_layer_that_was_damaged_on_the_disk_is_refused(blobs: BlobStore) -> None:
    descriptor = blobs.put(tar(entry(FILE, "f", b"x")), "application/vnd.oci.image.layer.v1.tar")
    path = blobs.path(descriptor.digest)
    path.chmod(0o600)
    path.write_bytes(path.read_bytes().replace(b"x", b"y"))
    with LayerReader(blobs, descriptor) as reader, pytest.raises(ImageError, match="damaged"):
        read_all(reader)
    with pytest.raises(ImageError, match="not 7 as announced"):
        LayerReader(blobs, Descriptor(descriptor.media_type, descriptor.digest, 7))


def test_what_is_no_layer_is_refused(blobs: BlobStore) -> None:
    descriptor = blobs.put(b"{}", "application/vnd.oci.empty.v1+json")
    with pytest.raises(ImageError, match="no layer"):
        LayerReader(blobs, descriptor)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    for path in tmp_path.iterdir():
        remove_tree(path)


def packed(folder: Path, **options: object) -> bytes:
    out = io.BytesIO()
    pack(folder, out, **options)  # type: ignore[arg-type]
    return out.getvalue()


@requires("userns", "root")
@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(trees())
def test_what_is_packed_unpacks_to_the_same_by_gnu_tar_and_by_labkit(tmp_path: Path, nodes: list[Node]) -> None:
    one, two, three = (tmp_path / name for name in ("one", "two", "three"))
    try:
        for target in (one, two, three):
            target.mkdir()
        unpack(io.BytesIO(write_tar(nodes)), one)
        archive = packed(one, is_layer=False)
        assert packed(one, is_layer=False) == archive
        subprocess.run(
            ["tar", "-C", str(two), "--numeric-owner", "-xpf", "-"], input=archive, check=True, capture_output=True
        )
        assert listing(two, root=(0, 0)) == listing(one)
        unpack(io.BytesIO(archive), three)
        assert packed(three, is_layer=False) == archive
    finally:
        for target in (one, two, three):
            remove_tree(target)


@requires("userns")
def test_times_and_owners_can_be_fixed_so_that_two_trees_give_the_same_bytes(folder: Path) -> None:
    results = []
    for name in ("a", "b"):
        (folder / name).mkdir()
        for inner in ("x", "y") if name == "a" else ("y", "x"):
            (folder / name / inner).write_text(inner)
        os.utime(folder / name / "x", (2**31 if name == "a" else 2**30, 2**31 if name == "a" else 2**30))
        os.utime(folder / name / "y", (5, 5))
        results.append(packed(folder / name, latest_s=1000, owner=(0, 0)))
    assert results[0] == results[1]
    members = tarfile.open(fileobj=io.BytesIO(results[0])).getmembers()
    assert [(m.name, m.mtime, m.uid) for m in members] == [("x", 1000, 0), ("y", 5, 0)]


@requires("userns", "program:busybox")
def test_what_a_container_changed_is_packed_in_the_image_s_terms(folder: Path) -> None:
    busybox = find_busybox()
    assert busybox is not None
    low, writable = folder / "low", folder / "writable"
    low.mkdir()
    writable.mkdir()
    nodes = [
        entry(FOLDER, "d", mode=0o755),
        entry(FILE, "d/f", b"1"),
        entry(FILE, "gone", b"1"),
        entry(FILE, "m", b"1"),
    ]
    unpack(
        io.BytesIO(
            tar(
                entry(FILE, "bin/busybox", busybox.read_bytes(), mode=0o755),
                entry(LINK, "bin/sh", link="busybox"),
                *nodes,
            )
        ),
        low,
    )
    script = "busybox rm gone; busybox rm -r d; busybox mkdir d; echo 2 > d/g; busybox chmod 600 m; busybox ln m n"
    done = run(
        Container(
            ["/bin/sh", "-c", script], rootfs=Rootfs("overlay", (str(low),), lowers_owned=True), writable=writable
        )
    )
    assert (done.exit.code, done.stderr) == (0, b"")
    members = {m.name: m for m in tarfile.open(fileobj=io.BytesIO(packed(writable / "upper"))).getmembers()}
    assert {name for name in members if name.split("/")[0] not in ("proc", "sys", "dev")} == {
        ".wh.gone", "d", "d/.wh..wh..opq", "d/g", "m", "n",
    }  # fmt: skip
    assert members["n"].islnk() and members["n"].linkname == "m"
    assert (members["m"].mode, members["m"].uid) == (0o600, 0)
    assert members[".wh.gone"].size == 0


@requires("userns")
def test_a_layer_of_changes_goes_through_a_store_and_comes_out_as_the_same_folder(folder: Path) -> None:
    (folder / "one").mkdir()
    unpack(
        io.BytesIO(tar(entry(FILE, "d/.wh.x"), entry(FILE, "o/.wh..wh..opq"), entry(FILE, "o/f", b"y"))), folder / "one"
    )
    blobs = BlobStore(folder / "store")
    layer, _ = make_layer(blobs, folder / "one")
    (folder / "two").mkdir()
    with LayerReader(blobs, layer.descriptor, diff_id=layer.diff_id) as reader:
        unpack(reader, folder / "two")
    assert stat.S_ISCHR((folder / "two/d/x").lstat().st_mode)
    assert os.listxattr(folder / "two/o") == ["user.overlay.opaque"]
    assert listing(folder / "one", times=False) == listing(folder / "two", times=False)

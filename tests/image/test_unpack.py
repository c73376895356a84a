"""Unpacking, compared with GNU tar and umoci, and the meaning of whiteouts, compared with OverlayFS."""

from __future__ import annotations

import io
import json
import os
import shutil
import stat
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from labkit.container import Container, run
from labkit.container.spec import Rootfs
from labkit.image.confined import owners_here
from labkit.image.rootfs import remove_tree
from labkit.image.unpack import IdPolicy, unpack
from labkit.setup.parts import find_busybox
from tests.image.tars import FILE, FOLDER, HARD, LINK, entry, gnu_long, pax, tar
from tests.image.trees import Node, listing, trees, write_tar
from tests.support import requires

pytestmark = requires("userns")


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder for trees that belong to a container's ids."""
    yield tmp_path
    for path in tmp_path.iterdir():
        remove_tree(path)


def unpacked(data: bytes, target: Path, **options: object) -> Path:
    target.mkdir()
    unpack(io.BytesIO(data), target, **options)  # type: ignore[arg-type]
    return target


def by_gnu_tar(data: bytes, target: Path) -> Path:
    target.mkdir()
    command = ["tar", "-C", str(target), "--numeric-owner", "-xpf", "-"]
    subprocess.run(command, input=data, capture_output=True, check=True)
    return target


@requires("root")
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(trees())
def test_random_archives_are_unpacked_as_gnu_tar_does(tmp_path: Path, nodes: list[Node]) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    try:
        unpacked(write_tar(nodes), ours)
        assert listing(ours) == listing(by_gnu_tar(write_tar(without_replaced_links(nodes)), theirs), root=(0, 0))
    finally:
        remove_tree(ours)
        remove_tree(theirs)


def without_replaced_links(nodes: list[Node]) -> list[Node]:
    """Leave links out that a later entry of the same name replaces: GNU tar confuses the two.

    It makes a link that could lead out (absolute, or with ``..``) at its end only, and an empty file in its place until then, which it knows again by
    its inode and times. The file that replaces it may have been given the same inode, and becomes the link.
    """
    return [
        node
        for number, node in enumerate(nodes)
        if node.kind != "link" or all(later.path != node.path for later in nodes[number + 1 :])
    ]


@pytest.mark.parametrize("link", ["/etc/passwd", "../../..", "a", "nowhere"])
@pytest.mark.parametrize("later", [FILE, FOLDER, HARD])
def test_what_replaces_a_link_stays_and_what_the_link_led_to_is_untouched(
    folder: Path, link: str, later: bytes
) -> None:
    before = Path("/etc/passwd").read_bytes()
    target = unpacked(
        tar(entry(FILE, "f", b"text"), entry(LINK, "a", link=link), entry(later, "a", link="f" if later == HARD else "")),
        folder / "t",
    )  # fmt: skip
    status = (target / "a").lstat()
    assert stat.S_ISDIR(status.st_mode) if later == FOLDER else stat.S_ISREG(status.st_mode)
    assert status.st_size == {FILE: 0, HARD: 4}.get(later, status.st_size)
    assert sorted(os.listdir(target)) == ["a", "f"]
    assert Path("/etc/passwd").read_bytes() == before


@pytest.mark.parametrize("format_", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_both_ways_to_write_long_names_are_read(folder: Path, format_: int) -> None:
    long = "/".join(["n" * 90] * 4)
    data = write_tar([Node(long, "file", text=b"x"), Node("l", "link", text=b"t" * 200)], format_=format_)
    target = unpacked(data, folder / "t")
    assert (target / long).read_bytes() == b"x"
    assert os.readlink(target / "l") == "t" * 200


@pytest.mark.parametrize("format_", ["gnu", "0.0", "0.1", "1.0"])
def test_gnu_tar_s_sparse_files_come_out_whole_and_sparse(folder: Path, format_: str) -> None:
    source = folder / "source"
    source.mkdir()
    with open(source / "sparse", "wb") as file:
        for n in range(40):
            file.seek(n << 20)
            file.write(b"piece %d" % n)
        file.truncate(64 << 20)
    kind = ["--format=gnu"] if format_ == "gnu" else ["--format=posix", f"--sparse-version={format_}"]
    archive = subprocess.run(
        ["tar", "-C", str(source), "-S", *kind, "-cf", "-", "sparse"], capture_output=True, check=True
    ).stdout
    assert len(archive) < 4 << 20
    target = unpacked(archive, folder / "t")
    subprocess.run(["cmp", str(source / "sparse"), str(target / "sparse")], check=True)
    assert (target / "sparse").stat().st_blocks * 512 < 8 << 20


def test_extended_attributes_of_users_are_kept_and_overlayfs_s_are_not(folder: Path) -> None:
    records = {"SCHILY.xattr.user.note": b"a\0b", "SCHILY.xattr.user.overlay.opaque": b"y"}
    target = unpacked(tar(pax(records), entry(FILE, "f", b"x")), folder / "t")
    assert {name: os.getxattr(target / "f", name) for name in os.listxattr(target / "f")} == {"user.note": b"a\0b"}


@requires("root")
def test_file_capabilities_hold_in_the_container_s_namespace_only(folder: Path) -> None:
    # struct vfs_cap_data, version 2: CAP_NET_RAW permitted, effective.
    value = bytes.fromhex("01000002" + "00200000" + "00000000" * 3)
    target = unpacked(tar(pax({"SCHILY.xattr.security.capability": value}), entry(FILE, "ping", b"x")), folder / "t")
    shown = subprocess.run(["getcap", "-n", str(target / "ping")], capture_output=True, text=True, check=False).stdout
    assert "[rootid=1879048192]" in shown, shown


def test_times_of_files_and_folders_are_exact(folder: Path) -> None:
    data = tar(
        pax({"mtime": "1234567890.123456789"}),
        entry(FOLDER, "d", mode=0o755),
        pax({"mtime": "-1.5"}),
        entry(FILE, "d/f", b"x"),
    )
    target = unpacked(data, folder / "t")
    assert (target / "d").stat().st_mtime_ns == 1234567890123456789
    assert (target / "d/f").stat().st_mtime_ns == -1500000000


def test_a_folder_that_was_replaced_by_a_link_is_not_made_again_for_its_time(folder: Path) -> None:
    data = tar(entry(FOLDER, "x"), entry(FOLDER, "d/e/f"), entry(LINK, "d", link="x"))
    target = unpacked(data, folder / "t")
    assert sorted(os.listdir(target)) == ["d", "x"]
    assert os.listdir(target / "x") == []


def test_a_single_id_owns_everything_where_owners_cannot_be_kept(folder: Path) -> None:
    data = tar(entry(FILE, "f", b"x", uid=1000, gid=70000, mode=0o4755))
    target = unpacked(data, folder / "t", ids=IdPolicy(keep_owners=False))
    owners = owners_here()
    assert ((target / "f").stat().st_uid, (target / "f").stat().st_gid) == (owners.root_uid, owners.root_gid)


def is_whiteout(path: Path) -> bool:
    status = path.lstat()
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def is_opaque(path: Path) -> bool:
    return "user.overlay.opaque" in os.listxattr(path)


def test_whiteouts_become_what_overlayfs_reads(folder: Path) -> None:
    data = tar(entry(FILE, "d/.wh.gone"), entry(FILE, "o/.wh..wh..opq"), entry(FILE, "o/new", b"x"))
    target = unpacked(data, folder / "t")
    assert is_whiteout(target / "d/gone")
    assert is_opaque(target / "o")
    assert not is_opaque(target / "d")
    assert sorted(os.listdir(target / "o")) == ["new"]


@pytest.mark.parametrize("order", ["whiteout first", "new one first", "implied"])
def test_a_whiteout_and_a_new_folder_of_the_same_name_mean_an_opaque_folder(folder: Path, order: str) -> None:
    whiteout, new = entry(FILE, ".wh.d"), entry(FOLDER, "d", mode=0o750) + entry(FILE, "d/f", b"x")
    parts = {
        "whiteout first": [whiteout, new],
        "new one first": [new, whiteout],
        "implied": [whiteout, entry(FILE, "d/f", b"x")],
    }
    target = unpacked(tar(*parts[order]), folder / "t")
    assert is_opaque(target / "d")
    assert (target / "d/f").read_bytes() == b"x"


def test_a_whiteout_and_a_new_file_of_the_same_name_mean_the_new_file(folder: Path) -> None:
    for number, parts in enumerate(([".wh.f", "f"], ["f", ".wh.f"])):
        target = unpacked(
            tar(*(entry(FILE, name, b"x" if name == "f" else b"") for name in parts)), folder / f"t{number}"
        )
        assert (target / "f").read_bytes() == b"x"
        assert os.listdir(target) == ["f"]


def test_an_opaque_root_is_reported_because_overlayfs_reads_no_mark_there(folder: Path) -> None:
    (folder / "t").mkdir()
    done = unpack(io.BytesIO(tar(entry(FILE, ".wh..wh..opq"), entry(FILE, "only", b"x"))), folder / "t")
    assert done.opaque_root


def test_a_plain_archive_has_no_whiteouts(folder: Path) -> None:
    target = unpacked(tar(entry(FILE, ".wh.f", b"x")), folder / "t", is_layer=False)
    assert (target / ".wh.f").read_bytes() == b"x"


def test_a_hard_link_to_a_lower_layer_takes_the_file_along(folder: Path) -> None:
    low = unpacked(tar(entry(FILE, "usr/lib/f", b"content", mode=0o4711, uid=0)), folder / "low")
    data = tar(entry(HARD, "g", link="usr/lib/f"), entry(HARD, "h", link="./usr/lib/f"))
    top = unpacked(data, folder / "top", lowers=[low])
    inodes = {(top / name).stat().st_ino for name in ("g", "h", "usr/lib/f")}
    assert len(inodes) == 1
    assert (top / "g").read_bytes() == b"content"
    assert stat.S_IMODE((top / "g").stat().st_mode) == 0o4711


@pytest.mark.parametrize("hider", [".wh.d", "d/.wh.f", "d/.wh..wh..opq", "file"])
def test_a_hard_link_does_not_reach_what_a_layer_between_has_removed(folder: Path, hider: str) -> None:
    from labkit.errors import ImageError

    low = unpacked(tar(entry(FILE, "d/f", b"x")), folder / "low")
    middle = unpacked(tar(entry(FILE, "d" if hider == "file" else hider)), folder / "middle")
    (folder / "top").mkdir()
    with pytest.raises(ImageError, match="not there"):
        unpack(io.BytesIO(tar(entry(HARD, "h", link="d/f"))), folder / "top", lowers=[middle, low])


def test_a_folder_that_only_its_content_implies_keeps_the_mode_it_has_below(folder: Path) -> None:
    low = unpacked(tar(entry(FOLDER, ".", mode=0o711), entry(FOLDER, "tmp", mode=0o1777)), folder / "low")
    top = unpacked(tar(entry(FILE, "tmp/f", b"x")), folder / "top", lowers=[low])
    assert stat.S_IMODE((top / "tmp").stat().st_mode) == 0o1777
    assert stat.S_IMODE(top.stat().st_mode) == 0o711


@requires("program:busybox")
def test_overlayfs_shows_the_layers_as_they_are_meant(folder: Path) -> None:
    busybox = find_busybox()
    assert busybox is not None
    low = unpacked(
        tar(entry(FILE, "bin/sh", busybox.read_bytes(), mode=0o755), entry(FILE, "d/old", b"1"), entry(FILE, "gone", b"1"),
            entry(FILE, "o/old", b"1"), entry(FILE, "r/old", b"1"), entry(LINK, "dev-link", link="/dev")), folder / "low",
    )  # fmt: skip
    top = unpacked(
        tar(entry(FILE, "d/new", b"2"), entry(FILE, ".wh.gone"), entry(FILE, "o/.wh..wh..opq"), entry(FILE, "o/new", b"2"),
            entry(FILE, "r/new", b"2"), entry(FILE, ".wh.r")), folder / "top", lowers=[low],
    )  # fmt: skip
    rootfs = Rootfs("overlay", (str(top), str(low)), lowers_owned=True)
    done = run(
        Container(["/bin/sh", "-c", "for f in *; do echo $f $f/*; done | grep -E '^(d|o|r|gone) '"], rootfs=rootfs)
    )
    assert done.text.splitlines() == ["d d/new d/old", "o o/new", "r r/new"]


@requires("root", "program:umoci")
def test_umoci_unpacks_the_same_files(folder: Path) -> None:
    nodes = [
        Node("d", "folder", 0o750, 1000, 1000), Node("d/f", "file", 0o4755, 1000, 1000, 77, b"text"),
        Node("d/h", "hard", text=b"d/f"), Node("l", "link", text=b"/etc/passwd"), Node("p", "fifo", 0o600),
        Node("n" * 120, "folder", 0o755), Node("n" * 120 + "/x", "file", text=b"y"),
    ]  # fmt: skip
    layout, bundle = folder / "layout", folder / "bundle"
    subprocess.run(["umoci", "init", "--layout", str(layout)], check=True, capture_output=True)
    subprocess.run(["umoci", "new", "--image", f"{layout}:x"], check=True, capture_output=True)
    (folder / "layer.tar").write_bytes(write_tar(nodes))
    subprocess.run(
        ["umoci", "raw", "add-layer", "--image", f"{layout}:x", str(folder / "layer.tar")],
        check=True,
        capture_output=True,
    )
    subprocess.run(
        ["umoci", "unpack", "--uid-map=0:1879048192:65536", "--gid-map=0:1879048192:65536", "--image", f"{layout}:x", str(bundle)],
        check=True, capture_output=True,
    )  # fmt: skip
    ours = unpacked(write_tar(nodes), folder / "ours")
    assert listing(ours) == listing(bundle / "rootfs")
    assert json.loads((layout / "index.json").read_text())["manifests"]


def test_a_tree_deeper_than_any_path_is_removed(folder: Path) -> None:
    top = folder / "deep"
    top.mkdir()
    here = os.open(top, os.O_RDONLY)
    for _ in range(1200):
        os.mkdir("ddd", dir_fd=here)
        inner = os.open("ddd", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = inner
    os.close(here)
    with pytest.raises((RecursionError, OSError)):
        shutil.rmtree(top)
    remove_tree(top)
    assert not top.exists()


def test_gnu_long_names_are_bytes(folder: Path) -> None:
    name = b"\xff\xfe" * 60
    target = unpacked(tar(gnu_long(name), entry(FILE, b"x", b"y")), folder / "t")
    assert os.listdir(os.fsencode(target)) == [name]

"""Containers from images: the configuration decides what is run, the caller's words count more; commit, diff, export, import."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from labkit.container import Container, run
from labkit.container.spec import Rootfs
from labkit.errors import ImageError, InvalidSpec, SetupError
from labkit.image.commit import add_layer, commit, store_image
from labkit.image.config import RunConfig
from labkit.image.confined import owners_here
from labkit.image.diff import diff_images, files_of
from labkit.image.flatten import export_image, import_archive
from labkit.image.layer import LayerWriter
from labkit.image.rootfs import remove_tree
from labkit.image.run import container_of, settings_of
from labkit.image.store import Image, ImageStore
from labkit.isolation.idmap import user_maps
from tests.image.samples import busybox_image
from tests.image.tars import FILE, FOLDER, entry, tar
from tests.image.trees import Node, listing, write_tar
from tests.support import has, requires

pytestmark = requires("userns", "overlay-userns", "program:busybox")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ImageStore]:
    yield ImageStore(tmp_path / "store")
    for path in tmp_path.iterdir():
        remove_tree(path)


@pytest.fixture
def image(store: ImageStore) -> Image:
    return busybox_image(store, "sample")


@pytest.mark.parametrize(
    ("config", "command", "entrypoint", "words"),
    [
        (RunConfig(cmd=("a", "b")), (), None, ("a", "b")),
        (RunConfig(entrypoint=("e",), cmd=("a",)), (), None, ("e", "a")),
        (RunConfig(entrypoint=("e",), cmd=("a",)), ("x",), None, ("e", "x")),
        (RunConfig(entrypoint=("e",), cmd=("a",)), (), ("n",), ("n",)),
        (RunConfig(entrypoint=("e",), cmd=("a",)), ("x",), (), ("x",)),
        (RunConfig(entrypoint=("e",)), (), None, ("e",)),
    ],
)
def test_entry_point_and_command_are_put_together_as_docker_does(
    config: RunConfig, command: tuple[str, ...], entrypoint: tuple[str, ...] | None, words: tuple[str, ...]
) -> None:
    assert settings_of(config, command, entrypoint=entrypoint).command == words


def test_an_image_that_says_nothing_needs_a_command() -> None:
    with pytest.raises(InvalidSpec, match="add a command"):
        settings_of(RunConfig())
    with pytest.raises(InvalidSpec, match="add a command"):
        settings_of(RunConfig(entrypoint=("e",), cmd=("a",)), entrypoint=())


@requires("root")
def test_a_container_of_an_image_has_its_user_folder_environment_and_files(store: ImageStore, image: Image) -> None:
    with container_of(store, "sample") as container:
        assert run(container).text == "from cmd\n"
    script = "id -u; pwd; echo $GREETING $MORE; ls; cat again; ls dir"
    with container_of(store, image, ["/bin/sh", "-c", script], entrypoint=[], env={"MORE": "more"}) as container:
        assert run(container).text.split() == [
            "1000",
            "/srv",
            "hello",
            "more",
            "again",
            "dir",
            "page",
            "page",
            "1",
            "new",
        ]


@pytest.mark.bare
def test_root_in_a_container_of_an_image_owns_its_files_without_id_mapped_mounts(
    store: ImageStore, image: Image
) -> None:
    words = ["/bin/stat", "-c", "%u %g", "/etc/passwd"]
    with container_of(store, image, words, entrypoint=[], user="0:0") as container:
        assert container.spec.rootfs.lowers_owned
        assert (run(container).text, container.notes) == ("0 0\n", ())
    with container_of(store, image, ["/bin/touch", "/etc/passwd"], entrypoint=[], user="0:0") as container:
        assert run(container).exit.ok
    with container_of(store, image, ["/bin/touch", "/x"], entrypoint=[], user="0:0", readonly=True) as container:
        assert not run(container).exit.ok


def test_an_image_of_many_layers_runs_and_is_exported(store: ImageStore, image: Image) -> None:
    config, layers = image.config, list(image.manifest.layers)
    with store.lease():
        for number in range(130):  # Docker's limit is 127; by their whole paths 40 would fit into a mount's options
            with LayerWriter(store.blobs, "none") as writer:
                writer.write(tar(entry(FOLDER, "many"), entry(FILE, f"many/{number}", b"x")))
                layer = writer.commit()
            upper = store.blobs.tmp / "labkit-many"
            (upper / "many").mkdir(parents=True)
            (upper / f"many/{number}").write_bytes(b"x")
            store.layers.adopt(config.diff_ids, layer.diff_id, upper)
            config, layers = add_layer(config, layer, created_by=str(number)), [*layers, layer.descriptor]
        many = store.image(store_image(store, config, layers))
        with container_of(store, many, ["/bin/ls", "/many"], entrypoint=[], user="0:0") as container:
            assert len(run(container).text.split()) == 130
        out = io.BytesIO()
        export_image(store, many, out)
    assert len([m for m in tarfile.open(fileobj=io.BytesIO(out.getvalue())) if m.name.startswith("many/")]) == 130


def test_more_layers_than_one_mount_takes_are_refused_with_what_to_do(tmp_path: Path) -> None:
    folders = [tmp_path / f"layer-{number}" for number in range(501)]
    for folder in folders:
        folder.mkdir()
    rootfs = Rootfs("overlay", tuple(map(str, folders)), lowers_owned=True)
    with pytest.raises(InvalidSpec, match=r"501 layers .* use fewer layers"):
        run(Container(["/bin/true"], rootfs=rootfs))


def test_users_of_a_layer_below_are_gone_with_its_passwd(store: ImageStore, image: Image) -> None:
    with store.lease():
        with LayerWriter(store.blobs) as writer:
            writer.write(tar(entry(FILE, "etc/.wh.passwd")))
            layer = writer.commit()
        config = add_layer(image.config, layer, created_by="rm /etc/passwd")
        gone = store.image(store_image(store, config, [*image.manifest.layers, layer.descriptor]))
        with (
            container_of(store, gone, ["/bin/id"], entrypoint=[], user="web") as container,
            pytest.raises(SetupError, match="web"),
        ):
            container.start()
        with container_of(store, gone, ["/bin/cat", "/etc/passwd"], entrypoint=[], user="0:0") as container:
            assert run(container).exit.code == 1


def test_an_image_that_runs_cannot_be_collected(store: ImageStore, image: Image) -> None:
    with container_of(
        store, image, ["/bin/cat"], entrypoint=[], user="0:0", streams=("pipe", "pipe", "pipe")
    ) as container:
        container.start()
        ImageStore(store.root).remove("sample")
        ImageStore(store.root).prune(all_unused=True)
        done = container.exec(["/bin/sh", "-c", "cat /srv/again"]).communicate()
        assert done.text == "page 1\n"
    store.prune()
    assert list(store.blobs.digests()) == []


def test_a_user_or_an_image_that_is_not_there_is_named(store: ImageStore, image: Image) -> None:
    with pytest.raises(ImageError, match="nowhere"), container_of(store, "nowhere"):
        pass


def test_what_a_container_changed_is_committed_and_seen_by_the_next(
    store: ImageStore, image: Image, tmp_path: Path
) -> None:
    (tmp_path / "writable").mkdir()
    script = "echo new > /srv/new; rm /srv/page; mkdir /tmp/d"
    with container_of(
        store, image, ["/bin/sh", "-c", script], entrypoint=[], user="0:0", writable=tmp_path / "writable"
    ) as container:
        assert run(container).exit.ok
    made = commit(store, tmp_path / "writable/upper", image, tag="committed", created_by="a test", comment="c")
    assert made.config.history[-1].created_by == "a test"
    assert len(made.manifest.layers) == 4
    changes = {
        (change.kind, change.path)
        for change in diff_images(store, [made])
        if change.path.split("/")[1] in ("srv", "tmp")
    }
    assert changes >= {("A", "/srv/new"), ("D", "/srv/page"), ("A", "/tmp/d")}
    adopted = store.layers.adopt(image.config.diff_ids, made.config.diff_ids[-1], tmp_path / "writable/upper")
    assert store.lowers(made)[0] == adopted
    with container_of(
        store, "committed", ["/bin/sh", "-c", "cat /srv/new; ls /srv"], entrypoint=[], user="0:0"
    ) as container:
        assert run(container).text.split() == ["new", "again", "dir", "new"]


def test_the_difference_between_two_images_is_what_their_trees_show(store: ImageStore, image: Image) -> None:
    files = files_of(store, image)
    assert "/srv/old" not in files
    assert "/srv/dir/inside" not in files
    assert files["/srv/again"] == files["/srv/page"]
    other = import_archive(
        store, io.BytesIO(tar(entry(FILE, "srv/page", b"page 2\n"), entry(FILE, "x", b""))), tag="other"
    )
    changes = {change.path: change.kind for change in diff_images(store, [image, other])}
    assert (changes["/srv/page"], changes["/x"], changes["/bin/sh"]) == ("C", "A", "D")
    assert diff_images(store, [image, image]) == []


def test_an_export_is_the_tree_that_a_container_sees_and_imports_again(
    store: ImageStore, image: Image, tmp_path: Path
) -> None:
    out = io.BytesIO()
    export_image(store, image, out)
    members = {m.name: m for m in tarfile.open(fileobj=io.BytesIO(out.getvalue()))}
    assert {name for name in members if name.startswith("srv")} == {
        "srv",
        "srv/again",
        "srv/page",
        "srv/dir",
        "srv/dir/new",
    }
    again = import_archive(store, io.BytesIO(out.getvalue()), tag="flat", message="m", run_config=RunConfig(cmd=("x",)))
    # A user with a single id has no other owners on the disk, so an export of what was unpacked has root's alone.
    if os.geteuid() == 0 or user_maps()[1]:
        assert [change for change in diff_images(store, [image, again]) if not change.path.startswith("/srv/dir")] == []
    assert again.config.config.cmd == ("x",)
    second = io.BytesIO()
    export_image(store, again, second)
    assert second.getvalue() == out.getvalue()


def test_a_damaged_archive_is_not_imported(store: ImageStore) -> None:
    for data in (b"noise" * 500, tar(entry(FILE, "f", b"x" * 3000))[:2000], b"\x1f\x8b\x08" + bytes(40)):
        with pytest.raises(ImageError):
            import_archive(store, io.BytesIO(data), tag="bad")
    assert store.entries() == ()
    assert os.listdir(store.blobs.tmp) == []


@pytest.mark.bare
def test_an_ordinary_user_s_layers_belong_to_the_user_s_ids(store: ImageStore) -> None:
    owners = owners_here()
    nodes = [
        Node("f", "file", 0o600, 7, 8, text=b"secret"),
        Node("d", "folder", 0o700, 7, 8),
        Node("d/g", "file", 0o600, 7, 8, text=b"x"),
    ]
    image = import_archive(store, io.BytesIO(write_tar(nodes)), tag="owned")
    (layer,) = store.lowers(image)
    status = (layer / "f").stat()
    if owners.kind == "mapped":
        assert (status.st_uid, status.st_gid) == (0x7000_0007, 0x7000_0008)
        assert listing(layer)["f"][2] == (7, 8)
    elif owners.has_range:
        assert status.st_uid not in (0, os.geteuid())
    else:
        assert (status.st_uid, status.st_gid) == (os.geteuid(), os.getegid())
    store.remove("owned")
    assert not layer.exists()
    if has("root"):
        assert (
            subprocess.run(
                ["find", str(store.root), "-user", "0", "-perm", "-4000"], capture_output=True, check=True
            ).stdout
            == b""
        )

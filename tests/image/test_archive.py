"""Archives and layouts, exchanged with skopeo, umoci, podman and buildah in both directions; and archives that lie."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from labkit.container import run
from labkit.errors import ImageError
from labkit.image.archive import load_archive, save_archive
from labkit.image.layout import load_layout, save_layout
from labkit.image.rootfs import remove_tree
from labkit.image.run import container_of
from labkit.image.store import Image, ImageStore
from tests.image.samples import busybox_image, tool_environment
from tests.image.tars import FILE, FOLDER, HARD, LINK, entry, tar
from tests.support import requires

NAME = "docker.io/library/sample:1"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ImageStore]:
    yield ImageStore(tmp_path / "store")
    for path in tmp_path.iterdir():
        remove_tree(path)


@pytest.fixture
def other(tmp_path: Path) -> ImageStore:
    return ImageStore(tmp_path / "other")


def tool(*command: str, env: dict[str, str] | None = None) -> str:
    done = subprocess.run(command, capture_output=True, text=True, env=env, check=False, timeout=110)
    assert done.returncode == 0, done.stderr
    return done.stdout


def save(store: ImageStore, *images: Image) -> bytes:
    out = io.BytesIO()
    save_archive(store, images, out)
    return out.getvalue()


def digests_of(image: Image) -> list[str]:
    return [image.descriptor.digest, image.id, *(layer.digest for layer in image.manifest.layers)]


@pytest.mark.parametrize("compression", ["none", "gzip", "zstd"])
def test_an_image_saved_and_loaded_is_the_same_to_the_digest(
    store: ImageStore, other: ImageStore, compression: str
) -> None:
    image = busybox_image(store, NAME, compression=compression)  # type: ignore[arg-type]
    store.tag("again:2", image.root)
    (loaded, _) = load_archive(other, io.BytesIO(save(store, store.image(NAME))))
    assert loaded.descriptor.digest == image.descriptor.digest
    assert digests_of(other.image(NAME)) == digests_of(other.image("again:2")) == digests_of(image)


def test_saving_twice_gives_the_same_bytes_and_an_archive_that_tar_can_list(store: ImageStore) -> None:
    image = busybox_image(store, NAME)
    data = save(store, image)
    assert save(store, image) == data
    names = subprocess.run(["tar", "-tf", "-"], input=data, capture_output=True, check=True).stdout.decode().split()
    assert {"index.json", "manifest.json", "oci-layout"} <= set(names)


def test_a_compressed_archive_is_loaded_too(store: ImageStore, other: ImageStore) -> None:
    data = save(store, busybox_image(store, NAME))
    for command in (["gzip", "-c"], ["zstd", "-c"]):
        packed = subprocess.run(command, input=data, capture_output=True, check=True).stdout
        assert load_archive(other, io.BytesIO(packed))[0].names == (NAME,)
        other.remove(NAME)


@requires("program:skopeo")
def test_skopeo_reads_the_store_itself_the_archive_and_the_layout(store: ImageStore, tmp_path: Path) -> None:
    image = busybox_image(store, NAME)
    (tmp_path / "a.tar").write_bytes(save(store, image))
    save_layout(store, [image], tmp_path / "layout")
    for source in (f"oci:{store.root}:{NAME}", f"oci-archive:{tmp_path}/a.tar:{NAME}", f"oci:{tmp_path}/layout:{NAME}"):
        seen = json.loads(tool("skopeo", "inspect", source))
        assert seen["Digest"] == image.descriptor.digest
        assert seen["Layers"] == [layer.digest for layer in image.manifest.layers]
    raw = tool("skopeo", "inspect", "--raw", "--config", f"docker-archive:{tmp_path}/a.tar:{NAME}")
    assert "sha256:" + hashlib.sha256(raw.encode()).hexdigest() == image.id


@requires("program:skopeo")
@pytest.mark.parametrize("kind", ["oci-archive", "docker-archive", "oci", "oci zstd"])
def test_what_skopeo_writes_is_read_with_its_digests(
    store: ImageStore, other: ImageStore, tmp_path: Path, kind: str
) -> None:
    image = busybox_image(store, NAME, compression="none" if kind == "oci zstd" else "gzip")
    options = ["--dest-compress-format=zstd"] if kind == "oci zstd" else []
    kind = kind.split()[0]
    tool("skopeo", "copy", "-q", *options, f"oci:{store.root}:{NAME}", f"{kind}:{tmp_path}/copy:{NAME}")
    if kind == "oci":
        (loaded,) = load_layout(other, tmp_path / "copy")
        there = json.loads((tmp_path / "copy/index.json").read_text())["manifests"][0]["digest"]
        assert loaded.descriptor.digest == there
        assert not options or other.image(NAME).manifest.layers[0].media_type.endswith("+zstd")
    else:
        with (tmp_path / "copy").open("rb") as file:
            (loaded,) = load_archive(other, file)
    assert other.image(NAME).id == image.id
    assert loaded.names == (NAME,)
    if kind == "oci-archive":
        assert loaded.descriptor.digest == image.descriptor.digest
    if kind == "docker-archive":
        assert [layer.digest for layer in other.image(NAME).manifest.layers] == list(image.config.diff_ids)


@requires("program:umoci", "root")
def test_umoci_unpacks_labkit_s_layout_and_labkit_runs_what_umoci_repacked(
    store: ImageStore, other: ImageStore, tmp_path: Path
) -> None:
    image = busybox_image(store, NAME)
    save_layout(store, [image], tmp_path / "layout")
    there = f"{tmp_path}/layout:{NAME}"
    maps = ["--uid-map=0:1879048192:65536", "--gid-map=0:1879048192:65536"]
    tool("umoci", "unpack", *maps, "--image", there, f"{tmp_path}/bundle")
    assert sorted(os.listdir(tmp_path / "bundle/rootfs/srv")) == ["again", "dir", "page"]
    assert os.listdir(tmp_path / "bundle/rootfs/srv/dir") == ["new"]
    (tmp_path / "bundle/rootfs/srv/made-by-umoci").write_text("hello from umoci")
    os.chown(tmp_path / "bundle/rootfs/srv/made-by-umoci", 0x7000_0000, 0x7000_0000)
    (tmp_path / "bundle/rootfs/srv/page").unlink()
    tool("umoci", "repack", "--image", f"{tmp_path}/layout:repacked", f"{tmp_path}/bundle")
    names = [found for loaded in load_layout(other, tmp_path / "layout") for found in loaded.names]
    assert names == [NAME, "docker.io/library/layout:repacked"]
    with container_of(other, "layout:repacked", ["/bin/sh", "-c", "ls; cat made-by-umoci"], entrypoint=[]) as container:
        assert run(container).text == "again\ndir\nmade-by-umoci\nhello from umoci"


@requires("root", "program:podman", "program:buildah")
def test_podman_and_buildah_take_labkit_s_archive_and_labkit_runs_what_buildah_made(
    store: ImageStore, other: ImageStore, tmp_path: Path
) -> None:
    image = busybox_image(store, NAME)
    (tmp_path / "a.tar").write_bytes(save(store, image))
    env = tool_environment(tmp_path)
    tool("podman", "load", "-q", "-i", f"{tmp_path}/a.tar", env=env)
    seen = json.loads(tool("podman", "image", "inspect", NAME, env=env))[0]
    assert seen["Id"] == image.id.removeprefix("sha256:")
    assert seen["RootFS"]["Layers"] == list(image.config.diff_ids)
    tool("podman", "save", "-q", "--format=oci-archive", "-o", f"{tmp_path}/b.tar", NAME, env=env)
    with (tmp_path / "b.tar").open("rb") as file:
        assert [store_image.names for store_image in load_archive(other, file)] == [(NAME,)]
    assert other.image(NAME).id == image.id
    made = tool("buildah", "from", "--pull-never", NAME, env=env).strip()
    tool("buildah", "copy", "-q", "--chown=1000:1000", made, __file__, "/srv/copied", env=env)
    tool("buildah", "config", "--entrypoint", '["/bin/cat"]', "--cmd", "copied", "--env", "X=y", made, env=env)
    tool("buildah", "commit", "-q", made, f"oci:{tmp_path}/made:new", env=env)
    tool("buildah", "rm", made, env=env)
    load_layout(other, tmp_path / "made")
    with container_of(other, "made:new") as container:
        assert run(container).stdout == Path(__file__).read_bytes()
    words = ["/bin/sh", "-c", "id -u; echo $X; ls -ln copied"]
    with container_of(other, "made:new", words, entrypoint=[]) as container:
        lines = run(container).text.splitlines()
    assert (lines[0], lines[1], lines[2].split()[2:4]) == ("1000", "y", ["1000", "1000"])


def old_docker_archive(config: dict[str, Any], layers: list[bytes], **changes: Any) -> bytes:
    """Return an archive as Docker wrote it until 2024: layers as ID/layer.tar, one of them a link to the one before."""
    data = json.dumps(config).encode()
    name = hashlib.sha256(data).hexdigest() + ".json"
    parts, paths = [], []
    for number, layer in enumerate(layers):
        folder = f"{number:064x}"
        parts += [entry(FOLDER, folder), entry(FILE, f"{folder}/VERSION", b"1.0"), entry(FILE, f"{folder}/json", b"{}")]
        if number and layers[number - 1] == layer:
            parts.append(entry(LINK, f"{folder}/layer.tar", link=f"../{number - 1:064x}/layer.tar"))
        else:
            parts.append(entry(FILE, f"{folder}/layer.tar", layer))
        paths.append(f"{folder}/layer.tar")
    listed = [{"Config": name, "RepoTags": ["old:1"], "Layers": paths} | changes]
    return tar(
        *parts,
        entry(FILE, name, data),
        entry(FILE, "manifest.json", json.dumps(listed).encode()),
        entry(FILE, "repositories", b"{}"),
    )


def config_for(layers: list[bytes]) -> dict[str, Any]:
    diff_ids = ["sha256:" + hashlib.sha256(layer).hexdigest() for layer in layers]
    return {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": diff_ids}}


LAYERS = [tar(entry(FILE, "a", b"1")), tar(entry(FILE, "b", b"2")), tar(entry(FILE, "b", b"2"))]


def test_the_archive_of_older_dockers_is_read(store: ImageStore) -> None:
    config = config_for(LAYERS)
    (loaded,) = load_archive(store, io.BytesIO(old_docker_archive(config, LAYERS)))
    image = store.image("old:1")
    assert image.id == "sha256:" + hashlib.sha256(json.dumps(config).encode()).hexdigest()
    assert loaded.names == ("docker.io/library/old:1",)
    assert set(store.blobs.digests()) == set(digests_of(image))


def damaged(data: bytes, change: Callable[[dict[str, Any], dict[str, bytes]], None]) -> bytes:
    """Return the archive with its index changed, or its files."""
    files: dict[str, bytes] = {}
    for member in (archive := tarfile.open(fileobj=io.BytesIO(data))).getmembers():
        if member.isfile():
            files[member.name] = archive.extractfile(member).read()  # type: ignore[union-attr]
    index = json.loads(files["index.json"])
    change(index, files)
    files["index.json"] = json.dumps(index).encode()
    return tar(*(entry(FILE, name, content) for name, content in files.items()))


def a_blob(files: dict[str, bytes], number: int) -> str:
    return sorted((name for name in files if name.startswith("blobs/")), key=lambda name: len(files[name]))[number]


DAMAGE: dict[str, Callable[[dict[str, Any], dict[str, bytes]], Any]] = {
    "a layer is missing": lambda index, files: files.pop(a_blob(files, -1)),
    "the configuration is missing": lambda index, files: files.pop(a_blob(files, -2)),
    "a layer has other bytes": lambda index, files: files.update({a_blob(files, -1): b"other"}),
    "the manifest is cut": lambda index, files: files.update({a_blob(files, 3): b'{"schemaVersion"'}),
    "the index lies about the size": lambda index, files: index["manifests"][0].update(size=3),
    "the index names nothing": lambda index, files: index["manifests"][0].update(digest="sha256:" + "0" * 64),
    "the index points to a layer": lambda index, files: index["manifests"][0].update(
        digest="sha256:" + a_blob(files, -1).rpartition("/")[2], size=len(files[a_blob(files, -1)])
    ),
    "the index gives an impossible name": lambda index, files: index["manifests"][0].update(
        annotations={"org.opencontainers.image.ref.name": "../../etc:passwd"}
    ),
    "the index is no index": lambda index, files: index.update(schemaVersion=7),
    "there is no list at all": lambda index, files: [files.pop(n) for n in ("oci-layout", "manifest.json")],
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGE)
def test_a_lying_archive_is_refused_and_nothing_of_it_stays(store: ImageStore, other: ImageStore, name: str) -> None:
    data = damaged(save(store, busybox_image(store, NAME)), lambda index, files: DAMAGE[name](index, files) and None)
    with pytest.raises(ImageError) as caught:
        load_archive(other, io.BytesIO(data))
    assert "Traceback" not in str(caught.value)
    assert list(other.blobs.digests()) == []
    assert other.entries() == ()
    assert os.listdir(other.blobs.tmp) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"Config": "../../etc/passwd"}, {"Config": 7}, {"Layers": []}, {"Layers": ["nowhere"]}, {"Layers": [7]},
        {"RepoTags": ["Bad:Name:x"]}, {"RepoTags": [7]}, {"Layers": [f"{n:064x}/layer.tar" for n in (1, 0, 2)]},
    ],
    ids=str,
)  # fmt: skip
def test_a_lying_manifest_json_is_refused_and_nothing_of_it_stays(store: ImageStore, changes: dict[str, Any]) -> None:
    with pytest.raises((ImageError, ValueError)):
        load_archive(store, io.BytesIO(old_docker_archive(config_for(LAYERS), LAYERS, **changes)))
    assert list(store.blobs.digests()) == []
    assert store.entries() == ()


@pytest.mark.parametrize(
    "data",
    [b"", b"hello", tar(), tar(entry(FILE, "x", b"y")), tar(entry(HARD, "manifest.json", link="manifest.json"))],
    ids=len,
)
def test_what_is_no_archive_of_images_is_refused(store: ImageStore, data: bytes) -> None:
    with pytest.raises(ImageError):
        load_archive(store, io.BytesIO(data))


@pytest.mark.parametrize("cut", [100, 600, 5000, 1_000_000])
def test_a_truncated_archive_is_refused_and_nothing_of_it_stays(store: ImageStore, other: ImageStore, cut: int) -> None:
    with pytest.raises(ImageError):
        load_archive(other, io.BytesIO(save(store, busybox_image(store, NAME))[:cut]))
    assert list(other.blobs.digests()) == []


def test_a_layout_with_links_and_pipes_in_place_of_blobs_is_refused(
    store: ImageStore, other: ImageStore, tmp_path: Path
) -> None:
    image = busybox_image(store, NAME)
    save_layout(store, [image], tmp_path / "layout")
    blob = tmp_path / "layout/blobs" / image.manifest.layers[0].digest.replace(":", "/")
    content = blob.read_bytes()
    (tmp_path / "outside").write_bytes(content)
    for make in (lambda: blob.symlink_to(tmp_path / "outside"), lambda: os.mkfifo(blob)):
        blob.unlink()
        make()
        with pytest.raises(ImageError):
            load_layout(other, tmp_path / "layout")
    (tmp_path / "layout/oci-layout").write_text('{"imageLayoutVersion": "2.0.0"}')
    with pytest.raises(ImageError, match="version"):
        load_layout(other, tmp_path / "layout")
    with pytest.raises(ImageError, match="no OCI image layout"):
        load_layout(other, tmp_path)
    assert other.entries() == ()

"""The store: names, completeness, what is collected and what stays, several processes at once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from labkit.errors import ImageError, InvalidSpec, InvalidState
from labkit.image import media_types as mt
from labkit.image.blobs import BlobStore
from labkit.image.commit import store_image
from labkit.image.config import ImageConfig, RunConfig
from labkit.image.descriptor import Descriptor, Platform, digest_of
from labkit.image.layer import LayerWriter
from labkit.image.leftovers import find_half_done, remove_half_done
from labkit.image.manifest import Index, Manifest
from labkit.image.store import ImageStore, state_folder
from tests.image.tars import FILE, entry, tar
from tests.support import PROJECT, requires


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    return ImageStore(tmp_path / "store")


def make_image(store: ImageStore, name: str, *contents: bytes, **settings: object) -> Descriptor:
    """Store an image of one layer for each of ``contents``."""
    with store.lease():
        layers = []
        for number, content in enumerate(contents):
            with LayerWriter(store.blobs) as writer:
                writer.write(tar(entry(FILE, f"file-{number}", content)))
                layers.append(writer.commit())
        config = ImageConfig(diff_ids=tuple(layer.diff_id for layer in layers), config=RunConfig(**settings))  # type: ignore[arg-type]
        descriptor = store_image(store, config, [layer.descriptor for layer in layers])
        if name:
            store.tag(name, descriptor)
        return descriptor


def test_an_image_is_found_by_name_digest_and_the_beginning_of_its_ids(store: ImageStore) -> None:
    descriptor = make_image(store, "me/app:1", b"a")
    image = store.image("me/app:1")
    for text in (
        "docker.io/me/app:1",
        descriptor.digest,
        image.id[7:19],
        image.id,
        descriptor.digest[7:15],
        f"me/app@{descriptor.digest}",
    ):
        assert store.resolve(text) == descriptor
    assert image.references == ("docker.io/me/app:1",)
    for text in ("me/app", "me/other:1", "ffffffff", "sha256:" + "0" * 64, f"me/other@{descriptor.digest}"):
        with pytest.raises(ImageError, match="no image"):
            store.resolve(text)
    with pytest.raises(InvalidSpec):
        store.resolve("Me/App")


def test_the_store_is_a_layout_that_other_tools_can_check(store: ImageStore) -> None:
    make_image(store, "app", b"a")
    assert json.loads((store.root / "oci-layout").read_bytes()) == {"imageLayoutVersion": "1.0.0"}
    listed = json.loads((store.root / "index.json").read_bytes())["manifests"]
    assert [found["annotations"]["org.opencontainers.image.ref.name"] for found in listed] == [
        "docker.io/library/app:latest"
    ]
    for path in (store.root / "blobs/sha256").iterdir():
        done = subprocess.run(["sha256sum", str(path)], capture_output=True, text=True, check=True)
        assert done.stdout.split()[0] == path.name


def test_a_name_that_moves_leaves_its_image_without_a_name(store: ImageStore) -> None:
    first, second = make_image(store, "app", b"1"), make_image(store, "app", b"2")
    assert {entry.name: entry.descriptor for entry in store.entries()} == {
        "": first,
        "docker.io/library/app:latest": second,
    }
    store.tag("app:old", first)
    assert sorted(entry.name for entry in store.entries()) == [
        "docker.io/library/app:latest",
        "docker.io/library/app:old",
    ]


def test_an_incomplete_image_gets_no_name(store: ImageStore) -> None:
    descriptor = make_image(store, "", b"1")
    manifest = Manifest.from_bytes(store.blobs.read(descriptor))
    lying = replace(manifest, layers=(replace(manifest.layers[0], size=manifest.layers[0].size + 1),))
    missing = replace(manifest, layers=(Descriptor(mt.OCI_LAYER, digest_of(b"nowhere"), 7),))
    fewer = replace(manifest, layers=())
    config = replace(manifest, config=Descriptor(mt.OCI_CONFIG, digest_of(b"nowhere"), 7))
    for bad in (lying, missing, fewer, config):
        with pytest.raises(ImageError):
            store.tag("app", store.blobs.put(bad.to_bytes(), mt.OCI_MANIFEST))
    with pytest.raises(ImageError):
        store.tag("app", manifest.layers[0])
    assert [entry for entry in store.entries() if entry.name] == []


def test_of_an_index_the_image_of_this_machine_is_taken(store: ImageStore) -> None:
    here = make_image(store, "", b"1")
    image = store.image(here)
    other = Descriptor(mt.OCI_MANIFEST, digest_of(b"not here"), 8, platform=Platform("s390x"))
    index = Index((other, replace(here, platform=image.config.platform)))
    store.tag("multi", store.blobs.put(index.to_bytes(), mt.OCI_INDEX))
    assert store.image("multi").descriptor.digest == here.digest
    assert store.image("multi").root.media_type == mt.OCI_INDEX
    with pytest.raises(ImageError, match="no blob"):
        store.image("multi", platform=Platform("s390x"))
    with pytest.raises(ImageError, match="not there for linux/riscv64"):
        store.image("multi", platform=Platform("riscv64"))
    nothing = Index((other,))
    with pytest.raises(ImageError, match="none of which"):
        store.tag("nothing", store.blobs.put(nothing.to_bytes(), mt.OCI_INDEX))


def test_removing_a_name_frees_what_nothing_else_needs(store: ImageStore) -> None:
    make_image(store, "one", b"shared", b"own")
    make_image(store, "two", b"shared")
    shared = store.image("two").manifest.layers[0].digest
    own = store.image("one").manifest.layers[1].digest
    gone = store.remove("one")
    assert own in gone.blobs
    assert shared not in gone.blobs
    assert store.blobs.has(shared)
    assert store.image("two")
    with pytest.raises(ImageError):
        store.remove("one")


def test_an_image_with_two_names_goes_with_the_second(store: ImageStore) -> None:
    descriptor = make_image(store, "one", b"1")
    store.tag("two", descriptor)
    with pytest.raises(ImageError, match="2 names"):
        store.remove(descriptor.digest)
    assert store.remove("one").blobs == ()
    assert len(store.remove("two").blobs) == 3
    make_image(store, "one", b"1")
    store.tag("two", descriptor)
    assert len(store.remove(descriptor.digest, force=True).untagged) == 2
    assert list(store.blobs.digests()) == []


def test_prune_takes_what_nothing_leads_to_and_du_says_so_before_and_after(store: ImageStore) -> None:
    make_image(store, "app", b"old" * 1000)
    make_image(store, "app", b"new" * 1000)
    stray = store.blobs.put(b"stray", "text/plain")
    before = store.usage()
    assert before.unreachable_bytes == 5
    assert len(before.images) == 2
    gone = store.prune()
    assert stray.digest in gone.blobs
    assert gone.freed_bytes == before.blob_bytes - store.usage().blob_bytes > 5
    after = store.usage()
    assert (after.unreachable_bytes, len(after.images)) == (0, 1)
    assert store.prune().blobs == ()
    assert store.prune(all_unused=True).untagged == ("docker.io/library/app:latest",)
    assert list(store.blobs.digests()) == []


def test_shared_and_own_bytes_add_up(store: ImageStore) -> None:
    make_image(store, "one", b"shared" * 500, b"own")
    make_image(store, "two", b"shared" * 500)
    usage = {image.names[0]: image for image in store.usage().images}
    one, two = usage["docker.io/library/one:latest"], usage["docker.io/library/two:latest"]
    layer = store.image("two").manifest.layers[0].size
    assert one.shared_bytes == two.shared_bytes == layer
    assert one.unique_bytes + two.unique_bytes + layer == store.usage().blob_bytes


def test_a_lease_keeps_what_was_brought_and_found_until_it_ends(store: ImageStore) -> None:
    other = ImageStore(store.root)
    found = store.blobs.put(b"found", "text/plain")
    with store.lease():
        assert store.blobs.has(found.digest)
        brought = store.blobs.put(b"brought", "text/plain")
        assert other.prune(all_unused=True).blobs == ()
    assert set(other.prune().blobs) == {found.digest, brought.digest}


def test_a_lease_on_an_image_keeps_it_and_its_unpacked_layers_though_its_name_goes(store: ImageStore) -> None:
    make_image(store, "app", b"1")
    with store.lease():
        lowers = store.lowers(store.image("app"))
        ImageStore(store.root).remove("app")
        assert all(path.is_dir() for path in lowers)
        ImageStore(store.root).prune(all_unused=True)
        assert all(path.is_dir() for path in lowers)
    store.prune()
    assert not any(path.exists() for path in lowers)


def test_a_pin_keeps_content_without_a_name(store: ImageStore) -> None:
    descriptor = make_image(store, "", b"1")
    store.pins.set("build-cache", "key/with/slashes", [descriptor])
    assert store.prune().blobs == ()
    assert store.pins.names("build-cache") == ("key/with/slashes",)
    assert store.pins.get("build-cache", "key/with/slashes")[0].digest == descriptor.digest
    assert len(store.prune(build_cache=True).blobs) == 3
    with pytest.raises(ImageError):
        store.pins.add("build-cache", "x", descriptor)


def test_a_blob_that_is_not_what_was_announced_does_not_stay(store: ImageStore) -> None:
    good = Descriptor.of(b"content", "text/plain")
    cases = [(b"contenT", "digest"), (b"conten", "ends after 6 of 7"), (b"content more", "goes on")]
    for data, said in cases:
        with pytest.raises(ImageError, match=said), store.blobs.writer(good) as writer:
            writer.write(data)
            writer.commit()
    with store.blobs.writer(good) as writer:
        writer.write(b"con")
    assert not store.blobs.has(good.digest)
    assert os.listdir(store.blobs.tmp) == []


def test_an_upload_goes_on_where_it_was_cut_off(store: ImageStore) -> None:
    with store.blobs.writer(upload="id-1") as writer:
        writer.write(b"first ")
        with pytest.raises(InvalidState, match="somebody else"):
            BlobStore(store.root).writer(upload="id-1")
    assert [(name, size) for name, size, _ in store.blobs.uploads()] == [("id-1", 6)]
    with store.blobs.writer(upload="id-1") as writer:
        assert writer.offset == 6
        writer.write(b"second")
        assert writer.commit(digest_of(b"first second")).size == 12
    assert list(store.blobs.uploads()) == []
    for bad in ("../x", "", "a/b", "x" * 200):
        with pytest.raises(ImageError):
            store.blobs.writer(upload=bad)


def test_sha512_digests_are_kept_and_checked(store: ImageStore) -> None:
    import hashlib

    digest = "sha512:" + hashlib.sha512(b"x").hexdigest()
    with store.blobs.writer(Descriptor("text/plain", digest, 1)) as writer:
        writer.write(b"x")
        assert writer.commit().digest == digest
    with store.blobs.open(digest) as reader:
        assert reader.read(10) == b"x"
        assert reader.read(10) == b""


def test_a_damaged_index_is_an_error_and_not_an_empty_store(store: ImageStore) -> None:
    make_image(store, "app", b"1")
    (store.root / "index.json").write_bytes(b'{"schemaVersion": 2, "mani')
    with pytest.raises(ImageError):
        store.entries()
    with pytest.raises(ImageError):
        store.prune()
    assert len(list(store.blobs.digests())) == 3


@requires("userns")
def test_a_damaged_layer_is_not_unpacked_and_nothing_of_it_stays(store: ImageStore) -> None:
    make_image(store, "app", b"1", b"2")
    image = store.image("app")
    path = store.blobs.path(image.manifest.layers[1].digest)
    path.write_bytes(path.read_bytes()[:-10] + b"0123456789")
    with pytest.raises(ImageError):
        store.lowers(image)
    assert os.listdir(store.blobs.tmp) == []
    assert len(store.layers.chains()) == 1


@requires("userns")
def test_layers_are_unpacked_once_and_shared(store: ImageStore) -> None:
    make_image(store, "one", b"shared", b"own")
    make_image(store, "two", b"shared")
    one, two = store.lowers(store.image("one")), store.lowers(store.image("two"))
    assert one[1:] == two
    assert [(path / f"file-{number}").read_bytes() for number, path in ((1, one[0]), (0, one[1]))] == [
        b"own",
        b"shared",
    ]
    stamp = (two[0] / "file-0").stat().st_ctime_ns
    assert store.lowers(store.image("two")) == two
    assert (two[0] / "file-0").stat().st_ctime_ns == stamp
    note = two[0].parent / "layer.json"
    note.write_text(note.read_text().replace(json.loads(note.read_text())["boot_id"], "before-the-last-start"))
    store.lowers(store.image("two"))
    assert (two[0] / "file-0").stat().st_ctime_ns != stamp


@requires("userns")
def test_an_opaque_root_hides_all_layers_below(store: ImageStore) -> None:
    with store.lease():
        layers = []
        for content in (tar(entry(FILE, "old", b"1")), tar(entry(FILE, ".wh..wh..opq"), entry(FILE, "new", b"2"))):
            with LayerWriter(store.blobs) as writer:
                writer.write(content)
                layers.append(writer.commit())
        config = ImageConfig(diff_ids=tuple(layer.diff_id for layer in layers))
        store.tag("app", store_image(store, config, [layer.descriptor for layer in layers]))
    assert [sorted(os.listdir(path)) for path in store.lowers(store.image("app"))] == [["new"]]


def test_leftovers_of_the_dead_are_found_and_those_of_the_living_are_not(store: ImageStore) -> None:
    code = (
        "import os, sys; sys.path.insert(0, sys.argv[1]); from labkit.image.store import ImageStore\n"
        "store = ImageStore(sys.argv[2]); lease = store.lease(); writer = store.blobs.writer(); writer.write(b'x')\n"
        "os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code, str(PROJECT), str(store.root)], check=False)
    with store.lease(), store.blobs.writer() as writer:
        writer.write(b"y")
        dead = find_half_done(store.root)
        assert len(dead) == 2
        assert store.usage().half_done == 1
        remove_half_done(dead)
        assert find_half_done(store.root) == []
        assert writer.commit().size == 1
    assert find_half_done(store.root.parent / "nowhere") == []


_WORKER = """
import sys, random
sys.path.insert(0, sys.argv[1])
from labkit.image.store import ImageStore
from tests.image.test_store import make_image
store, number, rnd = ImageStore(sys.argv[2]), int(sys.argv[3]), random.Random(int(sys.argv[3]))
for turn in range(12):
    make_image(store, f"image-{number}", b"shared", b"%d" % rnd.randrange(3))
    image = store.image(f"image-{number}")
    with store.blobs.open(image.manifest.layers[1].digest) as reader:
        while reader.read(1000): pass
    if number % 2: store.prune()
    if turn % 5 == 4: store.remove(f"image-{number}")
make_image(store, f"image-{number}", b"shared", b"last %d" % number)
"""


def test_several_processes_on_one_store_lose_nothing(store: ImageStore) -> None:
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", _WORKER, str(PROJECT), str(store.root), str(number)], stderr=subprocess.PIPE
        )
        for number in range(4)
    ]
    errors = [worker.communicate(timeout=100)[1].decode() for worker in workers]
    assert errors == [""] * 4
    assert sorted(entry.name for entry in store.entries() if entry.name) == [
        f"docker.io/library/image-{number}:latest" for number in range(4)
    ]
    for number in range(4):
        for descriptor in store.image(f"image-{number}").manifest.references:
            with store.blobs.open(descriptor.digest, size=descriptor.size) as reader:
                while reader.read(1000):
                    pass
    assert os.listdir(store.blobs.tmp) == []
    assert os.listdir(store.blobs.leases.folder) == []


def test_threads_of_one_program_may_share_a_store(store: ImageStore) -> None:
    failed: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for turn in range(5):
                make_image(store, f"image-{number}", b"shared", b"%d-%d" % (number, turn))
                store.prune()
        except BaseException as error:  # noqa: BLE001 - whatever it is, the test tells it
            failed.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert len(store.images()) == 4


def test_the_state_folder_follows_its_variables(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LABKIT_STATE", str(tmp_path))
    assert state_folder() == tmp_path
    monkeypatch.delenv("LABKIT_STATE")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("XDG_DATA_HOME", "/data")
    assert state_folder() == Path("/data/labkit")

"""kill -9 at random moments of loading, unpacking, tagging, collecting: the store opens clean, acknowledged images are whole."""

from __future__ import annotations

import io
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from labkit.image.archive import save_archive
from labkit.image.descriptor import Descriptor
from labkit.image.layer import LayerReader
from labkit.image.leftovers import find_half_done, remove_half_done
from labkit.image.manifest import Manifest
from labkit.image.rootfs import remove_tree
from labkit.image.store import ImageStore
from tests.image.samples import busybox_image
from tests.image.test_store import make_image
from tests.support import PROJECT, requires

KILLS = 50 if os.geteuid() == 0 else 10
#: Loads one image after another, says so when each is acknowledged, unpacks, and collects now and then.
_WORKER = """
import sys, itertools
sys.path.insert(0, sys.argv[1])
from labkit.image.store import ImageStore
from labkit.image.archive import load_archive
store = ImageStore(sys.argv[2])
print("ready", flush=True)
for turn in itertools.count(int(sys.argv[4])):
    name = f"image-{turn}"
    with open(sys.argv[3], "rb") as file:
        (loaded,) = load_archive(store, file)
    store.tag(name, loaded.descriptor)
    print(name, flush=True)
    store.lowers(store.image(name))
    if turn % 3 == 0:
        store.remove("sample:1")
        store.prune()
"""


def check(store: ImageStore, acknowledged: list[str]) -> None:
    """Demand that every acknowledged image is there and whole, by reading all of it."""
    images = {name: store.image(name) for name in acknowledged}
    for digest in {image.root.digest for image in images.values()}:
        image = next(image for image in images.values() if image.root.digest == digest)
        for layer, diff_id in zip(image.manifest.layers, image.config.diff_ids, strict=True):
            with LayerReader(store.blobs, layer, diff_id=diff_id) as reader:
                while reader.read():
                    pass


@requires("userns")
def test_kills_at_random_moments_lose_nothing_and_leave_what_is_collected(tmp_path: Path) -> None:
    source = ImageStore(tmp_path / "source")
    archive = tmp_path / "a.tar"
    with archive.open("wb") as file:
        save_archive(source, [busybox_image(source, "sample:1")], file)
    root, rnd, acknowledged = tmp_path / "store", random.Random(), list[str]()
    seed = rnd.randrange(1 << 30)
    rnd.seed(seed)
    print(f"random seed {seed}")
    for turn in range(KILLS):
        command = [sys.executable, "-c", _WORKER, str(PROJECT), str(root), str(archive), str(1000 * turn)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as worker:
            assert worker.stdout is not None
            assert worker.stdout.readline() == "ready\n"
            time.sleep(rnd.uniform(0, 0.25))
            worker.send_signal(signal.SIGKILL)
            acknowledged += worker.stdout.read().split()
        # Another program opens the store at once, sees whole images, and works.
        if turn % 10 == 9:
            check(ImageStore(root), acknowledged)
    assert len(acknowledged) > KILLS // 5
    store = ImageStore(root)
    make_image(store, "alive", b"1")
    gone = store.prune()
    check(store, [*acknowledged, "alive"])
    assert find_half_done(root) == []
    for folder in (store.blobs.tmp, store.blobs.leases.folder, store.blobs.uploads_folder):
        assert os.listdir(folder) == []
    assert store.usage().unreachable_bytes == 0
    assert all(not Path(path).exists() for path in gone.scratch)
    for name in acknowledged:
        store.remove(name)
    remove_tree(root / "layers")


def test_what_a_dead_unpacking_left_is_removed_by_clean_whoever_owns_it(tmp_path: Path) -> None:
    store = ImageStore(tmp_path / "store")
    dead = store.blobs.tmp / "labkit-0123"
    (dead / "diff" / "d").mkdir(parents=True)
    (dead / "diff" / "d").chmod(0)
    assert find_half_done(store.root) == [dead]
    remove_half_done([dead])
    assert not dead.exists()


def test_an_index_half_written_is_never_seen(tmp_path: Path) -> None:
    """Readers and a writer side by side: each look finds a whole index."""
    store = ImageStore(tmp_path / "store")
    descriptor = make_image(store, "app", b"1")
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); from labkit.image.store import ImageStore\n"
        "store = ImageStore(sys.argv[2])\n"
        "while True: assert any(entry.name for entry in store.entries())"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(PROJECT), str(store.root)], stderr=subprocess.PIPE
    ) as reader:
        for number in range(60):
            store.tag(f"app:{number}", descriptor)
        assert reader.poll() is None
        reader.kill()


def test_a_manifest_of_a_stranger_gets_no_name_until_all_of_it_is_there(tmp_path: Path) -> None:
    store = ImageStore(tmp_path / "store")
    image = store.image(make_image(store, "app", b"1"))
    manifest = Manifest.from_bytes(image.manifest.to_bytes())
    other = ImageStore(tmp_path / "other")
    described = other.blobs.put(manifest.to_bytes(), manifest.media_type)
    assert isinstance(described, Descriptor)
    for digest in (manifest.config, *manifest.layers):
        try:
            other.tag("app", described)
        except Exception as error:  # noqa: BLE001 - the type is what is looked at
            assert type(error).__name__ == "ImageError"
        assert other.entries() == ()
        with other.blobs.writer(digest) as writer:
            writer.write(store.blobs.path(digest.digest).read_bytes())
            writer.commit()
    other.tag("app", described)
    assert io.BytesIO(other.blobs.read(described)).read() == manifest.to_bytes()

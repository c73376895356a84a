from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from labkit.errors import ImageError, InvalidSpec
from labkit.image.rootfs import remove_tree
from labkit.image.store import ImageStore
from labkit.measure.builds import BuildRun, build_run
from labkit.measure.images import Images, look_at_images
from tests.image.build.corpus import BASE
from tests.image.build.stores import build_base
from tests.support import requires

pytestmark = requires("userns", "overlay-userns", "program:busybox")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ImageStore]:
    folder = tmp_path_factory.mktemp("measured")
    made = ImageStore(folder / "store")
    build_base(made, folder / "base")
    for name in ("one", "two"):
        (folder / name).mkdir()
        (folder / name / "Containerfile").write_text(f"FROM {BASE}\nRUN echo {name} > /name\nENV A=1\n")
        build_run(name, folder / name, store=made)
    yield made
    remove_tree(made.root)


def test_shared_layers_count_once_as_the_blobs_on_the_disk_do(store: ImageStore) -> None:
    seen = look_at_images(store, ["two", BASE, "one"])
    blobs = {layer.digest: store.blobs.path(layer.digest).stat().st_size for layer in seen.layers.values()}
    assert seen.stored_bytes == sum(blobs.values())
    assert seen.sum_bytes == sum(stack.size_bytes for stack in seen.stacks) > 2.9 * seen.stored_bytes
    base, one, two = (
        sorted(seen.stacks, key=lambda stack: stack.name)[0],
        *(s for s in seen.stacks if s.name in ("one", "two")),
    )
    assert seen.unique_bytes(base) == 0
    assert seen.unique_bytes(one) == one.layers[-1].size_bytes
    assert one.begins_like(two, len(base.layers)) and not one.begins_like(two, len(one.layers))
    assert {seen.users(layer.digest) for layer in base.layers} == {3}


def test_a_layer_is_named_by_the_instruction_that_made_it(store: ImageStore) -> None:
    seen = look_at_images(store, ["one"])
    assert seen.stacks[0].layers[-1].made_by == "RUN /bin/sh -c echo one > /name"


def test_without_names_all_named_images_are_shown(store: ImageStore) -> None:
    assert {stack.name for stack in look_at_images(store).stacks} == {"one", "two", BASE}


def test_what_is_not_there_is_an_error(store: ImageStore, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="There is no image gone"):
        look_at_images(store, ["gone"])
    with pytest.raises(InvalidSpec, match="build one first"):
        look_at_images(ImageStore(tmp_path / "empty"))


def test_results_can_be_kept(store: ImageStore, tmp_path: Path) -> None:
    seen = look_at_images(store)
    assert Images.from_json(json.loads(json.dumps(seen.to_json()))) == seen
    (tmp_path / "Containerfile").write_text(f"FROM {BASE}\nRUN echo one > /name\nENV B=1\n")
    ran = build_run("three", tmp_path, store=store)
    assert BuildRun.from_json(json.loads(json.dumps(ran.to_json()))) == ran
    assert [(step.cached, step.why) for step in ran.steps] == [
        (True, ""),
        (False, "the instruction is new here; before it was ENV A=1"),
    ]
    assert [str(step).split("  ")[0] for step in ran.done] == ["ENV B=1"]

"""The image stack follows the store; the build view changes a real file, builds, and says what was done again and why."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from labkit.errors import InvalidSpec
from labkit.image.rootfs import remove_tree
from labkit.image.store import ImageStore
from labkit.measure.builds import build_run
from labkit.widgets.build_cache import NOTHING, build_cache, describe
from labkit.widgets.image_stack import image_stack
from tests.image.build.corpus import BASE
from tests.image.build.stores import build_base
from tests.support import requires
from tests.widgets.test_layer_stack import parts

pytestmark = requires("userns", "overlay-userns", "program:busybox")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ImageStore]:
    folder = tmp_path_factory.mktemp("viewed")
    made = ImageStore(folder / "store")
    build_base(made, folder / "base")
    yield made
    remove_tree(made.root)


@pytest.fixture
def context(tmp_path: Path) -> Path:
    (tmp_path / "list.txt").write_text("a\n")
    (tmp_path / "app.sh").write_text("cat /done\n")
    run = "RUN sleep 0.2; cp /s/list.txt /done\n"
    (tmp_path / "Containerfile.bad").write_text(f"FROM {BASE}\nCOPY list.txt app.sh /s/\n{run}")
    (tmp_path / "Containerfile.good").write_text(f"FROM {BASE}\nCOPY list.txt /s/\n{run}COPY app.sh /s/\n")
    return tmp_path


def press_build(view: Any, change: str) -> str:
    """Choose what to change, press Build, and return what the view says."""
    parts(view.widget, "Dropdown")[0].value = change
    next(button for button in parts(view.widget, "Button") if button.description == "Build").click()
    return describe(view._take())


def test_the_stack_shows_what_the_store_has_and_follows_it(store: ImageStore, context: Path) -> None:
    view = image_stack(store)
    try:
        assert repr(view) == "Live view: images as stacks of layers"
        assert f"{BASE} has 4 layers" in view.sentence
        before = view.png
        build_run("new", context, store=store, containerfile="Containerfile.good")
        time.sleep(1.1)  # a whole picture is drawn once a second at most
        view.refresh()
        assert view.png != before
    finally:
        view.close()


def test_an_empty_store_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidSpec, match="build one first"):
        image_stack(ImageStore(tmp_path / "empty"))


def test_a_change_is_built_with_both_orders_and_the_sentence_tells_the_difference(
    store: ImageStore, context: Path
) -> None:
    view = build_cache(store, context, ["Containerfile.bad", "Containerfile.good"], files=["app.sh", "list.txt"])
    try:
        assert press_build(view, NOTHING).count("came from the cache") == 2
        said = press_build(view, "app.sh")
        assert "bad: 2 of 2 steps were done" in said
        assert "good: 1 of 3 steps were done" in said
        assert said.count("because app.sh changed") == 2
        assert (context / "app.sh").read_text() == "cat /done\n# change 1\n"
        assert "good: 3 of 3 steps were done" in press_build(view, "list.txt")
    finally:
        view.close()


def test_a_build_that_fails_is_said(store: ImageStore, context: Path) -> None:
    view = build_cache(store, context, ["Containerfile.good"], files=["app.sh"])
    try:
        (context / "Containerfile.good").write_text("FROM nowhere\n")
        press_build(view, "app.sh")
        assert "The build failed: pull access denied for nowhere" in parts(view.widget, "HTML")[0].value
    finally:
        view.close()

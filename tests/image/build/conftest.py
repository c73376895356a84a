"""Stores for tests of builds: each test gets one of its own that holds the base image."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from labkit.image.rootfs import remove_tree
from labkit.image.store import ImageStore
from tests.image.build.corpus import write_context
from tests.image.build.stores import build_base


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A store that holds the base image, made once."""
    folder = tmp_path_factory.mktemp("prepared")
    build_base(ImageStore(folder / "store"), folder / "base")
    yield folder / "store"
    remove_tree(folder / "store")


@pytest.fixture
def store(prepared: Path, tmp_path: Path) -> Iterator[ImageStore]:
    """A store of one test, with a copy of the base image's blobs."""
    shutil.copytree(prepared, tmp_path / "store", ignore=shutil.ignore_patterns("layers", "build-cache", "pins", "tmp"))
    yield ImageStore(tmp_path / "store")
    # Unpacked layers belong to the ids of containers: an ordinary user may not remove them by path.
    remove_tree(tmp_path / "store")


@pytest.fixture
def context(tmp_path: Path) -> Path:
    """The context that all share."""
    (tmp_path / "context").mkdir()
    return write_context(tmp_path / "context")

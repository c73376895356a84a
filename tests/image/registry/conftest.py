"""Registries for the tests: labkit's own, on a free port of this machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from labkit.image import ImageStore
from labkit.image.registry.server.service import RegistryServer, RegistrySettings
from tests.image.registry.liar import Liar
from tests.image.registry.wire import Wire


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RegistryServer]:
    """A registry without accounts, for one test."""
    with RegistryServer(tmp_path / "registry", RegistrySettings(port=0)) as running:
        yield running


@pytest.fixture
def wire(server: RegistryServer) -> Wire:
    """A raw client of ``server``."""
    return Wire(server.address)


@pytest.fixture(scope="module")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryServer]:
    """A registry without accounts, for the tests of one module."""
    with RegistryServer(tmp_path_factory.mktemp("registry"), RegistrySettings(port=0)) as running:
        yield running


@pytest.fixture
def shared(shared_server: RegistryServer) -> Wire:
    """A raw client of ``shared_server``."""
    return Wire(shared_server.address)


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    """An empty store."""
    return ImageStore(tmp_path / "store")


@pytest.fixture
def liar() -> Iterator[Liar]:
    """A registry that says what the test tells it to say."""
    with Liar().running() as running:
        yield running


@pytest.fixture(autouse=True)
def no_credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the tests away from this user's own state: credentials, store, registry."""
    monkeypatch.setenv("LABKIT_STATE", str(tmp_path / "state"))

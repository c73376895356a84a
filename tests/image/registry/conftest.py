"""Registries for the tests: labkit's own, on a free port of this machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from labkit.image.registry.server.service import RegistryServer, RegistrySettings
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

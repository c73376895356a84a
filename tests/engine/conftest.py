"""One engine for all tests of this folder that leave it as they found it; others start their own."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest

from tests.engine.support import IMAGE, Daemon, busybox_tar, start_labkit


@pytest.fixture(scope="package")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """Give an engine with an image, in which a container has run already (so its cgroup parent is there)."""
    engine = start_labkit(tmp_path_factory.mktemp("e"))
    try:
        client = engine.client()
        client.api.import_image_from_data(busybox_tar(), repository="busybox", tag="latest")
        client.containers.run(IMAGE, "true", remove=True)
        # RUN steps of builds have a launcher of their own, which stays with the engine.
        client.images.build(fileobj=io.BytesIO(f"FROM {IMAGE}\nRUN true\n".encode()), tag="warm:1")
        client.images.remove("warm:1")
        client.close()
        yield engine
    finally:
        assert engine.stop() == 0


@pytest.fixture
def client(daemon: Daemon) -> Iterator[docker.DockerClient]:
    """Give a client of the SDK; what a test made is removed afterwards."""
    sdk = daemon.client()
    yield sdk
    for container in sdk.containers.list(all=True, ignore_removed=True):
        container.remove(force=True, v=True)
    for network in sdk.networks.list():
        if network.name not in ("bridge", "host", "none"):
            network.remove()
    for volume in sdk.volumes.list():
        volume.remove()
    for image in sdk.images.list():
        if IMAGE not in image.tags:
            sdk.images.remove(image.id, force=True)
    sdk.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Give an empty folder for files of a test."""
    return tmp_path

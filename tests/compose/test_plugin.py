"""Docker's own `docker compose` (version 2 and later) against labkit's engine: built, up, well, reached, scaled, down."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engine.support import Daemon, busybox_tar, start_labkit
from tests.support import requires

pytestmark = [requires("root", "compose-plugin", "program:busybox"), pytest.mark.timeout(180)]

PROGRAM = Path(sys.executable).with_name("docker-compose")
FILE = """
name: labkit-plugin
services:
  db:
    image: busybox
    command: sh -c 'touch /data/ready; exec sleep 600'
    stop_grace_period: 0s
    volumes: [data:/data]
    healthcheck: {test: ["CMD", "test", "-e", "/data/ready"], interval: 300ms, retries: 50}
  web:
    build: ./web
    depends_on: {db: {condition: service_healthy}}
    environment: {GREETING: hello}
    stop_grace_period: 0s
    deploy: {replicas: 2}
volumes: {data: {}}
"""
RECIPE = 'FROM busybox\nCOPY page /page\nCMD ["sh", "-c", "cat /page; echo $GREETING; exec sleep 600"]\n'


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """Give an engine with the image, and a project beside its state."""
    daemon = start_labkit(tmp_path_factory.mktemp("p"))
    try:
        client = daemon.client()
        client.api.import_image_from_data(busybox_tar(), repository="busybox", tag="latest")
        # The engine's first container makes what then stays until the engine ends: before the test, so that it is not blamed.
        client.containers.run("busybox", ["true"], remove=True)
        client.close()
        folder = daemon.state.parent / "project" / "web"
        folder.mkdir(parents=True)
        (folder.parent / "compose.yaml").write_text(FILE)
        (folder / "Dockerfile").write_text(RECIPE)
        (folder / "page").write_text("a page\n")
        yield daemon
    finally:
        assert daemon.stop() == 0


def compose(engine: Daemon, *words: str) -> str:
    """Run the plugin and return what it printed."""
    environment = os.environ | {
        "DOCKER_HOST": engine.url, "DOCKER_CONFIG": str(engine.state / "client"), "HOME": str(engine.state.parent),
    }  # fmt: skip
    done = subprocess.run(
        [str(PROGRAM), *words],
        cwd=engine.state.parent / "project",
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, (words, done.stderr)
    return done.stdout


def test_the_plugin_builds_brings_up_scales_and_takes_down(engine: Daemon) -> None:
    assert "Successfully tagged labkit-plugin-web:latest" in compose(engine, "build")
    compose(engine, "up", "-d")
    states = dict(line.split() for line in compose(engine, "ps", "--format", "{{.Service}} {{.State}}").splitlines())
    assert states == {"db": "running", "web": "running"}
    assert "healthy" in compose(engine, "ps", "db", "--format", "{{.Status}}")
    assert "db" in compose(engine, "exec", "-T", "web", "nslookup", "db")
    logs = compose(engine, "logs", "--no-color", "web")
    assert logs.count("a page") == logs.count("hello") == 2
    compose(engine, "up", "-d", "--scale", "web=3")
    assert len(compose(engine, "ps", "-q", "web").split()) == 3
    assert compose(engine, "run", "--rm", "-T", "--no-deps", "web", "cat", "/page") == "a page\n"
    compose(engine, "down", "-v")
    client = engine.client()
    assert client.containers.list(all=True) == []
    assert client.volumes.list() == []
    assert {network.name for network in client.networks.list()} == {"bridge", "host", "none"}
    client.close()

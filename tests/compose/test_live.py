"""A project on a real engine: brought up, hurt, repaired, updated, rolled back, taken down."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import docker
import pytest

from labkit.compose.apply import Applier, ComposeError, image_ids
from labkit.compose.load import load_project
from labkit.compose.model import Health, Project
from labkit.compose.plan import plan_down, plan_up
from labkit.compose.reconcile import Reconciler
from labkit.errors import InvalidState
from tests.engine.support import IMAGE, Daemon, busybox_tar, start_labkit
from tests.support import PROJECT, requires

pytestmark = [requires("userns", "overlay-userns", "program:busybox", "pyseccomp"), pytest.mark.timeout(180)]

FILE = """
name: labkit-shop
services:
  web:
    image: busybox
    command: sh -c 'echo serving; echo $$GREETING > /www; sleep 1000'
    environment: {GREETING: "${GREETING:-hello}"}
    depends_on: {db: {condition: service_healthy}}
    stop_grace_period: 0s
    deploy: {replicas: 2}
  db:
    image: busybox
    command: sh -c 'touch /ready; sleep 1000'
    healthcheck: {test: test -e /ready, interval: 200ms, retries: 20}
    volumes: ["data:/data"]
    stop_grace_period: 0s
volumes: {data: }
networks: {default: {external: true, name: none}}
"""


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    daemon = start_labkit(tmp_path_factory.mktemp("c"))
    try:
        sdk = daemon.client()
        sdk.api.import_image_from_data(busybox_tar(), repository="busybox", tag="latest")
        sdk.containers.run(IMAGE, "true", remove=True)
        sdk.close()
        yield daemon
    finally:
        assert daemon.stop() == 0


@pytest.fixture
def sdk(engine: Daemon) -> Iterator[docker.DockerClient]:
    client = engine.client()
    yield client
    for container in client.containers.list(all=True):
        container.remove(force=True, v=True)
    for volume in client.volumes.list():
        volume.remove()
    client.close()


@pytest.fixture
def project(tmp_path: Path) -> Project:
    (tmp_path / "compose.yaml").write_text(FILE)
    return load_project(tmp_path / "compose.yaml", environment={})


@pytest.fixture
def up(sdk: docker.DockerClient, project: Project) -> Reconciler:
    reconciler = Reconciler(sdk.api, project, wait_s=30)
    reconciler.step()
    return reconciler


def names(sdk: docker.DockerClient, **options: object) -> list[str]:
    return sorted(container.name for container in sdk.containers.list(**options))  # type: ignore[arg-type]


def greetings(sdk: docker.DockerClient) -> list[str]:
    containers = sorted((one for one in sdk.containers.list() if "web" in one.name), key=lambda one: one.name)
    return [one.exec_run(["cat", "/www"]).output.decode().strip() for one in containers]


def test_up_makes_everything_and_a_second_time_nothing(up: Reconciler, sdk: docker.DockerClient) -> None:
    assert names(sdk) == ["labkit-shop-db-1", "labkit-shop-web-1", "labkit-shop-web-2"]
    assert [volume.name for volume in sdk.volumes.list()] == ["labkit-shop_data"]
    assert sdk.containers.get("labkit-shop-db-1").attrs["State"]["Health"]["Status"] == "healthy"
    assert up.drift() == [] and up.step() == []


def test_drift_is_seen_named_and_repaired(up: Reconciler, sdk: docker.DockerClient) -> None:
    sdk.containers.get("labkit-shop-web-1").remove(force=True)
    sdk.containers.get("labkit-shop-web-2").kill()
    sdk.containers.get("labkit-shop-web-2").wait()
    assert [str(action) for action in up.drift() if action.kind != "wait for"] == [
        "create labkit-shop-web-1: it is missing", "start labkit-shop-web-2: it has ended with status 137",
    ]  # fmt: skip
    up.step()
    assert len(names(sdk)) == 3 and up.drift() == []


def test_an_update_is_rolled_out_and_back(up: Reconciler, sdk: docker.DockerClient, project: Project) -> None:
    web = project.services["web"]
    newer = replace(project, services={**project.services, "web": replace(web, environment={"GREETING": "welcome"})})
    before = {one.name: one.id for one in sdk.containers.list()}
    up.update(newer)
    after = {one.name: one.id for one in sdk.containers.list()}
    assert (
        before["labkit-shop-db-1"] == after["labkit-shop-db-1"]
        and before["labkit-shop-web-1"] != after["labkit-shop-web-1"]
    )
    _until(lambda: greetings(sdk) == ["welcome", "welcome"])
    up.roll_back()
    _until(lambda: greetings(sdk) == ["hello", "hello"])
    with pytest.raises(InvalidState, match="nothing to go back to"):
        up.roll_back()


def test_an_update_that_never_becomes_well_is_undone_after_its_first_replica(
    up: Reconciler, sdk: docker.DockerClient, project: Project
) -> None:
    sick = replace(
        project.services["web"], environment={"GREETING": "sick"}, healthcheck=Health(("CMD", "false"), 0.1, 1, 0, 1)
    )
    said: list[str] = []
    up.say = said.append
    with pytest.raises(ComposeError, match="labkit-shop-web-1 did not become healthy: it is unhealthy"):
        up.update(replace(project, services={**project.services, "web": sick}))
    assert not any(
        line.startswith("recreate labkit-shop-web-2")
        for line in said[: said.index(next(x for x in said if "rolling back" in x))]
    )
    assert up.drift() == []
    _until(lambda: greetings(sdk) == ["hello", "hello"])


def test_scaling_is_an_update_of_a_number(up: Reconciler, sdk: docker.DockerClient, project: Project) -> None:
    web = project.services["web"]
    for replicas in (3, 1):
        up.update(replace(project, services={**project.services, "web": replace(web, replicas=replicas)}))
        assert len([name for name in names(sdk) if "web" in name]) == replicas


def test_down_leaves_the_data_and_nothing_else(up: Reconciler, sdk: docker.DockerClient, project: Project) -> None:
    up.down()
    assert names(sdk, all=True) == []
    assert [volume.name for volume in sdk.volumes.list()] == ["labkit-shop_data"]
    actual = up.actual()
    Applier(sdk.api, project, {}).apply(plan_down(project, actual, volumes=True))
    assert sdk.volumes.list() == []


def test_a_missing_image_is_an_error_that_names_it(sdk: docker.DockerClient, project: Project) -> None:
    services = {"web": replace(project.services["web"], image="127.0.0.1:9/none:1", depends_on={})}
    with pytest.raises(ComposeError, match=r"127\.0\.0\.1:9/none:1 could not be pulled"):
        image_ids(sdk.api, replace(project, services=services))
    assert plan_up(project, Reconciler(sdk.api, project).actual(), {})[0].kind == "create volume"


def test_the_command_line_says_what_it_does(engine: Daemon, sdk: docker.DockerClient, tmp_path: Path) -> None:
    (tmp_path / "compose.yaml").write_text(FILE)

    def compose(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "labkit", "compose", "--host", engine.url, *words]
        environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=90, env=environment)

    assert "create labkit-shop-web-2: it is missing" in compose("up", "-d").stdout
    assert "nothing to do" in compose("up").stdout
    listed = compose("ps").stdout
    assert "labkit-shop-db-1" in listed and "running (healthy)" in listed
    _until(lambda: "labkit-shop-web-1 | serving" in compose("logs").stdout)
    assert compose("up", "nosuch").returncode == 2
    down = compose("down", "-v")
    assert (down.returncode, down.stderr) == (0, "") and "remove volume labkit-shop_data" in down.stdout
    assert json.loads(json.dumps(names(sdk, all=True))) == []


def _until(condition: object, timeout_s: float = 20) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline_s
        time.sleep(0.05)

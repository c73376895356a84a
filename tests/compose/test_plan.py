"""The difference between file and engine, as actions: nothing is started here."""

from __future__ import annotations

from dataclasses import replace

import pytest

from labkit.compose.actual import Actual, Found
from labkit.compose.containers import config_hash
from labkit.compose.model import Health, Network, NetworkUse, Project, Service, Volume
from labkit.compose.plan import plan_down, plan_up

DEFAULT = {"default": NetworkUse()}
DB = Service("db", "img", networks=DEFAULT, healthcheck=Health(("CMD", "true")))
WEB = Service("web", "img", networks=DEFAULT, depends_on={"db": "service_healthy"}, replicas=2)
PROJECT = Project("p", "/x", {"web": WEB, "db": DB}, {"default": Network("p_default")}, {"data": Volume("p_data")})
IMAGES = {"web": "sha256:1", "db": "sha256:1"}


def found(service: Service, number: int = 1, *, state: str = "running", exit_code: int = 0) -> Found:
    digest = config_hash(PROJECT, service, "sha256:1")
    return Found(
        f"id-{service.name}{number}", f"p-{service.name}-{number}", service.name, number, digest, state, exit_code
    )


ALL = Actual((found(DB), found(WEB), found(WEB, 2)), frozenset({"p_default"}), frozenset({"p_data"}))


def steps(actual: Actual, project: Project = PROJECT, **options: object) -> list[str]:
    return [f"{action.kind} {action.name}" for action in plan_up(project, actual, IMAGES, **options)]  # type: ignore[arg-type]


def test_from_nothing_everything_is_made_in_the_order_of_need() -> None:
    assert steps(Actual()) == [
        "create network p_default", "create volume p_data", "create p-db-1", "wait for db", "create p-web-1", "create p-web-2",
    ]  # fmt: skip


def test_what_is_so_already_needs_nothing() -> None:
    assert steps(ALL) == []


def test_a_missing_replica_is_made_and_one_too_many_goes() -> None:
    assert steps(replace(ALL, containers=(found(DB), found(WEB, 2), found(WEB, 3)))) == [
        "wait for db",
        "create p-web-1",
        "remove p-web-3",
    ]


@pytest.mark.parametrize("state", ["exited", "dead"])
def test_what_has_ended_badly_is_started_again(state: str) -> None:
    assert steps(replace(ALL, containers=(found(DB, state=state, exit_code=1), *ALL.containers[1:]))) == [
        "start p-db-1"
    ]


def test_a_job_that_is_done_is_left_alone() -> None:
    assert steps(replace(ALL, containers=(found(DB, state="exited"), *ALL.containers[1:]))) == []


def test_a_changed_service_is_made_anew_and_no_other() -> None:
    changed = replace(PROJECT, services={"web": replace(WEB, environment={"A": "2"}), "db": DB})
    assert steps(ALL, changed) == ["wait for db", "recreate p-web-1", "recreate p-web-2"]


def test_another_image_of_the_same_name_is_a_change() -> None:
    actions = plan_up(PROJECT, ALL, {**IMAGES, "db": "sha256:2"})
    assert [(action.kind, action.name) for action in actions] == [("recreate", "p-db-1")]


def test_one_service_brings_what_it_depends_on() -> None:
    assert "create p-db-1" in steps(Actual(), only=["web"])
    assert "create p-web-1" not in steps(Actual(), only=["db"])


def test_orphans_go_only_when_asked() -> None:
    orphan = replace(found(DB), service="old", name="p-old-1", id="id-old")
    actual = replace(ALL, containers=(*ALL.containers, orphan))
    assert steps(actual) == []
    assert steps(actual, remove_orphans=True) == ["remove p-old-1"]


def test_down_takes_the_last_started_first_and_keeps_data() -> None:
    kept = [f"{action.kind} {action.name}" for action in plan_down(PROJECT, ALL)]
    assert kept == ["remove p-web-2", "remove p-web-1", "remove p-db-1", "remove network p_default"]
    assert [action.kind for action in plan_down(PROJECT, ALL, volumes=True)][-1] == "remove volume"


def test_what_is_external_is_neither_made_nor_removed() -> None:
    external = replace(
        PROJECT,
        networks={"default": Network("p_default", external=True)},
        volumes={"data": Volume("p_data", external=True)},
    )
    assert not any("network" in step or "volume" in step for step in steps(Actual(), external))
    assert not any("network" in action.kind for action in plan_down(external, ALL, volumes=True))

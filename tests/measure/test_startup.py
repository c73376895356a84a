from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from labkit.errors import FeatureMissing, InvalidSpec, LabkitError
from labkit.measure import startup
from labkit.measure.contenders import Contender
from labkit.measure.startup import NAMES, Race, race
from labkit.measure.stats import median
from tests.support import has, requires

pytestmark = requires("userns", "program:busybox")
QUICK = ("process", "namespace:pid", "namespaces", "container")


@pytest.fixture(scope="module")
def short_race() -> Race:
    return race(4, only=QUICK, warm_up=1)


def test_each_contender_has_as_many_samples_as_rounds(short_race: Race) -> None:
    assert [row.name for row in short_race.rows] == list(QUICK)
    assert {len(row.samples_ms) for row in short_race.rows} == {4}
    assert all(sample > 0 for row in short_race.rows for sample in row.samples_ms)


def test_the_json_has_a_host_and_rows_of_names_with_samples(short_race: Race) -> None:
    data = json.loads(json.dumps(short_race.to_json()))
    assert {"host", "rows"} <= set(data)
    assert isinstance(data["host"], dict)
    for row in data["rows"]:
        assert {"name", "samples_ms"} <= set(row)
        assert all(isinstance(sample, float) for sample in row["samples_ms"])
    assert Race.from_json(data) == short_race


def test_ratio_and_summary_are_computed_from_the_samples(short_race: Race) -> None:
    container, process = (median(short_race.row(name).samples_ms) for name in ("container", "process"))
    assert short_race.ratio("container", "process") == container / process
    assert short_race.row("container").summary.n == 4


def test_the_names_are_those_that_were_promised() -> None:
    kinds = ("user", "mnt", "pid", "net", "ipc", "uts", "cgroup", "time")
    promised = ["process", *(f"namespace:{kind}" for kind in kinds), "namespaces", "container"]
    assert list(NAMES) == [*promised, "unshare", "bwrap", "crun", "runc", "podman", "docker"]


@requires("timens")
def test_every_kind_of_namespace_can_take_part() -> None:
    kinds = [name for name in NAMES if name.startswith("namespace")]
    result = race(1, only=kinds, warm_up=0)
    assert [row.name for row in result.ran] == kinds


def test_contenders_take_turns_and_warm_up_rounds_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    monkeypatch.setattr(startup, "_enter", lambda name, *_: Contender(name, start=lambda: calls.append(name)))
    seen = []
    result = race(2, only=["container", "process"], warm_up=1, progress=lambda done, total: seen.append((done, total)))
    assert calls == ["process", "container"] * 3  # in the order of the table, round by round
    assert seen == [(1, 3), (2, 3), (3, 3)]
    assert {len(row.samples_ms) for row in result.rows} == {2}


def test_a_contender_that_fails_on_the_way_drops_out_and_the_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    rounds = iter(range(100))

    def fail_later() -> None:
        if next(rounds) == 2:
            raise LabkitError("It broke.")

    starts = {"process": lambda: None, "container": fail_later}
    monkeypatch.setattr(startup, "_enter", lambda name, *_: Contender(name, start=starts[name]))
    result = race(5, only=starts, warm_up=0)
    assert result.row("container").skipped == "It failed after 2 rounds: It broke."
    assert (result.row("container").samples_ms, len(result.row("process").samples_ms)) == ((), 5)
    with pytest.raises(InvalidSpec):
        result.ratio("container", "process")


@pytest.mark.parametrize(
    ("n", "only"), [(0, None), (-1, ["process"]), (1, ["vmware"]), (1, []), (1, ["process", "namespace:moon"])]
)
def test_a_race_that_cannot_be_held_is_refused(n: int, only: list[str] | None) -> None:
    with pytest.raises(InvalidSpec):
        race(n, only=only)


def test_without_busybox_there_is_no_race(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("labkit.measure.rootfs.find_busybox", lambda: None)
    with pytest.raises(FeatureMissing, match="static busybox"):
        race(1, only=["process"])


@requires("user")
def test_an_ordinary_user_is_told_that_a_user_namespace_comes_along(short_race: Race) -> None:
    assert "user namespace" in short_race.row("namespace:pid").note


@requires("undelegated")
def test_without_cgroups_the_container_runs_without_limits_and_says_so(short_race: Race) -> None:
    assert "no limits here" in short_race.row("container").note


@requires("cgroups")
def test_with_cgroups_the_container_has_limits(short_race: Race) -> None:
    assert short_race.row("container").note.endswith("limits")


@pytest.mark.parametrize("name", ["unshare", "bwrap", "crun", "runc", "podman", "docker"])
def test_a_peer_runs_or_the_reason_is_given(name: str) -> None:
    row = race(1, only=[name], warm_up=0).row(name)
    assert (len(row.samples_ms) == 1) != bool(row.skipped)
    assert row.note or row.skipped.endswith(".")
    if not has(f"program:{name}") and not row.samples_ms:
        assert row.skipped == "It is not installed."


@requires("program:bwrap")
def test_bwrap_takes_part_where_it_runs_by_itself() -> None:
    command = ["bwrap", "--unshare-all", "--ro-bind", "/", "/", "true"]
    runs = subprocess.run(command, capture_output=True, check=False).returncode == 0
    assert bool(race(1, only=["bwrap"], warm_up=0).row("bwrap").samples_ms) == runs


def test_a_peer_that_is_not_installed_is_listed_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("labkit.measure.programs.find_program", lambda *_: None)
    row = race(1, only=["runc"], warm_up=0).row("runc")
    assert (row.skipped, row.samples_ms) == ("It is not installed.", ())


@pytest.mark.parametrize("name", ["runc", "crun"])
def test_a_peer_that_refuses_is_listed_with_what_it_said(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = tmp_path / name
    fake.write_text("#!/bin/sh\necho 'the moon is full' >&2\nexit 3\n")
    fake.chmod(0o755)
    monkeypatch.setattr("labkit.measure.programs.find_program", lambda *_: fake)
    assert race(1, only=[name], warm_up=0).row(name).skipped == "It cannot run here: the moon is full."


def test_a_peer_that_hangs_is_killed_and_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = tmp_path / "bwrap"
    fake.write_text("#!/bin/sh\nexec sleep 60\n")
    fake.chmod(0o755)
    monkeypatch.setattr("labkit.measure.programs.find_program", lambda *_: fake)
    monkeypatch.setattr("labkit.measure.programs.TIMEOUT_S", 0.3)
    assert "longer than" in race(1, only=["bwrap"], warm_up=0).row("bwrap").skipped

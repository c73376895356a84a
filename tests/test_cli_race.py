from __future__ import annotations

import json

import pytest

from labkit.commands.race import table
from labkit.measure.hostfacts import host_facts
from labkit.measure.startup import Race, Row
from tests.support import requires
from tests.support.cli import assert_one_sentence, labkit

pytestmark = requires("userns", "program:busybox")


def test_the_json_is_host_and_rows_with_the_names_that_were_asked_for() -> None:
    done = labkit("race", "--n", "2", "--json", "--only", "container,process")
    assert (done.returncode, done.stderr) == (0, "")
    data = json.loads(done.stdout)
    assert [row["name"] for row in data["rows"]] == ["process", "container"]
    assert {len(row["samples_ms"]) for row in data["rows"]} == {2}
    assert data["host"]["kernel"]


def test_the_table_shows_median_spread_n_and_a_bar() -> None:
    done = labkit("race", "--n", "3", "--only", "process, namespace:uts")
    header, first, second, *_ = done.stdout.splitlines()
    assert header.split() == ["median", "ms", "spread", "ms", "n"]
    assert first.split()[0] == "process"
    assert second.split()[0] == "namespace:uts"
    assert second.split()[3] == "3"
    assert "█" in done.stdout


def test_who_could_not_run_is_listed_with_the_reason_and_bars_have_one_scale() -> None:
    rows = (Row("process", (1.0, 1.0)), Row("container", (4.0, 4.0)), Row("docker", (), skipped="No daemon answers."))
    lines = table(Race(host_facts(), rows, 2, 0))
    bars = {line.split()[0]: line.count("█") for line in lines if "█" in line}
    assert bars["container"] == 4 * bars["process"] + bars["container"] % 4
    assert any(line.split() == ["docker", "No", "daemon", "answers."] for line in lines)


@pytest.mark.parametrize("words", [["--n", "0"], ["--n", "few"], ["--only", "vmware"], ["--only", ","]])
def test_a_race_that_cannot_be_held_is_one_sentence_and_status_2(words: list[str]) -> None:
    done = labkit("race", *words)
    assert done.returncode == 2
    assert_one_sentence(done.stderr)

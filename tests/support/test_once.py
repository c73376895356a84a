"""What one run is enough for: files that are there, nothing that asks the kernel, and nothing out of sight."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.support import PROJECT
from tests.support.inner import run_inner
from tests.support.once import ELSEWHERE, PURE, reason
from tests.support.summary import summarize

TESTS = """
from tests.support import requires

def test_pure(): ...

@requires("program:sh")
def test_compared_with_a_program(): ...

@requires("userns")
def test_mechanism(): ...
"""
CONFTEST = """
import tests.support.once as once
once.PURE = (once.Pure("they are little", ("test_inner.py",)),)
"""


def test_every_place_of_the_list_is_there() -> None:
    for place in (place for pure in PURE for place in pure.places):
        path = PROJECT / "tests" / place
        assert path.is_dir() if place.endswith("/") else path.is_file(), place


def test_alone_a_run_leaves_nothing_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ELSEWHERE, raising=False)
    assert reason("tests/charts/test_theme.py::test_x", []) == ""


@pytest.mark.parametrize("features", [[], ["program:tar"], ["module:dockerfile", "program:tar"]])
def test_a_listed_test_is_left_to_the_other_run(monkeypatch: pytest.MonkeyPatch, features: list[str]) -> None:
    monkeypatch.setenv(ELSEWHERE, "root")
    assert (
        reason("tests/charts/test_theme.py::test_x", features)
        == "only in the root run (pictures are drawn from numbers)"
    )


@pytest.mark.parametrize("features", [["userns"], ["program:tar", "cgroups"], ["user"], ["overlay-userns"], ["vm"]])
def test_what_asks_the_machine_for_something_runs_in_both(monkeypatch: pytest.MonkeyPatch, features: list[str]) -> None:
    monkeypatch.setenv(ELSEWHERE, "root")
    assert reason("tests/charts/test_theme.py::test_x", features) == ""
    assert reason("tests/container/test_container.py::test_x", []) == ""


def test_a_page_in_a_browser_stands_on_features_that_it_does_not_test(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ELSEWHERE, "root")
    assert "pages are shown" in reason("tests/browser/test_live_views.py::test_x", ["chromium", "userns"])
    assert reason("tests/browser/test_live_views.py::test_x", ["chromium", "vm"]) == ""
    assert reason("tests/browser/test_sandbox.py::test_x", ["chromium", "userns"]) == ""


def test_the_run_says_what_it_left_out_and_demands_no_feature_of_it(tmp_path: Path) -> None:
    reports = tmp_path / "reports"
    tests = tmp_path / "tests"
    tests.mkdir()
    environment = {ELSEWHERE: "root", "LABKIT_FEATURE_REPORT": str(reports), "LABKIT_TEST_RUN": "user"}
    options = ("--must-have", "program:sh", "-k", "not test_mechanism")
    output = run_inner(tests, TESTS, status=5, conftest=CONFTEST, environment=environment, options=options)
    assert "only in the root run (they are little), 2 tests" in output
    assert "MISSING" not in output
    (report,) = reports.glob("*.json")
    assert sum(json.loads(report.read_text())["left_out"].values()) == 2
    assert "only in the root run (they are little), 2 tests" in summarize(reports)[0]


def test_an_ordinary_run_of_the_same_file_has_all(tmp_path: Path) -> None:
    output = run_inner(tmp_path, TESTS, status=0, conftest=CONFTEST, options=("-k", "not test_mechanism"))
    assert "2 passed" in output
    assert os.environ.get(ELSEWHERE, "") == "" or "only in" not in output

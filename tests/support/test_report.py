"""``@requires`` skips and says why; what must be there fails the run when it is not; several runs make one summary."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import FEATURES, PROJECT, probe, requires
from tests.support.features import _run
from tests.support.inner import run_inner
from tests.support.report import parse_must_have, run_kind
from tests.support.summary import summarize

TESTS = """
from tests.support import requires

@requires("program:sh")
def test_runs(): ...

@requires("program:sh", "program:labkit-no-such-program")
def test_skips(): ...

@requires("program:sh")
class TestClass:
    def test_runs_too(self): ...
"""


def test_a_skip_names_the_missing_feature_and_the_reason(tmp_path: Path) -> None:
    output = run_inner(tmp_path, TESTS, status=0, options=("-rs",))
    assert "needs program:labkit-no-such-program (there is no program labkit-no-such-program on PATH)" in output
    assert "2 passed, 1 skipped" in output


def test_the_table_counts_what_ran_and_what_was_skipped_for_lack_of_the_feature(tmp_path: Path) -> None:
    rows = [line.split() for line in run_inner(tmp_path, TESTS, status=0).splitlines()]
    assert ["program:sh", "yes", "2", "ran", "0", "skipped"] in rows
    assert any(row[:6] == ["program:labkit-no-such-program", "no", "0", "ran", "1", "skipped"] for row in rows)


@pytest.mark.parametrize(
    ("must_have", "status", "complaint"),
    [
        ("program:sh", 0, ""),
        ("program:sh,program:labkit-no-such-program", 1, "program:labkit-no-such-program must be present"),
        ("program:env", 1, "program:env is present, but no test that requires it ran"),
    ],
)
def test_a_feature_that_must_be_there_fails_the_run_when_absent_or_unused(
    tmp_path: Path, must_have: str, status: int, complaint: str
) -> None:
    output = run_inner(tmp_path, TESTS, status=status, options=("--must-have", must_have))
    assert complaint in output
    assert ("MISSING" in output) == bool(complaint)


def test_the_projects_list_counts_only_when_it_is_asked_for(tmp_path: Path) -> None:
    assert "MISSING" not in run_inner(tmp_path, TESTS, status=0)
    demanding = run_inner(tmp_path, TESTS, status=1, environment={"LABKIT_MUST_HAVE": "1"})
    assert demanding.count("MISSING") == len(parse_must_have((PROJECT / "tests/must_have.txt").read_text(), run_kind()))


def test_what_asks_for_no_range_or_no_delegation_belongs_to_the_bare_run(tmp_path: Path) -> None:
    tests = "from tests.support import requires\n@requires('undelegated')\ndef test_poor(): ...\ndef test_rich(): ...\n"
    output = run_inner(tmp_path, tests, status=0, options=("-m", "bare", "--collect-only"))
    assert "test_poor" in output
    assert "test_rich" not in output


def test_the_projects_list_names_known_features_and_runs() -> None:
    text = (PROJECT / "tests/must_have.txt").read_text()
    rows = [line.partition("#")[0].split() for line in text.splitlines()]
    for feature, *kinds in filter(None, rows):
        requires(feature)
        assert set(kinds) <= {"root", "user", "bare", "guest", "guest-user"}, feature


def test_a_list_gives_each_kind_of_run_its_own_features() -> None:
    text = "# comment\nuserns root user\n\nsubuid user # why\npsi\n"
    assert parse_must_have(text, "root") == ("userns", "psi")
    assert parse_must_have(text, "user") == ("userns", "subuid", "psi")


def test_an_unknown_feature_is_an_error_and_not_a_skip() -> None:
    with pytest.raises(ValueError, match="no feature 'cgroup3'"):
        requires("cgroup3")


def test_every_feature_has_an_answer_and_a_missing_one_a_reason() -> None:
    for name in FEATURES:
        found = probe(name)
        assert found.present == (not found.why_not)


def test_a_probe_that_hangs_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.support.features._PROBE_TIMEOUT_S", 0.05)
    with pytest.raises(subprocess.TimeoutExpired):
        _run("sleep", "5")


def test_the_runs_of_root_and_user_merge_into_one_summary(tmp_path: Path) -> None:
    reports = tmp_path / "reports"
    tests = tmp_path / "tests"
    tests.mkdir()
    for kind in ("root", "user"):
        environment = {"LABKIT_FEATURE_REPORT": str(reports), "LABKIT_TEST_RUN": kind}
        run_inner(tests, TESTS, status=0, environment=environment)
    lines, good = summarize(reports)
    assert good
    assert lines[-1] == "4 passed, 0 failed, 2 skipped"
    assert any(line.split()[:6] == ["program:sh", "yes", "4", "ran", "0", "skipped"] for line in lines)


def test_a_failed_or_broken_run_fails_the_summary_and_a_leak_counts_as_a_failure(tmp_path: Path) -> None:
    reports = tmp_path / "reports"
    tests = tmp_path / "tests"
    tests.mkdir()
    environment = {"LABKIT_FEATURE_REPORT": str(reports), "LABKIT_TEST_RUN": "user"}
    leaky = "import os\ndef test_leaky():\n    os.dup(0)\ndef test_failing():\n    assert False\n"
    run_inner(
        tests, leaky, status=1, environment=environment,
        conftest="import tests.support.leaks\ntests.support.leaks.GRACE_S = 0.1\n",
    )  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.summary", str(reports)],
        capture_output=True, text=True, cwd=PROJECT, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stdout.splitlines()[-1] == "0 passed, 2 failed, 0 skipped"


def test_a_file_that_cannot_be_loaded_counts_as_a_failure_and_nothing_is_called_missing(tmp_path: Path) -> None:
    reports = tmp_path / "reports"
    tests = tmp_path / "tests"
    tests.mkdir()
    environment = {"LABKIT_FEATURE_REPORT": str(reports), "LABKIT_MUST_HAVE": "1"}
    output = run_inner(tests, "import labkit.no_such_module\n", status=2, environment=environment)
    assert "MISSING" not in output
    lines, good = summarize(reports)
    assert (lines[-1], good) == ("0 passed, 1 failed, 0 skipped", False)


def test_no_report_at_all_is_a_failure(tmp_path: Path) -> None:
    assert summarize(tmp_path)[1] is False


def test_the_report_says_which_run_it_is(tmp_path: Path) -> None:
    reports = tmp_path / "reports"
    tests = tmp_path / "tests"
    tests.mkdir()
    run_inner(tests, TESTS, status=0, environment={"LABKIT_FEATURE_REPORT": str(reports), "LABKIT_TEST_RUN": ""})
    (report,) = reports.glob("*.json")
    assert json.loads(report.read_text())["run"] == ("root" if os.geteuid() == 0 else "user")

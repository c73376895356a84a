"""A pytest plugin: skips what ``@requires`` says, counts tests a feature, and demands the features that must be there.

Options and environment:

* ``--must-have FILE|a,b,c``: the features that must be present and used; the default is ``tests/must_have.txt``,
  demanded only with ``LABKIT_MUST_HAVE=1``. A line of the file is a feature and the kinds of run it belongs to.
* ``LABKIT_TEST_RUN``: the kind of this run (``root``, ``user``, ``bare``; in a virtual machine ``guest``, ``guest-user``); else
  it follows from the user id.
* ``LABKIT_ALSO_RUNS``: the other run that `tests.support.once` leaves tests to; what was left out is counted.
* ``--requiring a,b``: only the tests that require one of these features.
* ``LABKIT_FEATURE_REPORT=FOLDER``: write the counts there as JSON; `tests.support.summary` merges several runs.

``tests/conftest.py`` loads it for the tests; another run of pytest (that of the notebooks) says
``-p tests.support.report`` and gives itself a name with ``LABKIT_TEST_RUN``.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import cast

import pytest

from tests.support import once
from tests.support.features import probe

__all__ = [
    "Counts",
    "FeatureReport",
    "parse_must_have",
    "pytest_addoption",
    "pytest_configure",
    "run_kind",
    "table",
]

_ONLY_BARE = ("no-subuid", "undelegated")
_DEFAULT_LIST = Path(__file__).resolve().parents[1] / "must_have.txt"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--must-have`` and ``--requiring``."""
    parser.addoption("--must-have", metavar="FILE|a,b", help="features that must be present and used, or the run fails")
    parser.addoption("--requiring", metavar="a,b", help="run only the tests that require one of these features")


def pytest_configure(config: pytest.Config) -> None:
    """Name the marks and begin to count."""
    config.addinivalue_line("markers", "requires(*features): skip where the machine lacks one of them")
    config.addinivalue_line("markers", "alone(why): no test of another run of `make test` goes on meanwhile")
    config.addinivalue_line("markers", "bare: also run as a user without delegated cgroup and without /etc/subuid")
    config.pluginmanager.register(FeatureReport.from_config(config), "labkit-features")


@dataclass(slots=True)
class Counts:
    """What happened to the tests that require one feature."""

    present: bool
    why_not: str
    ran: int = 0
    skipped: int = 0


def run_kind() -> str:
    """Return which of the runs of ``make test`` this is."""
    return os.environ.get("LABKIT_TEST_RUN") or ("root" if os.geteuid() == 0 else "user")


def parse_must_have(text: str, kind: str) -> tuple[str, ...]:
    """Return the features that ``text`` demands of runs of ``kind``: ``FEATURE KIND...`` a line, ``#`` comments."""
    rows = [line.partition("#")[0].split() for line in text.splitlines()]
    return tuple(row[0] for row in rows if row and (len(row) == 1 or kind in row[1:]))


def table(features: dict[str, Counts]) -> list[str]:
    """Return one line a feature: there or not, tests run, tests skipped, why not."""
    width = max(map(len, features), default=0)
    return [
        f"{name:<{width}}  {'yes' if counts.present else 'no ':3}  {counts.ran:4} ran  {counts.skipped:4} skipped"
        f"  {counts.why_not}".rstrip()
        for name, counts in sorted(features.items())
    ]


def left_out_lines(left_out: Mapping[str, int]) -> list[str]:
    """Return a line for each reason why tests were left to another run."""
    return [f"{why}, {n} tests" for why, n in sorted(left_out.items())]


@dataclass(slots=True, eq=False)
class FeatureReport:
    """Counts of one run; registered with pytest by `pytest_configure`."""

    must_have: tuple[str, ...]
    features: dict[str, Counts] = field(default_factory=dict)
    outcomes: Counter[str] = field(default_factory=Counter)
    other_skips: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)
    _used_elsewhere: set[str] = field(default_factory=set)
    _worst: dict[str, str] = field(default_factory=dict)

    @classmethod
    def from_config(cls, config: pytest.Config) -> FeatureReport:
        """Read what must be there from the options and the environment."""
        asked = config.getoption("--must-have")
        if asked is None and os.environ.get("LABKIT_MUST_HAVE") != "1":
            return cls(())
        if asked is not None and not os.path.isfile(asked):
            return cls(tuple(filter(None, asked.split(","))))
        return cls(parse_must_have(Path(asked or _DEFAULT_LIST).read_text(), run_kind()))

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        """Take out what ``--requiring`` does not name; mark tests for the bare run that ask for what only that run lacks."""
        if asked := config.getoption("--requiring"):
            _keep(config, items, [item for item in items if set(_required(item)) & set(asked.split(","))])
        for item in items:
            if any(name in _ONLY_BARE for name in _required(item)):
                item.add_marker("bare")

    @pytest.hookimpl(trylast=True, specname="pytest_collection_modifyitems")
    def pytest_leave_to_the_other_run(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        """Take out, of what is chosen, the tests that one run is enough for, if another run has them."""
        reasons = {item: once.reason(item.nodeid, _required(item)) for item in items}
        left_out = [item for item in items if reasons[item]]
        self.left_out.update(reasons[item] for item in left_out)
        self._used_elsewhere.update(name for item in left_out for name in _required(item))
        if left_out:
            _keep(config, items, [item for item in items if not reasons[item]])

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """Skip a test that requires what is missing, naming it."""
        wanted = _required(item)
        if not wanted:
            return
        if "cgroups" in wanted and probe("cgroup2").present and not probe("cgroup1").present:
            wanted = [*dict.fromkeys([*wanted, "cgroup2"])]  # there are no other groups here
        missing = [name for name in wanted if not probe(name).present]
        item.user_properties.append(("requires", wanted))
        item.user_properties.append(("missing", missing))
        if missing:
            reason = "needs " + "; ".join(f"{name} ({probe(name).why_not})" for name in missing)
            raise pytest.skip.Exception(reason, _use_item_location=True)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Count a file that could not be loaded as a failed test: its tests are lost."""
        if report.failed:
            self._worst[report.nodeid] = "failed"

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Count one phase of a test."""
        properties = cast("dict[str, list[str]]", dict(report.user_properties))
        if report.skipped and not hasattr(report, "wasxfail"):
            missing = properties.get("missing") or []
            for name in missing:
                self._counts(name).skipped += 1
            if not missing:
                self.other_skips[_reason(report)] += 1
            self._worst.setdefault(report.nodeid, "skipped")
        elif report.failed:
            self._worst[report.nodeid] = "failed"
        elif report.when == "call":
            self._worst.setdefault(report.nodeid, "passed")
        if report.when == "call" and not report.skipped:
            for name in properties.get("requires", []):
                self._counts(name).ran += 1

    def _counts(self, name: str) -> Counts:
        if name not in self.features:
            found = probe(name)
            self.features[name] = Counts(found.present, found.why_not)
        return self.features[name]

    def failures(self) -> list[str]:
        """Return a sentence for each feature that must be there and was not, or was not used."""
        found = []
        for name in self.must_have:
            counts = self._counts(name)
            if not counts.present:
                found.append(f"{name} must be present in a {run_kind()} run on this machine: {counts.why_not}")
            elif counts.ran == 0 and name not in self._used_elsewhere:
                found.append(f"{name} is present, but no test that requires it ran in this {run_kind()} run")
        return found

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Write the counts and let the run fail when something that must be there was not."""
        if hasattr(session.config, "workerinput"):  # of pytest-xdist; the controller counts
            return
        if session.exitstatus in (
            pytest.ExitCode.INTERRUPTED,
            pytest.ExitCode.USAGE_ERROR,
            pytest.ExitCode.INTERNAL_ERROR,
        ):
            self.must_have = ()  # the run fails anyhow, and what it did not get to is not missing
        failures = self.failures()
        self.outcomes = Counter(self._worst.values())
        if failures and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
        folder = os.environ.get("LABKIT_FEATURE_REPORT")
        if folder:
            content = {
                "run": run_kind(),
                "exit_status": int(session.exitstatus),
                "outcomes": dict(self.outcomes),
                "features": {name: asdict(counts) for name, counts in self.features.items()},
                "other_skips": dict(self.other_skips),
                "left_out": dict(self.left_out),
                "must_have_failures": failures,
            }
            Path(folder).mkdir(parents=True, exist_ok=True)
            Path(folder, f"{run_kind()}-{os.getpid()}.json").write_text(json.dumps(content, indent=1))

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print the table."""
        if self.features:
            terminalreporter.section(f"features present on this machine ({run_kind()} run)")
            for line in table(self.features):
                terminalreporter.write_line(line)
        for reason, count in sorted(self.other_skips.items()):
            terminalreporter.write_line(f"skipped for another reason, {count} tests: {reason}")
        for line in left_out_lines(self.left_out):
            terminalreporter.write_line(line)
        for failure in self.failures():
            terminalreporter.write_line(f"MISSING: {failure}", red=True)


def _keep(config: pytest.Config, items: list[pytest.Item], chosen: list[pytest.Item]) -> None:
    """Make ``chosen`` the tests that are run, and let pytest count the others."""
    kept = set(chosen)
    config.hook.pytest_deselected(items=[item for item in items if item not in kept])
    items[:] = chosen


def _required(item: pytest.Item) -> list[str]:
    """Return the features that a test requires, by itself, its class or its module."""
    return list(dict.fromkeys(name for mark in item.iter_markers("requires") for name in mark.args))


def _reason(report: pytest.TestReport) -> str:
    if isinstance(report.longrepr, tuple):
        return str(report.longrepr[2]).removeprefix("Skipped: ")
    return str(report.longrepr)

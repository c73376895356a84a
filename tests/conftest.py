"""What every test gets: its turn, the leak check around it, ``@requires``, and the table of features at the end."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import hypothesis
import pytest

from tests.support.leaks import Snapshot, become_subreaper, wait_for_leaks_since
from tests.support.report import pytest_addoption, pytest_configure
from tests.support.turns import pytest_runtest_protocol

__all__ = [
    "nothing_is_left",
    "pytest_addoption",
    "pytest_configure",
    "pytest_runtest_protocol",
    "pytest_sessionfinish",
    "pytest_sessionstart",
    "pytest_terminal_summary",
]

# A loaded machine is slow; that is no finding about the code.
hypothesis.settings.register_profile("labkit", deadline=None, print_blob=True)
hypothesis.settings.load_profile("labkit")

_AT_START = pytest.StashKey[Snapshot]()
_LEFT = pytest.StashKey[list[str]]()


def pytest_sessionstart(session: pytest.Session) -> None:
    """Take orphans in, and remember what was there before the first test."""
    become_subreaper()
    session.config.stash[_AT_START] = Snapshot.take()


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """Fail a test that leaves a process, mount, cgroup, interface, folder, namespace, thread or descriptor behind."""
    before = Snapshot.take()
    yield
    left = wait_for_leaks_since(before)
    if left:
        pytest.fail("the test left behind:\n  " + "\n  ".join(left), pytrace=False)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> Iterator[None]:
    """End the resident launcher and demand that nothing at all is left."""
    left = _left_at_the_end(session)
    if left and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
    session.config.stash[_LEFT] = left
    yield


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say what the whole run left behind."""
    left = config.stash.get(_LEFT, [])
    if left:
        terminalreporter.section("the whole test run left behind", red=True)
        terminalreporter.write_line("\n".join(left))


def _left_at_the_end(session: pytest.Session) -> list[str]:
    client, parent = (sys.modules.get(f"labkit.{name}") for name in ("container.client", "isolation.cgroups.parent"))
    if client is not None:
        client.shutdown()
    if parent is not None:
        parent.default_parent().close()
    before = session.config.stash.get(_AT_START, None)
    if before is None:
        return []
    left = wait_for_leaks_since(before, resident=False)
    # pytest and its plugins open files of their own during a run; labkit's descriptors were checked test by test.
    return [words for words in left if not words.startswith("descriptor:")]

"""All fifteen lessons in JupyterLab as `make lab` starts it: run from top to bottom, their live views used on the way.

It takes minutes, so one of the runs of the tests does it: that of an ordinary user, which is what students are. (LABKIT_COURSE=1 makes root
do it, too.) Two pages run at a time, each in a sandboxed kernel of its own.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.browser.course import LESSONS, VIEWS, Looked, look_at_all
from tests.browser.lab import Lab, copy_lessons
from tests.support import requires

pytestmark = [
    requires("chromium", "userns", "overlay-userns", "cgroups", "pyseccomp"),
    pytest.mark.timeout(900),
    pytest.mark.skipif(os.geteuid() == 0 and not os.environ.get("LABKIT_COURSE"), reason="the ordinary user's run does this"),
]  # fmt: skip
SHOTS = os.environ.get("LABKIT_SCREENSHOTS")


@pytest.fixture(autouse=True)
def nothing_is_left() -> None:
    """Let the server live from one test to the next; the end of the run is checked all the same."""


@pytest.fixture(scope="module")
def looked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Looked]]:
    """Run all lessons, and give what was seen of each; the server and the browser end with the module."""
    folder = tmp_path_factory.mktemp("c")
    copy_lessons("[0-9]*", folder / "notebooks")
    (folder / "policy.toml").write_text(f'[mounts]\nwork = "{folder / "work"}"\n')
    environ = {"LABKIT_SANDBOX_POLICY": str(folder / "policy.toml")}
    command = (sys.executable, "-P", "-m", "labkit.sandbox.server")
    with Lab(folder / "notebooks", command=command, environ=environ, kernel_python=None) as lab:
        yield look_at_all(lab, shots=Path(SHOTS) if SHOTS else None)


@pytest.mark.parametrize("lesson", LESSONS)
def test_the_lesson_runs_from_top_to_bottom_and_the_console_stays_empty(looked: dict[str, Looked], lesson: str) -> None:
    found = looked[lesson]
    assert found.failed == "" and found.cells > 10
    assert found.cells_again in (0, found.cells), "restarted, it runs again"
    assert found.console == []


@pytest.mark.parametrize("lesson", LESSONS)
def test_axe_finds_nothing_serious_in_what_the_lesson_shows(looked: dict[str, Looked], lesson: str) -> None:
    assert looked[lesson].violations == []


@pytest.mark.parametrize("lesson", sorted(VIEWS))
def test_the_live_view_changes_when_it_is_used_and_no_output_grows(looked: dict[str, Looked], lesson: str) -> None:
    view = looked[lesson].view
    assert view is not None
    assert view.alt, "the picture has a name for those who cannot see it"
    assert view.picture_changed or view.words_before != view.words_after
    assert view.words_after, "a sentence says what the picture shows"
    assert view.outputs_before == view.outputs_after


@pytest.mark.parametrize("lesson", LESSONS)
def test_nothing_draws_any_more_after_the_last_cell(looked: dict[str, Looked], lesson: str) -> None:
    assert looked[lesson].threads == "[]"

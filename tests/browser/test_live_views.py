"""The live views of lessons 00, 03 and 04 in a browser: ticked, chosen, dragged and pressed, and what the page says then."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.browser.lab import Lab, copy_lessons
from tests.browser.test_lab import _PLACE, shown_by
from tests.notebooks.kernel import PYTHON_PATH
from tests.support import requires

pytestmark = [requires("chromium", "userns"), pytest.mark.timeout(240)]

SHOTS = os.environ.get("LABKIT_SCREENSHOTS")


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    """Return a running JupyterLab over copies of the lessons."""
    copy_lessons("0[034]_*", tmp_path)
    with Lab(tmp_path, environ={"PYTHONPATH": PYTHON_PATH}) as made:
        yield made


def run_cells_with(lab: Lab, page: Any, *texts: str) -> None:
    """Run the cells that contain these texts, in order."""
    for text in texts:
        lab.run_cell(page, page.evaluate(_PLACE, text))


def shot(lab: Lab, page: Any, name: str) -> None:
    """Keep a picture for a person to look at, if a folder was named."""
    if SHOTS:
        lab.screenshot(page, Path(SHOTS) / name)


def picture_of(page: Any) -> Any:
    """Return the bytes on show, as the address of the image."""
    return page.locator(".widget-image").get_attribute("src")


def test_ticking_a_namespace_walls_up_a_window(lab: Lab) -> None:
    page = lab.open("03_namespaces.ipynb")
    run_cells_with(lab, page, "import socket", "view = IsolationView")
    # An ordinary user's process has a user and a mount namespace in any case, so two more things are hidden.
    hidden = 2 if os.geteuid() == 0 else 4
    page.locator("[role=status]", has_text=f"In namespaces of its own (pid), {hidden} of ").wait_for()
    before = picture_of(page)
    page.get_by_role("checkbox", name="net").focus()
    page.keyboard.press("Space")
    page.locator("[role=status]", has_text="network interfaces").wait_for()
    assert picture_of(page) != before
    assert page.get_by_role("row", name="network interfaces own").count() == 1
    page.get_by_role("button", name="All", exact=True).click()
    page.locator("[role=status]", has_text="all 11 things that were looked for are hidden").wait_for()
    assert page.get_by_role("row", name="sees the host's").count() == 0
    shot(lab, page, "isolation.png")
    assert lab.console_errors(page) == []


@requires("cgroups")
def test_a_slider_moves_the_limit_and_a_button_starts_a_hog(lab: Lab) -> None:
    page = lab.open("04_cgroups.ipynb")
    run_cells_with(lab, page, "import signal", "groups = lesson.needs", "view = groups and CgroupSliders")
    stop = page.get_by_role("button", name="Stop CPU hog")
    stop.wait_for()
    before = picture_of(page)
    page.get_by_role("slider").first.focus()
    page.keyboard.press("ArrowLeft")
    page.locator("[role=status]", has_text="The kernel took the new limit.").wait_for()
    assert shown_by(page, "view.pen.cgroup.limits.cpus") == "0.45"
    page.get_by_role("button", name="Start memory hog").focus()
    page.keyboard.press("Enter")
    page.locator("[role=status]", has_text="the kernel killed it").wait_for(timeout=20_000)
    assert picture_of(page) != before
    shot(lab, page, "cgroup.png")
    stop.click()
    page.get_by_role("button", name="Start CPU hog").wait_for()
    run_cells_with(lab, page, "view.rest()")
    page.locator("[role=status]", has_text="All hogs were ended.").wait_for()
    assert shown_by(page, "(view.running, view.pen)") == "(False, None)"
    assert lab.console_errors(page) == []


def test_choosing_a_lesson_shows_its_rows(lab: Lab) -> None:
    page = lab.open("00_start_here.ipynb")
    run_cells_with(lab, page, "import os", "table = DoctorTable")
    page.get_by_role("combobox", name="What is needed for").select_option("04 Control groups")
    page.locator("[role=status]", has_text="rows for 04 Control groups").wait_for()
    assert page.get_by_role("row", name="cgroup memory").count() == 1
    assert page.get_by_role("row", name="overlay").count() == 0
    page.get_by_role("checkbox", name="only what is limited or refused").focus()
    page.keyboard.press("Space")
    page.wait_for_timeout(300)
    assert page.locator("td", has_text="✔ yes").count() == 0
    shot(lab, page, "doctor.png")
    assert lab.console_errors(page) == []

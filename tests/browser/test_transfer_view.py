"""The live view of lesson 12 in a browser: pulls are started from the keyboard, and the page says what they moved."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.browser.lab import Lab, copy_lessons
from tests.browser.test_live_views import picture_of, run_cells_with, shot
from tests.notebooks.kernel import PYTHON_PATH
from tests.support import requires

pytestmark = [requires("chromium", "userns"), pytest.mark.timeout(240)]


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    """Return a running JupyterLab over a copy of the lesson."""
    copy_lessons("12_registries", tmp_path)
    with Lab(tmp_path, environ={"PYTHONPATH": PYTHON_PATH}) as made:
        yield made


def test_the_second_image_spares_the_layer_that_the_first_one_brought(lab: Lab) -> None:
    page = lab.open("12_registries.ipynb")
    run_cells_with(
        lab, page, "import hashlib", "lesson.begin(", "settings = RegistrySettings", "alice, bob = Credentials",
        "alices = ImageStore", "seen.clear()", "def build_page", "second = transfers", "def show(",
        "bobs = ImageStore", "view = transfer_view",
    )  # fmt: skip
    page.locator("[role=status]", has_text="Nothing has been pulled yet.").wait_for()
    before = picture_of(page)
    page.get_by_role("button", name="Start", exact=True).focus()
    page.keyboard.press("Enter")
    page.locator("[role=status]", has_text="All that was ticked has been pulled.").wait_for()
    page.locator("[role=status]", has_text="In all").wait_for()
    assert picture_of(page) != before
    page.get_by_role("checkbox", name="alice/base").focus()
    page.keyboard.press("Space")
    page.get_by_role("checkbox", name="begin with an empty store").focus()
    page.keyboard.press("Space")
    page.get_by_role("button", name="Start", exact=True).focus()
    page.keyboard.press("Enter")
    page.locator("[role=status]", has_text="alice/web:1 1.").wait_for()
    page.locator("[role=status]", has_text="0 B spared; bob/site:1").wait_for()
    shot(lab, page, "transfers.png")
    run_cells_with(lab, page, "view.close()")
    page.get_by_text("pass: the registry and its folder are gone").last.wait_for()
    assert lab.console_errors(page) == []

"""The live views of lesson 09 in a browser: a file is changed and built with the keyboard, and the page says what was done again."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.browser.lab import Lab, copy_lessons
from tests.browser.test_live_views import run_cells_with, shot
from tests.notebooks.kernel import PYTHON_PATH
from tests.support import requires

pytestmark = [requires("chromium", "userns", "overlay-userns", "program:busybox"), pytest.mark.timeout(240)]


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    """Return a running JupyterLab over a copy of the lesson."""
    copy_lessons("09_images_and_layers", tmp_path)
    with Lab(tmp_path, environ={"PYTHONPATH": PYTHON_PATH, "HOME": os.environ.get("HOME", "/")}) as made:
        yield made


def test_a_change_is_built_with_the_keyboard_and_both_views_say_it(lab: Lab) -> None:
    page = lab.open("09_images_and_layers.ipynb")
    run_cells_with(
        lab, page, "import hashlib", "cleanup = ExitStack()", 'context = stage / "greeter"', "Containerfile.all_at_once",
        "cache_view = build_cache",
    )  # fmt: skip
    picture = page.locator(".widget-image")
    picture.wait_for()
    before = picture.get_attribute("src")
    page.get_by_role("combobox", name="change").select_option("greet.sh")
    page.get_by_role("button", name="Build").focus()
    page.keyboard.press("Enter")
    said = page.locator("[role=status]", has_text="Changed greet.sh. all_at_once: 3 of 3 steps were done")
    said.wait_for(timeout=60_000)
    assert "in_order: 2 of 4 steps were done" in said.first.inner_text()
    # The sentence may be there a moment before the picture.
    page.wait_for_function("before => document.querySelector('.widget-image').src !== before", arg=before)
    shot(lab, page, "build-cache.png")
    run_cells_with(lab, page, "stacks = image_stack")
    page.locator("[role=status]", has_text="Together they take 2.").wait_for()
    shot(lab, page, "image-stack.png")
    run_cells_with(lab, page, "cache_view.stop()")
    assert lab.console_errors(page) == []

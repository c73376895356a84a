"""The sample lesson as a student meets it: JupyterLab in a browser, mouse and keyboard."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.browser.lab import CellsFailed, Lab
from tests.notebooks.kernel import PYTHON_PATH, kernel_environment, python
from tests.notebooks.sample import write_sample
from tests.support import requires

pytestmark = [requires("chromium"), pytest.mark.timeout(240)]

NAME = "98_sample.ipynb"
#: Where screenshots are kept for a person to look at (default: thrown away with the test's folder).
SHOTS = os.environ.get("LABKIT_SCREENSHOTS")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the built sample lesson."""
    made = tmp_path_factory.mktemp("lab")
    write_sample(made / "notebooks")
    done = python("-m", "labkit.lesson.build", cwd=made, environ=kernel_environment(made))
    assert done.returncode == 0, done.stderr
    return made


@pytest.fixture
def lab(folder: Path) -> Iterator[Lab]:
    """Return a running JupyterLab over that folder."""
    with Lab(folder / "notebooks", environ={"PYTHONPATH": PYTHON_PATH}) as made:
        yield made


def shot(lab: Lab, page: Any, name: str, folder: Path) -> Path:
    """Take a picture of the whole notebook."""
    path = Path(SHOTS or folder) / name
    path.parent.mkdir(parents=True, exist_ok=True)
    return lab.screenshot(page, path)


def shown_by(page: Any, expression: str) -> Any:
    """Return the value of a Python expression in the notebook's jupyter_kernel."""
    return page.evaluate(_ASK, expression)


_ASK = """async expression => {
  const kernel = window.jupyterapp.shell.currentWidget.sessionContext.session.kernel;
  const future = kernel.requestExecute({code: '', silent: true, user_expressions: {asked: expression}});
  const reply = await future.done;
  const asked = reply.content.user_expressions.asked;
  return asked.status === 'ok' ? asked.data['text/plain'] : asked.ename + ': ' + asked.evalue;
}"""


def test_a_student_opens_runs_predicts_answers_and_watches(lab: Lab, folder: Path) -> None:
    page = lab.open(NAME)
    still = page.locator("img[alt^='Line: a wave']")
    assert still.count() == 1, "the first frame is readable before anything runs"
    before = shot(lab, page, "sample-before.png", folder)
    assert lab.run_all(page) == 16
    after = shot(lab, page, "sample-after.png", folder)
    assert before.stat().st_size > 50_000 and after.stat().st_size > 50_000

    predicts_with_the_keyboard(page)
    answers_the_quiz_with_the_keyboard(page)
    moves_the_slider_with_the_keyboard(page)
    the_live_view_starts_moves_and_stops(page)
    shot(lab, page, "sample-used.png", folder)
    assert_accessible(lab, page)
    assert lab.console_errors(page) == []


def predicts_with_the_keyboard(page: Any) -> None:
    """Choose with Tab and Space; the page says that it is noted, and the jupyter_kernel knows."""
    page.get_by_role("radio", name="0", exact=True).focus()
    page.keyboard.press("Tab")
    page.keyboard.press("Space")
    assert page.get_by_role("radio", name="some other number").is_checked()
    page.get_by_text("Noted: you predict some other number.").wait_for()
    assert shown_by(page, "guess.said") == "'some other number'"


def answers_the_quiz_with_the_keyboard(page: Any) -> None:
    """A wrong answer, then the right one; each has its reply in a live region."""
    reply = page.locator("[role=status]", has_text="Names stand in comm.")
    page.get_by_role("radio", name="a name").focus()
    page.keyboard.press("Space")
    reply.wait_for()
    page.keyboard.press("Tab")
    page.keyboard.press("Space")
    page.locator("[role=status]", has_text="Right: The kernel's number").wait_for()


def moves_the_slider_with_the_keyboard(page: Any) -> None:
    """Arrow keys and a typed number both count, once, and give a new frame though nothing runs."""
    page.get_by_role("slider").focus()
    drawn = int(shown_by(page, "view.frames_drawn"))
    page.keyboard.press("ArrowRight")
    page.wait_for_function("() => document.querySelector('.widget-readout').textContent === '4'")
    page.locator(".widget-readout").click()
    page.keyboard.press("Control+a")
    page.keyboard.type("7")
    page.keyboard.press("Enter")
    page.wait_for_timeout(500)
    assert shown_by(page, "(height.value, view.frames_drawn)") == f"(7, {drawn + 2})"


def the_live_view_starts_moves_and_stops(page: Any) -> None:
    """Buttons work from the keyboard, the picture changes without new output, and stands still afterwards."""
    picture = page.locator(".widget-image")
    start, stop = (page.get_by_role("button", name=name, exact=True) for name in ("Start", "Stop"))
    assert picture.count() == 1 and picture.get_attribute("title").startswith("Line: a wave")
    assert start.is_enabled() and not stop.is_enabled()
    start.focus()
    page.keyboard.press("Enter")
    sources = set()
    outputs = page.locator(".jp-OutputArea-output").count()
    for _ in range(10):
        sources.add(picture.get_attribute("src"))
        page.wait_for_timeout(200)
    assert len(sources) >= 4, "five frames a second change the picture"
    assert page.locator(".jp-OutputArea-output").count() == outputs
    assert picture.evaluate("image => image.complete && image.naturalWidth > 600")
    stop.focus()
    page.keyboard.press("Enter")
    page.get_by_text("Stopped.", exact=True).wait_for()
    still = picture.get_attribute("src")
    page.wait_for_timeout(600)
    assert picture.get_attribute("src") == still
    assert shown_by(page, "view.running") == "False"


def test_a_live_view_ends_with_its_cell(lab: Lab) -> None:
    page = lab.open(NAME)
    lab.run_all(page)
    place = page.evaluate(_PLACE, "view = LiveView")
    for name in ("first", "second"):
        lab.run_cell(page, place)
        shown_by(page, f"[globals().__setitem__('{name}', view), view.start()]")
    assert shown_by(page, "(first.closed, second.closed, second.running)") == "(True, False, True)"
    lab.delete_cell(page, place)
    lab.run_cell(page, 3)
    assert shown_by(page, "(second.closed, second.running)") == "(True, False)"
    threads = "[thread.name for thread in __import__('threading').enumerate() if 'labkit-live' in thread.name]"
    assert shown_by(page, threads) == "[]"


_PLACE = """text => window.jupyterapp.shell.currentWidget.content.widgets
  .findIndex(cell => cell.model.sharedModel.source.includes(text))"""


def test_a_failing_cell_is_reported_with_its_error(lab: Lab, folder: Path) -> None:
    (folder / "notebooks" / "failing.ipynb").write_text(
        (folder / "notebooks" / NAME).read_text().replace('"guess.compare()"', '"guess.compare(1 / 0)"')
    )
    page = lab.open("failing.ipynb")
    with pytest.raises(CellsFailed, match="ZeroDivisionError"):
        lab.run_all(page)


def test_the_dark_theme_is_readable_too(folder: Path) -> None:
    with Lab(folder / "notebooks", environ={"PYTHONPATH": PYTHON_PATH}, dark=True) as lab:
        page = lab.open(NAME)
        lab.run_all(page)
        shot(lab, page, "sample-dark.png", folder)
        assert_accessible(lab, page)
        assert page.evaluate("() => document.body.dataset.jpThemeLight") == "false"


def assert_accessible(lab: Lab, page: Any) -> None:
    """Let axe-core look at the outputs, where axe-playwright-python is installed."""
    if importlib.util.find_spec("axe_playwright_python") is not None:
        assert lab.violations(page) == []

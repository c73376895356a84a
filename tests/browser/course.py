"""Go through the lessons in a browser, two pages at a time, and note what was seen of each.

A lesson with a live view is run up to that view, the view is used with the keyboard, and then the rest is run: every cell once, from top
to bottom. A quick one is then restarted and run again. ``python -m tests.browser.pictures`` takes
pictures of the views on the way.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.browser.lab import Lab, Violation
from tests.support import PROJECT

__all__ = ["LESSONS", "VIEWS", "Looked", "Seen", "look_at_all"]

LESSONS = tuple(path.stem for path in sorted((PROJECT / "notebooks").glob("[0-9][0-9]_*.py")))
LESSON_S, VIEW_S = 300.0, 30.0
#: A lesson that ran in less is restarted and run a second time, in the same page and the same work folder.
QUICK_S = 12.0
#: Lesson -> what its view's cell contains, and what to do with the view: roles and names, in order.
VIEWS: Mapping[str, tuple[str, tuple[tuple[str, str], ...]]] = {
    "00_start_here": ("table = DoctorTable", (("checkbox", "only what is limited or refused"),)),
    "03_namespaces": ("view = IsolationView", (("checkbox", "net"),)),
    "04_cgroups": ("CgroupSliders(begin", (("slider", ""), ("button", "Start memory hog"))),
    "05_root_filesystems": ("view = layer_stack", (("button", ""),)),
    "06_container_by_hand": ("board = attack_board", (("button", "Start"),)),
    "07_start_up_and_density": (
        "view = race_view",
        (
            ("checkbox", "micro VM, booted"),
            ("checkbox", "micro VM, from a snapshot"),
            ("slider", ""),
            ("button", "Start"),
        ),
    ),
    "08_docker_architecture": ("view = conversation_view", (("button", ""),)),
    "09_images_and_layers": ("cache_view = build_cache", (("combobox", "change"), ("button", "Build"))),
    "10_container_networks": ("view = network_view", (("button", ""),)),
    "11_volumes": ("view = whereabouts_view", (("button", ""),)),
    "12_registries": ("view = transfer_view", (("button", "Start"),)),
    "13_immutable_infrastructure": ("view = desired_view", (("button", ""),)),
}


@dataclass
class Seen:
    """A live view before and after it was used."""

    alt: str
    words_before: str
    words_after: str = ""
    picture_changed: bool = False
    outputs_before: int = 0
    outputs_after: int = 0


@dataclass
class Looked:
    """What was seen of a lesson."""

    name: str
    cells: int = 0
    failed: str = ""
    #: Cells that ran after a restart; 0 for a lesson that takes long.
    cells_again: int = 0
    elapsed_s: float = 0.0
    console: list[str] = field(default_factory=list)
    violations: list[Violation] = field(default_factory=list)
    view: Seen | None = None
    threads: str = ""


def look_at_all(lab: Lab, names: tuple[str, ...] = LESSONS, *, shots: Path | None = None) -> dict[str, Looked]:
    """Run the lessons in ``lab``, two at a time, and return what was seen of each."""
    waiting = list(names)
    found: dict[str, Looked] = {}
    lanes: list[Iterator[Looked]] = []
    while waiting or lanes:
        while waiting and len(lanes) < 2:
            lanes.append(_look_at(lab, waiting.pop(0), shots))
        for lane in list(lanes):
            looked = next(lane, None)
            if looked is None:
                lanes.remove(lane)
            else:
                found[looked.name] = looked
    return found


def _look_at(lab: Lab, name: str, shots: Path | None) -> Iterator[Looked]:
    """Look at one lesson; a step a yield, so that another page can go on meanwhile."""
    looked, begun_s = Looked(name), time.monotonic()
    page = lab.open(f"{name}.ipynb")
    page.on("dialog", lambda dialog: dialog.accept())
    view = VIEWS.get(name)
    if view is not None:
        place = int(page.evaluate(_PLACE, view[0]))
        yield from _run(page, looked, 0, place + 1)
        if not looked.failed:
            _use(page, place, looked, view[1], shots)
        yield from _run(page, looked, place + 1, 10_000)
    else:
        yield from _run(page, looked, 0, 10_000)
    if not looked.failed and time.monotonic() - begun_s < QUICK_S:
        cells = looked.cells
        page.evaluate("async () => { await window.jupyterapp.shell.currentWidget.sessionContext.restartKernel(); }")
        yield from _run(page, looked, 0, 10_000)
        looked.cells, looked.cells_again = cells, looked.cells - cells
    looked.violations = lab.violations(page)
    looked.threads = str(_ask(page, _THREADS)) if not looked.failed else ""
    looked.console, looked.elapsed_s = lab.console_errors(page), time.monotonic() - begun_s
    page.evaluate("async () => { await window.jupyterapp.shell.currentWidget.sessionContext.shutdown(); }")
    page.close()
    yield looked


def _run(page: Any, looked: Looked, first: int, last: int) -> Iterator[Looked]:
    """Run the cells from ``first`` to before ``last``; note how many ran, and the error of the one that failed."""
    page.evaluate(_RUN, [first, last])
    deadline_s = time.monotonic() + LESSON_S
    while not page.evaluate("() => window.labRan !== null"):
        if time.monotonic() > deadline_s:
            looked.failed = looked.failed or "it took too long"
            return
        yield looked
        page.wait_for_timeout(100)
    ran = page.evaluate("() => window.labRan")
    looked.cells += ran["cells"]
    looked.failed = looked.failed or ran["failed"]


def _use(page: Any, place: int, looked: Looked, deeds: tuple[tuple[str, str], ...], shots: Path | None) -> None:
    """Use the view in the cell ``place`` with the keyboard, until what it shows has changed."""
    if shots is not None:  # room for a view with a long table
        page.set_viewport_size({"width": 1120, "height": 1700})
    page.evaluate("index => window.jupyterapp.shell.currentWidget.content.scrollToItem(index, 'start')", place)
    cell = page.locator(f".jp-NotebookPanel:not(.lm-mod-hidden) .jp-Cell[data-windowed-list-index='{place}']")
    area = cell.locator(".jp-Cell-outputArea")
    area.locator(".widget-vbox, .widget-box").first.wait_for(timeout=VIEW_S * 1000)
    picture, words = area.locator(".widget-image"), area.locator("[role=status]")
    before = [image.get_attribute("src") for image in picture.all()]
    alt = picture.first.get_attribute("title") if picture.count() else "a table of text"
    seen = looked.view = Seen(str(alt or ""), "\n".join(words.all_inner_texts()))
    seen.outputs_before = cell.locator(".jp-OutputArea-output").count()
    for role, label in deeds:
        control = area.get_by_role(role, name=label, exact=True) if label else area.get_by_role(role)
        control.first.focus()
        page.keyboard.press(
            {"button": "Enter", "checkbox": "Space", "slider": "ArrowLeft", "combobox": "ArrowDown"}[role]
        )
    deadline_s = time.monotonic() + VIEW_S
    while time.monotonic() < deadline_s and not seen.picture_changed:
        page.wait_for_timeout(150)
        now = [image.get_attribute("src") for image in picture.all()]
        seen.picture_changed = now != before
        seen.words_after = "\n".join(words.all_inner_texts())
        if not before and seen.words_after != seen.words_before:
            break
    if shots is not None:
        shots.mkdir(parents=True, exist_ok=True)
        page.wait_for_timeout(4000)
        area.screenshot(path=str(shots / f"view-{looked.name[:2]}.png"))
    seen.words_after = "\n".join(words.all_inner_texts())
    stop = area.get_by_role("button", name="Stop", exact=True)
    if stop.count() and stop.is_enabled():  # what follows measures, too
        stop.press("Enter")
    seen.outputs_after = cell.locator(".jp-OutputArea-output").count()


def _ask(page: Any, expression: str) -> Any:
    """Return the value of a Python expression in the notebook's jupyter_kernel."""
    return page.evaluate(_EVALUATE, expression)


_THREADS = "[t.name for t in __import__('threading').enumerate() if t.name.startswith('labkit-live')]"
_PLACE = """text => window.jupyterapp.shell.currentWidget.content.widgets
  .findIndex(cell => cell.model.type === 'code' && cell.model.sharedModel.source.includes(text))"""
_EVALUATE = """async expression => {
  const kernel = window.jupyterapp.shell.currentWidget.sessionContext.session.kernel;
  const reply = await kernel.requestExecute({code: '', silent: true, user_expressions: {asked: expression}}).done;
  const asked = reply.content.user_expressions.asked;
  return asked.status === 'ok' ? asked.data['text/plain'] : asked.ename + ': ' + asked.evalue;
}"""
#: As "Run All" does, but from a cell to a cell, and with a count of those that ran.
_RUN = """([first, last]) => {
  window.labRan = null;
  const panel = window.jupyterapp.shell.currentWidget, book = panel.content;
  const cells = book.widgets.slice(first, last);
  const commands = window.jupyterapp.commands;
  (async () => {
    book.activeCellIndex = first;
    book.deselectAll();
    if (cells.length > 1) book.extendContiguousSelectionTo(Math.min(last, book.widgets.length) - 1);
    await commands.execute('notebook:run-cell');
    book.deselectAll();
    const code = cells.filter(cell => cell.model.type === 'code');
    const failed = code.flatMap(cell => cell.model.outputs.toJSON().filter(o => o.output_type === 'error')
      .map(o => cell.model.sharedModel.source + '\\n' + o.ename + ': ' + o.evalue));
    const idle = code.filter(cell => cell.model.executionCount === null).length;
    return {cells: code.length, failed: failed.join('\\n') || (idle ? idle + ' cell(s) did not run' : '')};
  })().then(found => { window.labRan = found; }, error => { window.labRan = {cells: 0, failed: String(error)}; });
}"""

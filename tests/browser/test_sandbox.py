"""A student's worst cells in JupyterLab, in a browser: a fork bomb and a memory hog, and the page goes on; what the server leaves out."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.browser.lab import Lab
from tests.support import requires

pytestmark = [requires("chromium", "userns", "overlay-userns", "cgroups", "pyseccomp"), pytest.mark.timeout(300)]

NAME = "bombs.ipynb"
CELLS = (
    "print(1 + 1)",
    "import subprocess\nsubprocess.Popen(['bash', '-c', ':(){ :|:& };:'], stderr=subprocess.DEVNULL)\nprint('lit')",
    "print(20 + 22)",
    "taken = bytearray(b'x') * (1 << 30)",
)
POLICY = '[limits]\nmemory = "384 MiB"\npids = 96\n[mounts]\nwork = "{work}"\n'
SHOTS = os.environ.get("LABKIT_SCREENSHOTS")


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    """JupyterLab as `make lab` starts it, over a folder with one notebook."""
    root = tmp_path / "notebooks"
    root.mkdir()
    cells = [
        {"cell_type": "code", "id": f"c{n}", "metadata": {}, "source": text, "outputs": [], "execution_count": None}
        for n, text in enumerate(CELLS)
    ]
    kernelspec = {"name": "labkit", "display_name": "Python (labkit sandbox)", "language": "python"}
    book = {"cells": cells, "metadata": {"kernelspec": kernelspec}, "nbformat": 4, "nbformat_minor": 5}
    (root / NAME).write_text(json.dumps(book))
    (tmp_path / "policy.toml").write_text(POLICY.format(work=tmp_path / "work"))
    environ = {"LABKIT_SANDBOX_POLICY": str(tmp_path / "policy.toml")}
    command = (sys.executable, "-P", "-m", "labkit.sandbox.server")
    with Lab(root, command=command, environ=environ, kernel_python=None) as made:
        yield made


def outputs(page: Any, cell: int) -> str:
    """Return what a cell shows."""
    return str(
        page.evaluate(
            "index => JSON.stringify(window.jupyterapp.shell.currentWidget.content.widgets[index].model.outputs.toJSON())",
            cell,
        )
    )


def shells() -> int:
    """Count the shells of the bomb, from the host."""
    found = 0
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            found += b":(){ :|:& };:" in (folder / "cmdline").read_bytes()
    return found


def server_log(lab: Lab) -> str:
    """Return the end of what the server has said."""
    return (lab._private / "server.log").read_text(errors="replace")[-3000:]


def until(condition: Any, *, timeout_s: float = 30.0) -> bool:
    """Wait until the condition holds; return whether it does."""
    deadline_s = time.monotonic() + timeout_s
    while not condition() and time.monotonic() < deadline_s:
        time.sleep(0.05)
    return bool(condition())


def test_after_a_fork_bomb_the_next_cell_answers_and_after_a_restart_all_is_as_before(lab: Lab, tmp_path: Path) -> None:
    page = lab.open(NAME)
    lab.run_cell(page, 0)
    assert '"2\\n"' in outputs(page, 0)
    lab.run_cell(page, 1)
    assert "lit" in outputs(page, 1)
    assert until(lambda: shells() > 20), "the bomb should have gone off"
    assert shells() <= 96
    lab.run_cell(page, 2)
    assert '"42\\n"' in outputs(page, 2), "the cell after the bomb, in the same kernel"
    lab.screenshot(page, Path(SHOTS or tmp_path) / "sandbox-bomb.png")
    page.evaluate("async () => { await window.jupyterapp.shell.currentWidget.sessionContext.restartKernel(); }")
    assert until(lambda: shells() == 0), "a restart ends the bomb"
    lab.run_cell(page, 0)
    assert '"2\\n"' in outputs(page, 0)
    assert lab.console_errors(page) == [], server_log(lab)


def test_a_kernel_that_was_killed_for_its_memory_says_so_in_the_notebook(lab: Lab, tmp_path: Path) -> None:
    page = lab.open(NAME)
    page.evaluate("() => { window.jupyterapp.shell.currentWidget.content.activeCellIndex = 3; }")
    page.evaluate("() => { window.jupyterapp.commands.execute('notebook:run-cell'); }")
    page.locator(".jp-OutputArea-output", has_text="384 MiB of memory").wait_for(timeout=60_000)
    words = page.locator(".jp-OutputArea-output", has_text="384 MiB").first.inner_text()
    lab.screenshot(page, Path(SHOTS or tmp_path) / "sandbox-memory.png")
    assert "MemoryLimitReached" in words and "This sandbox may use 384 MiB of memory" in words
    # JupyterLab starts a new kernel by itself, and says so; a restart by hand meanwhile would race with that.
    dialog = page.locator(".jp-Dialog").filter(has_text="Kernel Restarting")
    dialog.wait_for(timeout=60_000)
    dialog.get_by_role("button").last.click()
    page.wait_for_function(
        "() => window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.status === 'idle'", timeout=60_000
    )
    assert "MemoryLimitReached" in outputs(page, 3), "the reason is still there after the restart"
    lab.run_cell(page, 0)
    assert '"2\\n"' in outputs(page, 0)


def test_the_page_offers_no_terminal_and_one_kernel(lab: Lab) -> None:
    page = lab.open(NAME)
    page.evaluate("() => { window.jupyterapp.commands.execute('launcher:create'); }")
    page.locator(".jp-Launcher").wait_for()
    cards = page.locator(".jp-LauncherCard").all_inner_texts()
    assert not [card for card in cards if "Terminal" in card], cards
    assert [card for card in cards if "labkit sandbox" in card]
    specs = page.evaluate("() => Object.keys(window.jupyterapp.serviceManager.kernelspecs.specs.kernelspecs)")
    assert specs == ["labkit"]

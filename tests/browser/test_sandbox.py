"""The sandbox as a student meets it in JupyterLab: a fork bomb, and a kernel that its memory limit kills."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest

from labkit.setup import kernelspec
from tests.browser.lab import Lab
from tests.browser.test_lab import shot
from tests.notebooks.kernel import PYTHON_PATH
from tests.support import requires

pytestmark = [requires("chromium", "userns", "overlay-userns", "cgroups"), pytest.mark.timeout(240)]

NAME = "attack.ipynb"
CELLS = (
    "import subprocess\nbomb = subprocess.Popen(['sh', '-c', 'bomb() { bomb | bomb & }; bomb'], stderr=subprocess.DEVNULL)",
    "import time\ntime.sleep(1)\n6 * 7",
    "data = []\nwhile True:\n    data.append(bytearray(1 << 20))",
    "40 + 2",
)
POLICY = '[limits]\nmemory = "256 MiB"\npids = 128\ncpus = 1\n[mounts]\nwork = "{}/work"\n'


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    """Return a JupyterLab whose kernels run in sandboxes, over a folder with one notebook."""
    cells = [nbformat.v4.new_code_cell(source) for source in CELLS]
    metadata = {"kernelspec": {"name": kernelspec.NAME, "display_name": kernelspec.DISPLAY_NAME, "language": "python"}}
    (tmp_path / "notebooks").mkdir()
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=metadata), tmp_path / "notebooks" / NAME)
    (tmp_path / "policy.toml").write_text(POLICY.format(tmp_path))
    environ = {"PYTHONPATH": PYTHON_PATH, "LABKIT_SANDBOX_POLICY": str(tmp_path / "policy.toml")}
    with Lab(tmp_path / "notebooks", environ=environ, kernel_python=None) as made:
        yield made


def output_of(page: Any, index: int) -> str:
    """Return what the outputs of one cell say."""
    return str(page.locator(".jp-Cell").nth(index).locator(".jp-OutputArea").inner_text())


def run(page: Any, index: int) -> None:
    """Select one cell with a click and run it with Shift+Enter, as a person does."""
    page.locator(".jp-Cell .jp-InputArea-editor").nth(index).click()
    page.keyboard.press("Shift+Enter")


def test_after_a_fork_bomb_the_next_cell_answers_and_a_memory_hog_is_told_why_it_ended(
    lab: Lab, tmp_path: Path
) -> None:
    page = lab.open(NAME)
    run(page, 0)
    run(page, 1)
    page.locator(".jp-Cell").nth(1).get_by_text("42").wait_for(timeout=30_000)
    lab_restart(page)  # ends the bomb
    run(page, 2)
    said = page.locator(".jp-Cell").nth(2).get_by_text("MemoryLimitReached")
    said.wait_for(timeout=60_000)
    words = output_of(page, 2)
    assert "256 MiB" in words and "limits.memory" in words
    dialog = page.get_by_role("dialog").filter(has_text="Kernel Restarting")
    dialog.wait_for(timeout=30_000)
    shot(lab, page, "sandbox-memory.png", tmp_path)
    dialog.get_by_role("button", name="Ok").click()
    assert "MemoryLimitReached" in output_of(page, 2), "the reason is still there after the restart"
    run(page, 3)
    page.locator(".jp-Cell").nth(3).get_by_text("42").wait_for(timeout=60_000)


def lab_restart(page: Any) -> None:
    """Restart the kernel from outside the notebook's toolbar, and wait until it is idle."""
    page.evaluate("async () => { await window.jupyterapp.shell.currentWidget.sessionContext.restartKernel(); }")
    page.wait_for_function(
        "() => window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.status === 'idle'"
    )

"""The lessons about machines on a machine that has none: no cell raises, each shows a marked recording, no claim is made.

What is hidden is the folder of the guest kernels; nothing else is changed. (In root's run only: three lessons take their time.)
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from labkit.lesson.build import read_source_notebook
from tests.notebooks.kernel import kernel_environment, printed_by, python
from tests.support import PROJECT, requires

_RUN = """
import json, sys
import nbformat
from nbclient import NotebookClient
cells = [nbformat.v4.new_code_cell(text) for text in json.load(sys.stdin)]
client = NotebookClient(nbformat.v4.new_notebook(cells=cells), kernel_name="labkit", timeout=120, resources={"metadata": {"path": sys.argv[1]}})
client.execute()
json.dump([cell.outputs for cell in client.nb.cells], sys.stdout)
"""


def run_hidden(cells: list[str], folder: Path) -> list[list[Any]]:
    """Run ``cells`` where there is no guest kernel; return what each of them put out."""
    environ = kernel_environment(folder) | {"XDG_CACHE_HOME": str(folder / "cache")}
    done = python("-c", _RUN, str(PROJECT / "notebooks"), cwd=PROJECT, environ=environ, input=json.dumps(cells))
    assert done.returncode == 0, done.stderr[-3000:]
    outputs: list[list[Any]] = json.loads(done.stdout)
    return outputs


def cells_of(name: str) -> list[str]:
    """Return the code cells of a lesson."""
    notebook = read_source_notebook(PROJECT / "notebooks" / f"{name}.py")
    return [str(cell.source) for cell in notebook.cells if cell.cell_type == "code"]


def everything(outputs: list[list[Any]]) -> str:
    """Return all text of the outputs, HTML included."""
    return json.dumps(outputs, ensure_ascii=False)


@requires("root", "userns", "program:busybox")
@pytest.mark.timeout(240)
def test_lesson_02_shows_recordings_and_claims_nothing(tmp_path: Path) -> None:
    cells = cells_of("02_virtual_machines")
    outputs = run_hidden(cells, tmp_path)
    said = dict(zip(cells, map(printed_by, outputs), strict=True))
    checks = [said[cell] for cell in cells if "lesson.check(" in cell and "machines" in cell]
    assert len(checks) >= 6
    assert all("not shown here: " in printed and "pass: " not in printed for printed in checks[:-1])
    shown = [cell for cell in cells if "recorded_or(" in cell]
    assert len(shown) == 7
    for cell, output in zip(cells, outputs, strict=True):
        if cell in shown:
            told = everything([output])
            assert "Recording made on" in told and "labkit setup vm" in told, cell
        if "charts.show(" in cell:
            assert "not this machine" in everything([output]), cell


@requires("root", "userns", "program:busybox")
@pytest.mark.timeout(240)
def test_lesson_01_says_what_is_missing_and_shows_the_swapping_of_another_machine(tmp_path: Path) -> None:
    cells = cells_of("01_what_an_os_virtualizes")
    outputs = run_hidden(cells, tmp_path)
    (swapped,) = (output for cell, output in zip(cells, outputs, strict=True) if "recorded_or(" in cell)
    assert "Recording made on" in everything([swapped]) and "labkit setup vm" in everything([swapped])
    said = "".join(map(printed_by, outputs))
    assert "not shown here: pages were swapped out" in said
    assert said.count("pass: ") >= 6


@requires("root", "userns", "program:busybox")
@pytest.mark.timeout(240)
def test_lesson_07_races_machines_of_a_recording(tmp_path: Path) -> None:
    """Its cells about machines, with the first ones; the others take minutes and need no machine."""
    cells = cells_of("07_start_up_and_density")
    about = [cell for cell in cells if "booted" in cell or "slower" in cell or "guess_machine" in cell]
    assert len(about) == 4
    few = "results = race(1, only=['process', 'container'], warm_up=0)"
    view = next(cell for cell in cells if "race_view(results" in cell)
    outputs = run_hidden([cells[0], *cells[1:4], *about, few, view, "view.close()"], tmp_path)
    told = everything(outputs[4:8])
    assert "Recording made on" in told and "labkit setup vm" in told and "not this machine" in told
    assert "not shown here: a machine takes more than ten times" in told
    assert "micro VM" not in everything([outputs[-2]]), "the view offers no machine where there is none"

"""From a lesson's source to a notebook that nbval accepts, twice; and what it does not accept."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from labkit.lesson import build
from labkit.setup import kernelspec
from tests.notebooks.kernel import kernel_environment, python
from tests.notebooks.sample import write_sample
from tests.support import PROJECT

#: Several jupyter_kernels, one after another, on a machine that may have other work.
pytestmark = pytest.mark.timeout(300)

NBVAL = (
    "-m",
    "pytest",
    "-q",
    "-p",
    "no:cacheprovider",
    "-c",
    "/dev/null",
    "--nbval",
    "--nbval-cell-timeout=60",
    "-rfE",
)
SANITIZE = PROJECT / "tests" / "nbval_sanitize.cfg"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """Return the sample's source in a folder where it has been built, and the environment to run it in."""
    folder = tmp_path_factory.mktemp("pipeline")
    environ = kernel_environment(folder)
    source_path = write_sample(folder / "notebooks")
    done = python("-m", "labkit.lesson.build", cwd=folder, environ=environ)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("98_sample: built in ")
    return source_path, environ


def nbval(path: Path, environ: dict[str, str]) -> Any:
    """Run nbval on a notebook, or on all in a folder, as `make test` does."""
    folder = path if path.is_dir() else path.parent
    return python(*NBVAL, "--rootdir", folder, "--nbval-sanitize-with", SANITIZE, path, cwd=folder, environ=environ)


def cell_with(notebook: dict[str, Any], text: str) -> dict[str, Any]:
    """Return the one cell whose source contains ``text``."""
    (found,) = (cell for cell in notebook["cells"] if text in "".join(cell["source"]))
    return dict(found)


def test_nbval_accepts_it_twice(made: tuple[Path, dict[str, str]]) -> None:
    source_path, environ = made
    for _ in range(2):
        done = nbval(source_path.with_suffix(".ipynb"), environ)
        assert done.returncode == 0, done.stdout
        assert " passed" in done.stdout and "failed" not in done.stdout


def test_building_it_again_changes_live_outputs_only(made: tuple[Path, dict[str, str]], tmp_path: Path) -> None:
    source_path, environ = made
    again = write_sample(tmp_path / "notebooks")
    assert python("-m", "labkit.lesson.build", "98_sample", cwd=tmp_path, environ=environ).returncode == 0
    old, new = (json.loads(path.with_suffix(".ipynb").read_text()) for path in (source_path, again))
    for notebook in (old, new):
        for cell in notebook["cells"]:
            if "nbval-ignore-output" in cell["metadata"].get("tags", ()):
                assert cell.pop("outputs")
    assert old == new


def test_it_is_small_and_has_no_ids_of_widgets_timings_or_folders(made: tuple[Path, dict[str, str]]) -> None:
    source_path, _ = made
    text = source_path.with_suffix(".ipynb").read_text()
    assert len(text) < 200_000
    for private in ("model_id", "widget-view", 'execution":', "iopub", str(PROJECT), str(source_path.parent)):
        assert private not in text
    notebook = json.loads(text)
    assert notebook["metadata"]["kernelspec"] == {
        "display_name": kernelspec.DISPLAY_NAME,
        "language": "python",
        "name": kernelspec.NAME,
    }
    assert "version" not in notebook["metadata"]["language_info"]


def test_it_reads_without_a_process(made: tuple[Path, dict[str, str]]) -> None:
    source_path, _ = made
    notebook = json.loads(source_path.with_suffix(".ipynb").read_text())
    question = cell_with(notebook, "lesson.predict")["outputs"][0]["data"]
    assert "some other number" in "".join(question["text/html"])
    live = "".join(cell_with(notebook, "view = LiveView")["outputs"][0]["data"]["text/html"])
    assert 'alt="Line: a wave that moves to the left. The clock says ' in live
    assert base64.b64decode(live.split("base64,")[1].split('"')[0]).startswith(b"\x89PNG")


def test_answers_are_folded_and_the_exercise_is_not(made: tuple[Path, dict[str, str]]) -> None:
    source_path, _ = made
    notebook = json.loads(source_path.with_suffix(".ipynb").read_text())
    for text, folded in (
        ("lesson.predict", True),
        ("lesson.quiz", True),
        ("def solution", True),
        ("def my_env", False),
    ):
        assert ("jupyter" in cell_with(notebook, text)["metadata"]) is folded, text


def change_alt(notebook: dict[str, Any]) -> None:
    """Store another sentence for the figure than the cell gives."""
    data = cell_with(notebook, "charts.show")["outputs"][0]["data"]
    data["text/html"] = [line.replace("twice", "thrice") for line in data["text/html"]]


def change_pixels(notebook: dict[str, Any]) -> None:
    """Store other pixels for the figure than the cell draws."""
    data = cell_with(notebook, "charts.show")["outputs"][0]["data"]
    other = base64.b64encode(b"\x89PNG other").decode()
    data["text/html"] = ["".join(data["text/html"]).replace("".join(data["image/png"]).strip(), other)]
    data["image/png"] = other


def change_line_number(notebook: dict[str, Any]) -> None:
    """Store another place for the shown function than it has now."""
    data = cell_with(notebook, "lesson.source")["outputs"][0]["data"]
    for mime, lines in data.items():
        data[mime] = [line.replace("labkit/units.py:", "labkit/units.py:1") for line in lines]


def change_source_shown(notebook: dict[str, Any]) -> None:
    """Store another function than labkit has now."""
    data = cell_with(notebook, "lesson.source")["outputs"][0]["data"]
    data["text/plain"] = [line.replace("size_bytes", "size") for line in data["text/plain"]]


def change_claim(notebook: dict[str, Any]) -> None:
    """Store another claim than the check prints."""
    output = cell_with(notebook, "a process has a PID")["outputs"][0]
    output["text"] = [line.replace("a PID", "two PIDs") for line in output["text"]]


def test_nbval_compares_words_and_not_pixels(made: tuple[Path, dict[str, str]], tmp_path: Path) -> None:
    source_path, environ = made
    built = source_path.with_suffix(".ipynb").read_text()
    changes = (change_alt, change_pixels, change_line_number, change_source_shown, change_claim)
    for change in changes:
        notebook = json.loads(built)
        change(notebook)
        assert notebook != json.loads(built), f"{change.__name__} changed nothing"
        (tmp_path / f"{change.__name__}.ipynb").write_text(json.dumps(notebook))
    done = nbval(tmp_path, environ)
    failed = {change.__name__ for change in changes if f"FAILED {change.__name__}.ipynb" in done.stdout}
    assert failed == {"change_alt", "change_source_shown", "change_claim"}, done.stdout


def test_the_check_agrees_with_what_was_built_and_sees_an_edit(
    made: tuple[Path, dict[str, str]], tmp_path: Path
) -> None:
    source_path, _ = made
    assert build.check_built(source_path) == []
    copy = write_sample(tmp_path)
    copy.with_suffix(".ipynb").write_text(source_path.with_suffix(".ipynb").read_text())
    copy.write_text(copy.read_text().replace("guess.compare()", "guess.compare('0')"))
    assert build.check_built(copy) == [
        "cell 4 (\"guess.compare('0')\") is not what the source says: run `make notebooks`, never edit the .ipynb."
    ]


def test_without_the_jupyter_kernel_it_says_what_to_do_and_leaves_the_old_notebook(
    made: tuple[Path, dict[str, str]],
) -> None:
    source_path, environ = made
    before = source_path.with_suffix(".ipynb").read_bytes()
    done = python("-m", "labkit.lesson.build", "--kernel", "none", cwd=source_path.parent.parent, environ=environ)
    assert done.returncode == 1
    assert "the jupyter_kernel 'none' is not installed. Run `make setup`" in done.stderr
    assert "Traceback" not in done.stderr
    assert source_path.with_suffix(".ipynb").read_bytes() == before


def test_a_failing_cell_is_named_and_leaves_nothing(tmp_path: Path) -> None:
    environ = kernel_environment(tmp_path)
    folder = tmp_path / "notebooks"
    folder.mkdir()
    (folder / "97_broken.py").write_text("# %%\nmoon = 1 / 0\n")
    done = python("-m", "labkit.lesson.build", cwd=tmp_path, environ=environ)
    assert done.returncode == 1
    assert "ZeroDivisionError" in done.stderr and "moon = 1 / 0" in done.stderr
    assert [path.name for path in folder.iterdir()] == ["97_broken.py"]

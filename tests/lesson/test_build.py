"""The source is read the same way every time, and wrong use is told in a sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

from labkit.errors import InvalidSpec
from labkit.lesson import build

TWICE = '# %% [markdown]\n"""\nProse.\n"""\n\n# %%\nx = 1\n\n# %%\nx = 1\n\n# %% tags=["solution"]\ny = 2\n'


def write(folder: Path, text: str, *, name: str = "96_lesson.py") -> Path:
    """Write a lesson's source."""
    path = folder / name
    path.write_text(text)
    return path


def test_ids_come_from_the_source_and_equal_cells_are_numbered(tmp_path: Path) -> None:
    path = write(tmp_path, TWICE)
    first, second = build.read_source_notebook(path), build.read_source_notebook(path)
    ids = [cell.id for cell in first.cells]
    assert ids == [cell.id for cell in second.cells]
    assert ids[2] == f"{ids[1]}-2" and len(set(ids)) == 4
    write(tmp_path, TWICE.replace("Prose", "Other prose"))
    changed = [cell.id for cell in build.read_source_notebook(path).cells]
    assert changed[0] != ids[0] and changed[1:] == ids[1:], "an edit changes the id of its own cell only"


def test_cells_keep_kind_text_and_tags_and_a_solution_is_folded(tmp_path: Path) -> None:
    cells = build.read_source_notebook(write(tmp_path, TWICE)).cells
    assert [(cell.cell_type, cell.source) for cell in cells[:2]] == [("markdown", "Prose."), ("code", "x = 1")]
    assert cells[3].metadata == {"tags": ["solution"], "jupyter": {"source_hidden": True}}
    assert cells[1].metadata == {}


def test_names_may_be_given_with_or_without_ending(tmp_path: Path) -> None:
    path = write(tmp_path, TWICE)
    for name in ("96_lesson", "96_lesson.py", "notebooks/96_lesson.ipynb"):
        assert build._sources(tmp_path, [name]) == [path]


@pytest.mark.parametrize("names", [["95_none"], []])
def test_an_unknown_lesson_or_none_at_all_is_wrong_usage(
    names: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert build.main(["--folder", str(tmp_path), *names]) == 2
    assert "no lesson" in capsys.readouterr().err


def test_a_source_that_was_never_built_fails_the_check(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, TWICE)
    assert build.main(["--check", "--folder", str(tmp_path)]) == 1
    assert capsys.readouterr().out == "96_lesson: 96_lesson.ipynb is not built: run `make notebooks`.\n"


def test_a_source_that_is_not_there_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(InvalidSpec, match=r"a lesson's source is notebooks/NN_topic\.py"):
        build.read_source_notebook(tmp_path / "96_none.py")


def test_private_names_are_taken_out_of_outputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "ada-laptop")
    text = f"{tmp_path}/x on ada-laptop, {Path.home()}/y"
    assert build._scrub(text, folder=tmp_path) == "notebooks/x on this-machine, ~/y"
    monkeypatch.setattr("socket.gethostname", lambda: "vm")
    assert build._scrub("a vm", folder=tmp_path) == "a vm"

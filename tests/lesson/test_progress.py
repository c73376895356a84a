"""Progress is a courtesy: one small file, replaced whole, never in the way."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from labkit.lesson import begin, progress, show_progress


def test_it_lies_in_the_work_folder_where_there_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LABKIT_PROGRESS")
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert progress.progress_path() == tmp_path / ".local/share/labkit/progress.json"
    (tmp_path / "work").mkdir()
    assert progress.progress_path() == tmp_path / "work/labkit-progress.json"


def test_what_was_done_is_found_again_and_shown_as_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    begin("04_cgroups")
    progress.record("exercise", "Limit a group", did={"missed": 0})
    progress.record("exercise", "Limit a group", did={"missed": 2})
    progress.record("quiz", "What is a cgroup?", did={"tries": 1})
    assert progress.read_progress()["04_cgroups"]["exercise"] == {"Limit a group": {"missed": 2}}
    show_progress()
    assert "04_cgroups | 0 | 1 | 1" in capsys.readouterr().out


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"04": []}', '{"04": {"quiz": 3}}', "\x00"])
def test_a_damaged_file_counts_as_empty_and_is_replaced(damage: str, progress_file: Path) -> None:
    progress_file.parent.mkdir(parents=True)
    progress_file.write_text(damage)
    assert progress.read_progress() == {}
    progress.record("quiz", "What?", did={"tries": 1})
    assert json.loads(progress_file.read_text())


def test_a_place_that_cannot_be_written_costs_only_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("LABKIT_PROGRESS", str(tmp_path / "file" / "progress.json"))
    progress.record("quiz", "What?", did={"tries": 1})
    assert progress.read_progress() == {}


def test_nothing_half_written_is_left_beside_it(progress_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "replace", refused)
    progress.record("quiz", "What?", did={"tries": 1})
    assert list(progress_file.parent.iterdir()) == []


def test_the_table_says_how_much_there_is_and_passes_by_a_damaged_notebook(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = (
        ["guess = lesson.predict(\n", "    '?')"],
        ["lesson.quiz(1)"],
        ["a = lesson.exercise(2)\n", "b = lesson.exercise(3)"],
    )
    cells = [{"cell_type": "code", "source": lines} for lines in code] + [
        {"cell_type": "markdown", "source": ["lesson.quiz("]}
    ]
    (tmp_path / "03_a.ipynb").write_text(json.dumps({"cells": cells}))
    (tmp_path / "04_b.ipynb").write_text("{")
    begin("03_a")
    progress.record("exercise", "One of two", did={"missed": 1})
    show_progress(tmp_path)
    assert capsys.readouterr().out.splitlines()[-1] == "03_a | 0 of 1 | 0 of 1 | 1 of 2"

"""Cells that a machine refuses: tried in a real IPython shell whose lesson meets a refusal, beside what the notebook has stored."""

from __future__ import annotations

import atexit
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from labkit.lesson import stand_in
from labkit.lesson.stand_in import MARK

RULE = "a filter refuses unshare(CLONE_NEWUSER)"
REFUSE = "from labkit.errors import FeatureMissing\ndef refuse():\n    raise FeatureMissing('no way.', remedy='None.')"
CELLS = {
    "made = refuse()": [{"output_type": "stream", "name": "stdout", "text": ["pass: it is made\n"]}],
    "print(made)": [{"output_type": "display_data", "data": {"text/plain": "a moon", "image/png": "AA=="}, "metadata": {}}],
    "box.close()\nmade": [],
}  # fmt: skip


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Return a shell that runs a lesson on a machine that refuses."""
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    from IPython.core.interactiveshell import InteractiveShell
    from traitlets.config import Config

    notebook = {"cells": [{"cell_type": "code", "source": text, "outputs": out, "metadata": {}} for text, out in CELLS.items()],
                "metadata": {"labkit": {"machine": "Linux 9.9", "date": "2026-01-02"}}}  # fmt: skip
    (tmp_path / "n.ipynb").write_text(json.dumps(notebook))
    config = Config()
    config.HistoryManager.enabled = False
    made = InteractiveShell.instance(config=config)  # display() asks for the one of this process
    made.run_cell(REFUSE)
    stand_in.begin(made, rule=RULE, notebook=tmp_path / "n.ipynb")
    yield made
    InteractiveShell.clear_instance()
    atexit.unregister(made.atexit_operations)


def shown_by(shell: Any, cell: str) -> tuple[bool, str, list[Any]]:
    """Run a cell; return whether it went well, what it printed, and what it displayed."""
    from IPython.utils.capture import capture_output

    with capture_output() as captured:
        result = shell.run_cell(cell)
    return result.success, captured.stdout, [(output.data, output.metadata) for output in captured.outputs]


def test_a_refused_cell_shows_the_rule_and_its_recording(shell: Any) -> None:
    went_well, _, displayed = shown_by(shell, "made = refuse()")
    (note, note_mark), (recorded, mark) = displayed
    assert went_well and note_mark == {MARK: "note"} and mark == {MARK: "output"}
    assert "Not run on this machine: no way." in note["text/plain"] and "(Linux 9.9, 2026-01-02)" in note["text/plain"]
    assert recorded["text/plain"] == "not shown here: it is made"


def test_what_follows_from_it_is_not_run_either_and_shows_its_picture(shell: Any) -> None:
    shown_by(shell, "made = refuse()")
    went_well, printed, displayed = shown_by(shell, "print(made)")
    assert went_well and printed == ""
    assert RULE in displayed[0][0]["text/plain"] and displayed[1][0]["image/png"] == "AA=="
    assert shown_by(shell, "made |= {1}")[1] == "", "a name that is added to is read as well"
    assert shown_by(shell, "made = 3\nprint(made)")[1] == "3\n", "a name that a cell sets itself is there again"
    assert shown_by(shell, "print(made)")[1] == "3\n"


def test_what_works_runs_as_ever_and_shows_its_last_line(shell: Any) -> None:
    went_well, printed, displayed = shown_by(shell, "x = 20\nprint('hello')\nx + 22")
    assert went_well and printed.splitlines()[0] == "hello" and shell.user_ns["_"] == 42
    assert not any(mark.get(MARK) for _, mark in displayed)


def test_a_mistake_stays_an_error(shell: Any) -> None:
    assert not shown_by(shell, "1 / 0")[0]
    assert not shown_by(shell, "open('/there/is/none')")[0]
    assert not shown_by(shell, "undefined_name")[0]


def test_a_skipped_cell_still_closes_what_there_is(shell: Any) -> None:
    shell.run_cell("class Box:\n    closed = False\n    def close(self):\n        self.closed = True\nbox = Box()")
    shown_by(shell, "made = refuse()")
    assert shown_by(shell, "box.close()\nmade")[0]
    assert shell.user_ns["box"].closed


def test_a_cell_of_ones_own_has_no_recording_and_says_so(shell: Any) -> None:
    _, _, displayed = shown_by(shell, "mine = refuse()")
    assert "Nothing is recorded of a cell of your own." in displayed[0][0]["text/plain"] and len(displayed) == 1


def test_a_saved_stand_in_gives_its_recording_again(tmp_path: Path) -> None:
    outputs = [
        {"output_type": "display_data", "data": {"text/plain": "Not run"}, "metadata": {MARK: "note"}},
        {"output_type": "display_data", "data": {"text/plain": "a moon"}, "metadata": {MARK: "output"}},
    ]
    path = tmp_path / "saved.ipynb"
    path.write_text(json.dumps({"cells": [{"cell_type": "code", "source": ["a\n", "b"], "outputs": outputs}]}))
    assert stand_in.stored_outputs(path) == {"a\nb": outputs[1:]}
    assert stand_in.stored_outputs(tmp_path / "none.ipynb") == {}

"""An exercise looks at effects, step by step, and gives one hint more at each try."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from labkit.errors import InvalidSpec, InvalidState
from labkit.lesson import CheckFailed, Exercise, Step, begin, exercise


class Folder:
    """Something a student makes: it has an end, which the judge must bring about."""

    def __init__(self, path: Path) -> None:
        self.path, self.left = path, 0

    def __enter__(self) -> Folder:
        return self

    def __exit__(self, *_: object) -> None:
        self.left += 1


def task() -> Exercise:
    """Return a task of two steps about a folder."""
    return exercise(
        "Make a folder with a file named moon.",
        steps=[
            Step("the folder is there", lambda made: made.path.is_dir(), hints=["mkdir"]),
            Step(
                "it holds one file, moon",
                lambda made: sorted(os.listdir(made.path)),
                ["moon"],
                hints=[lambda seen: f"it holds {len(seen)} files", "touch"],
            ),
        ],
    )


def test_the_untouched_cell_is_not_yet_and_raises_nothing(progress_file: Path) -> None:
    def untouched() -> None:
        """Return the folder."""

    verdict = task().judge(untouched)
    assert not verdict.passed
    assert repr(verdict) == "not yet: the folder is there. Now: nothing has been made: the exercise cell is as it was"
    assert not progress_file.exists()


def test_hints_come_one_by_one_at_the_step_that_is_missing_and_say_what_is_there(tmp_path: Path) -> None:
    asked = task()
    (tmp_path / "made").mkdir()
    made = Folder(tmp_path / "made")
    assert asked.judge(Folder(tmp_path / "none")).hints == ()
    first, second, third = (asked.judge(made) for _ in range(3))
    assert (first.missing, first.seen, first.hints) == ("it holds one file, moon", "[]", ())
    assert [len(second.hints), len(third.hints)] == [1, 2]
    assert second.hints == ("it holds 0 files",)


def test_a_right_attempt_passes_is_ended_and_is_remembered(tmp_path: Path, progress_file: Path) -> None:
    begin("03_namespaces")
    folder = tmp_path / "made"
    folder.mkdir()
    (folder / "moon").touch()
    made = Folder(folder)
    asked = task()
    assert repr(asked.judge(lambda: made)) == "pass: Make a folder with a file named moon"
    assert made.left == 1 and asked.passed
    assert json.loads(progress_file.read_text())["03_namespaces"]["exercise"]


@pytest.mark.parametrize("error", [InvalidState("it has ended"), FileNotFoundError("no such folder")])
def test_an_error_of_labkit_or_the_kernel_is_what_was_seen(error: Exception) -> None:
    def raises(*_: Any) -> None:
        raise error

    asked = exercise("Do it", steps=[Step("it is done", raises, hints=[lambda seen: "never called"])])
    for attempt in (raises, object()):
        assert str(error) in asked.judge(attempt).seen


def test_a_mistake_in_the_students_python_is_shown_as_python_shows_it() -> None:
    with pytest.raises(ZeroDivisionError):
        task().judge(lambda: 1 / 0)


def test_a_solution_that_has_rotted_raises_with_what_it_reaches(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = exercise("Count", steps=[Step("it is three", lambda number: number, 3)])
    prove: Callable[[Any], None] = asked.prove
    prove(lambda: 3)
    assert capsys.readouterr().out == "pass: the solution does what the exercise asks for\n"
    with pytest.raises(CheckFailed, match="it is three"):
        prove(lambda: 4)
    assert not asked.passed, "the author's solution is not the student's"


def test_a_verdict_is_text_and_escaped_html() -> None:
    asked = exercise("Count", steps=[Step("it is <three>", lambda number: number, 3)])
    bundle = asked.judge(4)._repr_mimebundle_()
    assert bundle["text/plain"] == "not yet: it is <three>. Now: 4"
    assert "&lt;three&gt;" in bundle["text/html"] and 'role="status"' in bundle["text/html"]


def test_an_exercise_needs_a_task_and_a_step() -> None:
    with pytest.raises(InvalidSpec):
        exercise("Do it", steps=[])

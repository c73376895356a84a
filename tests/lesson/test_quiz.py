"""Every answer of a quiz gets its reply; only the right one counts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from labkit.errors import InvalidSpec
from labkit.lesson import Answer, begin, quiz

PID = Answer("a number", "The kernel's number of a process.", right=True)
NAME = Answer("a name", "Names stand in comm.")


def test_each_answer_has_its_reply_and_the_right_one_is_remembered(progress_file: Path) -> None:
    begin("01_os")
    asked = quiz("What is a PID?", [PID, NAME])
    assert asked.choose("a name") == "Not quite: Names stand in comm."
    assert not progress_file.exists()
    assert asked.choose("a number") == "Right: The kernel's number of a process."
    assert json.loads(progress_file.read_text()) == {"01_os": {"quiz": {"What is a PID?": {"tries": 2}}}}


def test_the_page_shows_the_reply_where_a_screen_reader_hears_it() -> None:
    asked = quiz("What is a PID?", [PID, NAME])
    widget = (asked._repr_mimebundle_(), asked._widget)[1]
    _, radio, line = widget.children
    assert radio.value is None, "no answer is chosen beforehand"
    radio.value = "a name"
    assert line.value == '<div role="status" aria-live="polite">Not quite: Names stand in comm.</div>'


def test_the_stored_form_names_question_and_answers_but_not_the_right_one() -> None:
    bundle = quiz("What is a PID?", [PID, NAME])._repr_mimebundle_()
    assert bundle["text/plain"] == "Quiz: What is a PID? (a number / a name)"
    assert "The kernel" not in bundle["text/html"]


@pytest.mark.parametrize(
    "answers",
    [[PID], [PID, PID], [NAME, Answer("x", "y")], [PID, Answer("x", "y", right=True)], [PID, Answer("x", " ")]],
)
def test_a_quiz_without_one_right_answer_or_a_reply_is_refused(answers: list[Answer]) -> None:
    with pytest.raises(InvalidSpec):
        quiz("What is a PID?", answers)


def test_what_is_no_answer_is_refused() -> None:
    with pytest.raises(InvalidSpec, match="none of the answers"):
        quiz("What is a PID?", [PID, NAME]).choose("a letter")

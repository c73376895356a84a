"""A prediction is recorded, compared, never waited for, and looks the same on every run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from labkit.errors import InvalidSpec
from labkit.lesson import begin, predict
from labkit.widgets.layout import VIEW_MIME


def radio_of(bundle_owner: Any) -> Any:
    """Return the radio buttons on show."""
    return bundle_owner._input


def test_a_choice_made_on_the_page_is_recorded_and_compared(
    progress_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    begin("03_namespaces")
    guess = predict("Which PID?", options=["1", "another"], answer="1", why="It is the first.")
    guess._repr_mimebundle_()
    radio_of(guess).value = "another"
    guess.compare()
    assert "1. You predicted another. It is the first." in capsys.readouterr().out
    kept = json.loads(progress_file.read_text())
    assert kept["03_namespaces"]["predict"]["Which PID?"] == {"said": "another", "happened": "1"}
    assert radio_of(guess).disabled


def test_without_a_prediction_nothing_waits_and_nothing_is_kept(
    progress_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    guess = predict("Which PID?", options=["1", "another"])
    guess._repr_mimebundle_()
    guess.compare("1")
    assert "What happened: 1. You made no prediction." in capsys.readouterr().out
    assert not progress_file.exists()
    assert not radio_of(guess).disabled


@pytest.mark.parametrize(
    ("said", "happened", "right"), [(10, 19, True), (10, 21, False), (0, 0, True), (0, 3, False), (-1, 1, False)]
)
def test_a_number_is_right_within_a_factor_of_two(
    said: float, happened: float, right: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    guess = predict("How long?", unit="ms")
    guess.say(said)
    guess.compare(happened)
    shown = capsys.readouterr().out
    assert f"You predicted {said:.3g} ms{': right.' if right else '.'}" in shown


def test_the_field_for_a_number_counts_when_it_changes_or_is_kept() -> None:
    guess = predict("How long?", unit="ms")
    guess._repr_mimebundle_()
    guess._input.value = 3.5
    assert guess.said == 3.5


def test_its_text_is_the_same_every_time_and_has_no_random_id() -> None:
    first, second = (predict("Which PID?", options=["1", "another"])._repr_mimebundle_() for _ in range(2))
    assert first.pop(VIEW_MIME) != second.pop(VIEW_MIME), "two widgets have two ids; the build takes them out"
    assert first == second
    assert first["text/plain"] == "Predict: Which PID? (1 / another)"


def test_markup_in_a_question_is_text() -> None:
    shown = predict("What is <b>&amp;</b>?", options=["<i>", "b"])._repr_mimebundle_()["text/html"]
    assert "&lt;b&gt;&amp;amp;" in shown and "<i>" not in shown


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"options": ["a", "b"], "unit": "ms"},
        {"options": ["a"]},
        {"options": ["a", "a"]},
        {"options": ["a", "b"], "answer": "c"},
    ],
)
def test_a_question_that_cannot_be_answered_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidSpec):
        predict("Which?", **wrong)


def test_what_is_no_option_cannot_be_said_and_an_unknown_event_not_compared() -> None:
    guess = predict("Which?", options=["a", "b"])
    with pytest.raises(InvalidSpec, match="none of the options"):
        guess.say("c")
    with pytest.raises(InvalidSpec, match="needs what happened"):
        guess.compare()

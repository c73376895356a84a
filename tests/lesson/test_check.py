"""A claim holds and says so in one stable line, or raises with what is there instead."""

from __future__ import annotations

import pytest

from labkit.errors import InvalidSpec, LabkitError
from labkit.lesson import CheckFailed, check


def test_a_true_claim_prints_one_line_without_what_was_observed(capsys: pytest.CaptureFixture[str]) -> None:
    check("the child sees itself\n  as PID 1.", True, got=4711)
    assert capsys.readouterr().out == "pass: the child sees itself as PID 1\n"


def test_a_false_claim_raises_and_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(CheckFailed, match=r"the child sees itself as PID 1\. Found instead: 4711") as failure:
        check("the child sees itself as PID 1", False, got=4711)
    assert capsys.readouterr().out == ""
    assert (failure.value.claim, failure.value.got) == ("the child sees itself as PID 1", 4711)
    assert isinstance(failure.value, LabkitError) and isinstance(failure.value, AssertionError)


def test_a_claim_needs_words() -> None:
    with pytest.raises(InvalidSpec, match="needs a claim in words"):
        check(" . ", True, got=None)

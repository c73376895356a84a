"""A lesson on a machine that cannot measure shows the recording, with a note in the cell and the same words in the figure."""

from __future__ import annotations

from pathlib import Path

import pytest

from labkit import charts, lesson
from labkit.doctor import FEATURES
from labkit.lesson.needs import Need
from labkit.measure.recordable import find_recording
from labkit.measure.scenes import Tenants
from tests.charts.fonts import fonts_are_closed

__all__ = ["fonts_are_closed"]


@pytest.fixture
def no_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide the guest kernel."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def test_what_a_machine_takes_are_features_that_the_doctor_knows() -> None:
    assert set(lesson.MACHINE) <= set(FEATURES)


@pytest.mark.usefixtures("no_machine")
def test_the_note_names_what_is_missing_the_remedy_and_the_other_machine(capsys: pytest.CaptureFixture[str]) -> None:
    shown = lesson.recorded_or("tenants", lambda: pytest.fail("it measured"))
    said = capsys.readouterr().out
    assert "`labkit setup vm`" in said and "Shown instead: Recording made on " in said and "not this machine" in said
    assert shown.result == find_recording("tenants").result


def test_what_was_measured_has_no_note(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(lesson.recorded.recordable._TRIALS, "machine", lambda: None)  # type: ignore[attr-defined]
    assert lesson.recorded_or("tenants", lambda: Tenants(1, 0)).recording is None
    assert capsys.readouterr().out == ""


def test_a_refused_need_decides(capsys: pytest.CaptureFixture[str]) -> None:
    report = lesson.needs.__globals__["report"]()
    here = Need(("guest kernel",), answers=report)
    here.refused = (report["guest kernel"],)
    shown = lesson.recorded_or("tenants", lambda: pytest.fail("it measured"), here=here)
    assert shown.recording is not None
    assert "Not on this machine: guest kernel." in capsys.readouterr().out


def test_the_figure_itself_and_its_sentence_say_that_it_is_a_recording(capsys: pytest.CaptureFixture[str]) -> None:
    found = find_recording("boot")
    figure, (axes,) = charts.figure(7.0, 2.0)
    axes.plot([1, 2], [3, 4])
    height_in = figure.get_figheight()
    charts.show(figure, alt="A line that goes up.", recording=found)
    said = capsys.readouterr().out
    assert "A line that goes up. Recording made on" in said and "not this machine" in said
    assert figure.get_figheight() > height_in
    assert "not this machine" in figure.get_supxlabel().replace("\n", " ")

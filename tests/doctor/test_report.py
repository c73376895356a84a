"""The report as text, JSON and HTML, what lessons need, and the command."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from html.parser import HTMLParser

import pytest

from labkit.doctor import FEATURES, LESSONS, Feature, Report, needs
from labkit.doctor import command as doctor_command
from labkit.errors import InvalidSpec
from tests.support import PROJECT


def _report(*missing: str) -> Report:
    features = tuple(
        Feature(name, group, "no", "tried & <failed>", "a rule", "a remedy") if name in missing else Feature(name, group, "yes", "", "", "")
        for name, group in FEATURES.items()
    )  # fmt: skip
    return Report(features, {"Linux": "6.1"}, 0.5)


class _Table(HTMLParser):
    """Collects the shape of a table: tags, scopes, and the texts of its cells."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.scopes: list[str] = []
        self.rows: list[list[str]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.scopes += [value or "" for key, value in attrs if key == "scope"]
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_data(self, data: str) -> None:
        if self.rows and self.rows[-1]:
            self.rows[-1][-1] += data


def _table(report: Report) -> _Table:
    table = _Table()
    table.feed(report.to_html())
    return table


def test_the_table_has_a_caption_and_headers_with_scope() -> None:
    table = _table(_report())
    assert table.tags[:2] == ["table", "caption"]
    assert table.scopes.count("col") == 5
    assert table.scopes.count("row") == len(FEATURES)
    assert table.scopes.count("rowgroup") == len(set(FEATURES.values()))


def test_the_table_has_the_same_shape_whatever_was_found() -> None:
    assert _table(_report()).tags == _table(_report("overlay", "KVM")).tags


def test_the_state_is_a_word_and_what_was_found_is_escaped() -> None:
    rows = {row[0]: row for row in _table(_report("overlay")).rows}
    assert rows["overlay"] == ["overlay", "✘ no", "tried & <failed>", "a rule", "a remedy"]
    assert rows["tmpfs"][1] == "✔ yes"
    assert "<failed>" not in _report("overlay").to_html()


def test_the_text_fits_its_width_and_names_rule_and_remedy() -> None:
    text = _report("overlay").table(width=80)
    assert max(map(len, text.splitlines()[:-1])) <= 80
    assert "Rule: a rule." in text and "Remedy: a remedy" in text


def test_the_json_holds_every_row_and_lesson() -> None:
    data = json.loads(_report("overlay").to_json())
    assert [row["name"] for row in data["features"]] == list(FEATURES)
    assert {lesson["lesson"]: lesson["state"] for lesson in data["lessons"]}["05"] == "no"


def test_notebooks_get_text_and_html() -> None:
    assert set(_report()._repr_mimebundle_()) == {"text/plain", "text/html"}


def test_lessons_need_only_features_that_there_are() -> None:
    for item in LESSONS:
        assert set(item.requires) | set(item.uses) <= set(FEATURES), item
        assert not set(item.requires) & set(item.uses), item
    assert [item.lesson for item in LESSONS] == [f"{n:02}" for n in range(15)]


def test_a_lesson_is_whole_limited_or_a_recording() -> None:
    assert _report().lesson("03").state == "yes"
    without_time = _report("time namespace").lesson("03")
    assert (without_time.state, without_time.missing) == ("limited", ("time namespace",))
    assert _report("user namespace").lesson("03").state == "no"


def test_an_unknown_lesson_is_refused() -> None:
    with pytest.raises(InvalidSpec, match="no lesson '99'"):
        needs("99")
    assert needs("03_namespaces") == needs("03")


def test_the_command_prints_one_lessons_rows_and_says_whether_it_can_be_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor_command, "examine", lambda: _report("overlay"))
    parser = argparse.ArgumentParser()
    doctor_command.add_arguments(parser)
    assert doctor_command.run(parser.parse_args(["--lesson", "05"])) == 1
    printed = capsys.readouterr().out
    assert "✘ no" in printed and "05  Root filesystems" in printed and "chromium" not in printed
    assert doctor_command.run(parser.parse_args(["--lesson", "03"])) == 0
    assert doctor_command.run(parser.parse_args(["--json"])) == 0


def test_importing_the_doctor_starts_nothing_and_loads_no_drawing() -> None:
    code = "import sys, labkit.doctor; print(sorted({'matplotlib', 'ipywidgets', 'pyseccomp'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=PROJECT)
    assert done.stdout.strip() == "[]"

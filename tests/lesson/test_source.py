"""What a lesson shows of labkit is what labkit runs."""

from __future__ import annotations

import html
import re
from pathlib import Path

import pytest

from labkit import errors, units
from labkit.errors import InvalidSpec
from labkit.lesson.source import read_source, source
from labkit.units import format_bytes


def test_the_text_is_what_stands_in_the_file_at_that_line() -> None:
    place, text = read_source(format_bytes)
    name, line = place.rsplit(":", 1)
    assert name == "labkit/units.py"
    lines = Path(units.__file__).read_text().splitlines()
    assert "\n".join(lines[int(line) - 1 :]).startswith(text.rstrip("\n"))


def test_colours_change_nothing_in_the_text(capsys: pytest.CaptureFixture[str]) -> None:
    from labkit.lesson.source import _coloured

    _, text = read_source(errors.SetupError)
    assert html.unescape(re.sub(r"<[^>]*>", "", _coloured(text))) == text
    source(errors.SetupError)
    assert capsys.readouterr().out.startswith("# labkit/errors.py:")


def test_without_its_docstring_the_code_stays_whole() -> None:
    _, whole = read_source(format_bytes)
    _, short = read_source(format_bytes, without_docstring=True)
    assert '"""' not in short
    assert [line for line in whole.splitlines() if '"""' not in line] == short.splitlines()
    compile(short, "short", "exec")


def test_a_method_is_not_indented_and_a_module_is_shown_whole() -> None:
    assert read_source(errors.SetupError.__init__)[1].startswith("def __init__")
    assert read_source(errors)[1].startswith('"""')


@pytest.mark.parametrize("other", [len, Path, "text", html.escape])
def test_what_is_not_labkits_is_refused(other: object) -> None:
    with pytest.raises(InvalidSpec):
        read_source(other)  # type: ignore[arg-type]

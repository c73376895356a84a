from __future__ import annotations

import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labkit.image.build.errors import ContainerfileError
from labkit.image.build.variables import expand, expand_heredoc, expand_words

VALUES = {"A": "apple", "E": "", "P": "/usr/lib/x.tar.gz", "W": "two words", "Q": 'a"b'}


@pytest.mark.parametrize(
    "text",
    [
        "$A", "${A}", "x${A}y", "$A$A", "$N", "${N}", "$E.", "${A:-d}", "${N:-d}", "${E:-d}", "${E-d}", "${N-d}", "${A:+y}",
        "${E:+y}", "${E+y}", "${N+y}", "${N:-$A}", "${N:-${E:-deep}}", "'$A'", "\"$A\"", "\\$A", "\"\\$A\"", "a'b c'd", "\"a\\b\"",
        "\"a\\\\b\"", "${P#*/}", "${P##*/}", "${P%.*}", "${P%%.*}", "${P#/usr}", "${P#nothing}", "${P%?}", "${A#}", "${N#x}",
        "${A#\\a}", "'a\\b'", "$A-b", "$", "a$", "${P##*.}", "x\\y",
    ],
)  # fmt: skip
def test_values_are_what_a_shell_makes_of_them(text: str) -> None:
    assignments = "".join(f"{name}='{value}'\n" for name, value in VALUES.items())
    # The quotes around keep the shell from splitting; here-documents cannot be used, as they treat quotes otherwise.
    program = f'{assignments}unset N\nx={text}\nprintf %s "$x"'
    shell = subprocess.run(["sh", "-c", program], capture_output=True, text=True, check=True, env={})
    assert expand(text, VALUES) == shell.stdout


@pytest.mark.parametrize("text", ["${A/p/P}", "${A//p/P}", "${A/z/y}", "${P/l*./-}", "${A//p/}"])
def test_replacements_are_what_bash_makes_of_them(text: str) -> None:
    shell = subprocess.run(
        ["bash", "-c", f'x={text}\nprintf %s "$x"'], env=VALUES, capture_output=True, text=True, check=True
    )
    assert expand(text, VALUES) == shell.stdout


@given(
    st.dictionaries(st.sampled_from("ABC"), st.text("abc $'\"\\{}", max_size=6)),
    st.text("ab $ABC{}'\"\\:-+", max_size=14),
)
def test_any_text_is_a_value_or_an_error_of_labkits(values: dict[str, str], text: str) -> None:
    try:
        assert isinstance(expand(text, values), str)
    except ContainerfileError as error:
        assert str(error)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("${A", "missing"),
        ("${}", "bad substitution"),
        ("${A:=x}", "unsupported modifier"),
        ("${A!}", "unsupported modifier"),
        ("'open", "single-quote"),
        ('"open', "double-quote"),
        ("${N:?say so}", "N: say so"),
        ("${N?}", "N: not allowed to be unset"),
        ("${N:-" * 30, "levels deep"),
    ],
)
def test_a_form_that_is_no_form_is_an_error_with_its_line(text: str, words: str) -> None:
    with pytest.raises(ContainerfileError, match=words) as caught:
        expand(text, VALUES, line=7)
    assert caught.value.line == 7


def test_a_variable_outside_quotes_may_become_several_words() -> None:
    assert expand_words('$W "$W" x', VALUES) == ["two", "words", "two words", "x"]


def test_in_a_heredoc_quotes_stay_and_a_backslash_saves_the_dollar() -> None:
    assert expand_heredoc("\"$A\" '$A' \\$A \\n \\\\ ${N:-d}\n", VALUES) == "\"apple\" 'apple' $A \\n \\ d\n"


def test_the_escape_character_of_the_file_is_used() -> None:
    assert expand("C:\\$A `$A", VALUES, escape="`") == "C:\\apple $A"

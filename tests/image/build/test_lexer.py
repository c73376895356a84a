from __future__ import annotations

import pytest

from labkit.image.build.errors import ContainerfileError
from labkit.image.build.lexer import Statement, read_source


def statements(text: str | bytes) -> list[Statement]:
    return read_source(text).statements


def test_each_instruction_knows_the_line_where_it_begins() -> None:
    found = statements("# a comment\n\nFROM a\n  run one\n\tRUN two\n")
    assert [(s.keyword, s.rest, s.line) for s in found] == [("FROM", "a", 3), ("RUN", "one", 4), ("RUN", "two", 5)]


def test_a_line_goes_on_after_a_backslash_across_comments_and_empty_lines() -> None:
    source = read_source("FROM a\nRUN one \\\n  # why\n\n    two \\  \n three\nUSER x\n")
    assert [(s.text, s.line, s.last_line) for s in source.statements[1:]] == [
        ("RUN one     two  three", 2, 6),
        ("USER x", 7, 7),
    ]
    assert source.warnings == ["line 4: an empty line inside a continued instruction is skipped."]


def test_an_escaped_backslash_ends_the_line() -> None:
    assert [s.text for s in statements("FROM a\nRUN one \\\\\nRUN two")] == ["FROM a", "RUN one \\\\", "RUN two"]


def test_a_continuation_at_the_end_of_the_file_is_harmless() -> None:
    assert [s.text for s in statements("FROM a\nRUN one \\\n")] == ["FROM a", "RUN one"]


def test_the_escape_directive_changes_the_character() -> None:
    source = read_source("# escape=`\nFROM a\nRUN dir C:\\ `\n more\n")
    assert source.escape == "`"
    assert source.statements[1].text == "RUN dir C:\\  more"


def test_a_directive_after_the_first_instruction_or_comment_is_a_comment() -> None:
    assert read_source("# hello\n# escape=`\nFROM a\n").escape == "\\"
    assert read_source("FROM a\n# escape=`\n").escape == "\\"


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("", 0, "file with no instructions"),
        ("# only\n# comments\n", 0, "file with no instructions"),
        ("# escape=x\nFROM a", 1, "invalid ESCAPE"),
        ("# escape=`\n# escape=`\nFROM a", 2, "only one escape parser directive"),
        ("FROM a\nRUN <<EOF\necho\n", 2, "unterminated heredoc"),
        (b"FROM a\nRUN \xff\n", 2, "UTF-8"),
        ("FROM a\nRUN \0\n", 2, "NUL"),
    ],
)
def test_what_cannot_be_read_is_said_with_its_line(text: str | bytes, line: int, words: str) -> None:
    with pytest.raises(ContainerfileError, match=words) as caught:
        read_source(text)
    assert caught.value.line == line
    assert not line or f"on line {line}:" in str(caught.value)


def test_a_heredoc_belongs_to_its_instruction_and_its_lines_are_no_instructions() -> None:
    copy, user = statements("FROM a\nCOPY <<one <<'two' /d/\nFROM x\n# kept\none\n\n  b \\\ntwo\nUSER u\n")[1:]
    first, second = copy.heredocs
    assert (first.name, first.content, first.expand) == ("one", "FROM x\n# kept\n", True)
    assert (second.name, second.content, second.expand) == ("two", "\n  b \\\n", False)
    assert (copy.line, copy.last_line, user.line) == (2, 8, 9)


def test_a_dash_cuts_the_tabs_off() -> None:
    heredoc = statements("FROM a\nRUN <<-EOF\n\t\techo 1\n\tEOF\n")[1].heredocs[0]
    assert (heredoc.chomp, heredoc.script) == (True, "echo 1\n")


@pytest.mark.parametrize(
    "line", ['RUN ["sh", "-c", "cat <<EOF"]', 'RUN echo "<<EOF"', "RUN a << EOF", "ENV A=<<EOF", "RUN echo $((1<<2))b"]
)
def test_what_only_looks_like_a_heredoc_is_none(line: str) -> None:
    assert [len(s.heredocs) for s in statements(f"FROM a\n{line}\nUSER x\n")] == [0, 0, 0]


def test_windows_line_ends_and_a_byte_order_mark_are_taken_away() -> None:
    assert [s.text for s in statements(b"\xef\xbb\xbfFROM a\r\nRUN b \\\r\n c\r\n")] == ["FROM a", "RUN b  c"]


def test_a_file_that_is_no_containerfile_is_not_read_to_its_end() -> None:
    with pytest.raises(ContainerfileError, match="more than"):
        read_source("x" * (1 << 20 | 1))

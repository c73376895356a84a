"""From the text of a Containerfile to its instructions: one `Statement` each, with the line where it begins.

An instruction is one line, but a line may go on: after the escape character (``\\``, or ``` ` ``` if the directive ``# escape=`` says
so) at its end. Lines that begin with ``#`` are comments, also between continued lines. An instruction RUN, COPY or ADD may
carry *heredocs*: after ``<<NAME`` the lines up to one that is just NAME belong to it, as in a shell.

``# syntax=`` and ``# check=`` are accepted and have no effect: labkit is its own frontend.

Leaves out: other frontends than labkit's own.
See: dockerfile(5), "Format", "Parser directives", "Here-Documents".
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from labkit.image.build.errors import ContainerfileError

__all__ = ["MOST_BYTES", "Heredoc", "Source", "Statement", "read_source"]

_DIRECTIVE = re.compile(r"#\s*([A-Za-z][A-Za-z0-9]*)\s*=\s*(.+?)\s*\Z")
_KNOWN_DIRECTIVES = ("escape", "syntax", "check")
_WITH_HEREDOCS = ("RUN", "COPY", "ADD")
#: ``3<<-"END"``: descriptor, tabs to be cut off, the word that ends it.
_HEREDOC = re.compile(r"(\d*)<<(-?)([^<\s]+)\Z")
#: A Containerfile is written by hand; whatever is larger is something else.
MOST_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Heredoc:
    """Lines that belong to an instruction. ``expand`` is False if the word was quoted, as in ``<<"EOF"``."""

    name: str
    content: str
    expand: bool = True
    chomp: bool = False
    fd: int = 0

    @property
    def script(self) -> str:
        """The content as a script gets it: without leading tabs if ``<<-`` asked for that."""
        return re.sub(r"(?m)^\t+", "", self.content) if self.chomp else self.content


@dataclass(frozen=True, slots=True)
class Statement:
    """One instruction as it is written: ``keyword`` in capitals, the rest of the logical line, the first and last line."""

    keyword: str
    rest: str
    line: int
    last_line: int = 0
    heredocs: tuple[Heredoc, ...] = ()

    @property
    def text(self) -> str:
        """The instruction as one line, as it is shown while it is carried out."""
        return f"{self.keyword} {self.rest}".rstrip()


@dataclass(slots=True)
class Source:
    """A Containerfile taken apart: its statements, the escape character, and warnings."""

    statements: list[Statement] = field(default_factory=list)
    escape: str = "\\"
    directives: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


def read_source(text: str | bytes) -> Source:
    """Take ``text`` apart. Raises: ContainerfileError with the line: no instruction, a bad directive, a heredoc without end."""
    # Not str.splitlines: it would also split at form feeds and at Unicode's separators.
    lines = _decode(text).removesuffix("\n").split("\n")
    source = Source()
    first = _read_directives(lines, source)
    reader = _Reader(lines, first, source)
    source.statements = list(reader.statements())
    if not source.statements:
        raise ContainerfileError("file with no instructions: a Containerfile begins with FROM, as in FROM busybox.")
    return source


def _decode(text: str | bytes) -> str:
    if len(text) > MOST_BYTES:
        raise ContainerfileError(f"the Containerfile has {len(text)} bytes; more than {MOST_BYTES} are not read.")
    if isinstance(text, bytes):
        try:
            text = text.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            line = bytes(error.object[: error.start]).count(b"\n") + 1
            raise ContainerfileError("this is no UTF-8 text: save the file as UTF-8.", line=line) from None
    if "\0" in text:
        raise ContainerfileError(
            "a NUL character: this is no text file.", line=text[: text.index("\0")].count("\n") + 1
        )
    return text.removeprefix("\ufeff").replace("\r\n", "\n")


def _read_directives(lines: list[str], source: Source) -> int:
    """Read the directives at the top into ``source``; return the number of lines they take."""
    for number, line in enumerate(lines):
        match = _DIRECTIVE.match(line.strip())
        if match is None:
            return number
        name, value = match.group(1).lower(), match.group(2)
        if name not in _KNOWN_DIRECTIVES:
            continue
        if name in source.directives:
            raise ContainerfileError(f"only one {name} parser directive can be used.", line=number + 1)
        if name == "escape" and value not in ("\\", "`"):
            raise ContainerfileError(f"invalid ESCAPE {value!r}: it must be ` or \\.", line=number + 1)
        source.directives[name] = value
        source.escape = value if name == "escape" else source.escape
    return len(lines)


class _Reader:
    """Reads statements from a list of lines."""

    def __init__(self, lines: list[str], first: int, source: Source) -> None:
        self.lines = lines
        self.at = first
        self.source = source
        escape = re.escape(source.escape)
        # An escape character that is itself escaped does not continue the line.
        self.continued = re.compile(rf"(^|[^{escape}]){escape}[ \t]*\Z")

    def statements(self) -> Iterator[Statement]:
        """Yield every statement."""
        while self.at < len(self.lines):
            start = self.at
            line = self._next().strip()
            if not line or line.startswith("#"):
                continue
            text = self._with_continuations(line.lstrip())
            if not text.strip():
                continue
            yield self._statement(text.strip(), start + 1)

    def _next(self) -> str:
        self.at += 1
        return self.lines[self.at - 1]

    def _with_continuations(self, line: str) -> str:
        """Return the logical line: every continued line joined, comments in between dropped."""
        parts = []
        while match := self.continued.search(line):
            parts.append(line[: match.start()] + match.group(1))
            line = ""
            while self.at < len(self.lines):
                line = self._next()
                if line.lstrip().startswith("#"):
                    continue
                if line.strip():
                    break
                self.source.warnings.append(f"line {self.at}: an empty line inside a continued instruction is skipped.")
                line = ""
            else:
                break
        return "".join([*parts, line])

    def _statement(self, text: str, line: int) -> Statement:
        keyword, *others = re.split(r"\s+", text, maxsplit=1)
        keyword, rest = keyword.upper(), others[0] if others else ""
        heredocs = tuple(self._heredocs(rest, line)) if keyword in _WITH_HEREDOCS and "<<" in rest else ()
        return Statement(keyword, rest.strip(), line, self.at, heredocs)

    def _heredocs(self, rest: str, line: int) -> Iterator[Heredoc]:
        for word in _raw_words(rest, self.source.escape):
            match = _HEREDOC.match(word)
            if match is None or _is_json(rest):
                continue
            fd, dash, name = match.groups()
            plain = re.sub(r"[\"'\\]", "", name)
            if not plain:
                continue
            content = self._body(plain, chomp=bool(dash), line=line)
            yield Heredoc(plain, content, expand=plain == name, chomp=bool(dash), fd=int(fd or 0))

    def _body(self, name: str, *, chomp: bool, line: int) -> str:
        body: list[str] = []
        while self.at < len(self.lines):
            text = self._next()
            if (text.lstrip("\t") if chomp else text) == name:
                return "".join(f"{part}\n" for part in body)
            body.append(text)
        raise ContainerfileError(f"unterminated heredoc: no line is just {name}.", line=line)


def _is_json(rest: str) -> bool:
    return re.sub(r"\A(--\S+\s+)*", "", rest).startswith("[")


def _raw_words(text: str, escape: str) -> list[str]:
    """Split at white space outside quotes, quotes kept."""
    words, word, quote, skip = [], "", "", False
    for char in text:
        if skip:
            skip = False
        elif char == escape and quote != "'":
            skip = True
        elif quote:
            quote = "" if char == quote else quote
        elif char in "\"'":
            quote = char
        elif char.isspace():
            words.append(word)
            word = ""
            continue
        word += char
    return [found for found in [*words, word] if found]

"""Variables in instructions: ``$NAME``, ``${NAME}`` and the forms with a default, a condition, a cut or a replacement.

=================  =========================================================================
``${x:-word}``     ``word`` if ``x`` is unset or empty (``${x-word}``: only if unset)
``${x:+word}``     ``word`` if ``x`` is set and not empty, else nothing (``${x+word}``: if set)
``${x:?word}``     fails with ``word`` if ``x`` is unset or empty (``${x?word}``: only if unset)
``${x#pattern}``   ``x`` without the shortest match at its beginning (``##``: longest)
``${x%pattern}``   ``x`` without the shortest match at its end (``%%``: longest)
``${x/old/new}``   the first match of ``old`` replaced (``//``: every match)
=================  =========================================================================

Single quotes keep a dollar sign as it is; so does the escape character before it. Quotes are taken away.

Leaves out: positional parameters, arithmetic, command substitution: nothing is ever executed here.
See: dockerfile(5), "Environment replacement"; sh(1), "Parameter Expansion".
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from labkit.image.build.errors import ContainerfileError

__all__ = ["expand", "expand_heredoc", "expand_words"]

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*|[0-9]+|[@*#]")
_MOST_DEPTH = 20


def expand(text: str, variables: Mapping[str, str], *, escape: str = "\\", line: int = 0) -> str:
    """Return ``text`` with variables replaced and quotes taken away. Raises: ContainerfileError for a form that is no form."""
    return _Expander(text, variables, escape=escape, line=line).run()


def expand_words(text: str, variables: Mapping[str, str], *, escape: str = "\\", line: int = 0) -> list[str]:
    """Return the words of ``text`` after replacement: a variable outside quotes may become several, as in ``EXPOSE $PORTS``."""
    expander = _Expander(text, variables, escape=escape, line=line, splits=True)
    expander.run()
    return expander.words()


def expand_heredoc(text: str, variables: Mapping[str, str], *, line: int = 0) -> str:
    """Return the content of a heredoc with variables replaced; quotes stay, and only ``\\$`` and ``\\\\`` are escapes."""
    return _Expander(text, variables, escape="\\", line=line, quotes=False).run()


class _Expander:
    """Walks over one text; `at` is the next character. White space that separates words becomes a NUL where words are wanted."""

    def __init__(
        self, text: str, variables: Mapping[str, str], *, escape: str, line: int, quotes: bool = True,
        splits: bool = False, depth: int = 0,
    ) -> None:  # fmt: skip
        self.text, self.variables, self.escape, self.line = text, variables, escape, line
        self.quotes, self.splits, self.depth = quotes, splits, depth
        self.at = 0
        self.out: list[str] = []

    def run(self, stop: str = "") -> str:
        """Return what comes out up to the character ``stop`` (or the end)."""
        before, self.out = self.out, []
        while self.at < len(self.text):
            char = self._take()
            if char == stop:
                break
            self._one(char)
        else:
            if stop:
                raise self._error(f"syntax error: missing {stop!r}")
        result, self.out = "".join(self.out), before
        if not stop:
            self.out = [result]
        return result

    def words(self) -> list[str]:
        """Return the words of what came out."""
        return [word for word in "".join(self.out).split("\0") if word]

    def _one(self, char: str) -> None:
        if char == "$":
            self.out.append(self._separated(self._dollar()))
        elif char == self.escape:
            self._escaped()
        elif self.quotes and char == "'":
            self.out.append(self._until_quote())
        elif self.quotes and char == '"':
            self._double_quoted()
        else:
            self.out.append(self._separated(char))

    def _separated(self, text: str) -> str:
        return re.sub(r"\s+", "\0", text) if self.splits else text

    def _take(self) -> str:
        self.at += 1
        return self.text[self.at - 1]

    def _peek(self) -> str:
        return self.text[self.at : self.at + 1]

    def _error(self, what: str) -> ContainerfileError:
        return ContainerfileError(f"failed to process {self.text!r}: {what}.", line=self.line)

    def _escaped(self) -> None:
        if self.quotes:
            self.out.append(self._take() if self._peek() else "")
        else:
            self.out.append(self._take() if self._peek() and self._peek() in "$\\" else self.escape)

    def _until_quote(self) -> str:
        end = self.text.find("'", self.at)
        if end < 0:
            raise self._error("unexpected end of statement while looking for matching single-quote")
        text, self.at = self.text[self.at : end], end + 1
        return text

    def _double_quoted(self) -> None:
        while self.at < len(self.text):
            char = self._take()
            if char == '"':
                return
            if char == "$":
                self.out.append(self._dollar())
            elif char == self.escape and self._peek() and self._peek() in f'"${self.escape}':
                self.out.append(self._take())
            else:
                self.out.append(char)
        raise self._error("unexpected end of statement while looking for matching double-quote")

    def _name(self) -> str:
        match = _NAME.match(self.text, self.at)
        if match is None:
            return ""
        self.at = match.end()
        return match.group()

    def _dollar(self) -> str:
        if self._peek() != "{":
            name = self._name()
            return self.variables.get(name, "") if name else "$"
        self.at += 1
        name = self._name()
        if not name:
            raise self._error("syntax error: bad substitution")
        if not self._peek():
            raise self._error("syntax error: missing '}'")
        operator = self._take()
        if operator == "}":
            return self.variables.get(name, "")
        colon = operator == ":"
        if colon:
            if not self._peek():
                raise self._error("syntax error: missing '}'")
            operator = self._take()
        return self._modified(name, operator, colon=colon)

    def _modified(self, name: str, operator: str, *, colon: bool) -> str:
        """Return the value of a form with an operator; what stands before ``}`` is a word of its own, and may hold variables."""
        value = self.variables.get(name)
        if operator in "-+?":
            word = self._word("}")
            has = bool(value) if colon else value is not None
            if operator == "?" and not has:
                raise ContainerfileError(f"{name}: {word or 'not allowed to be unset'}.", line=self.line)
            if operator == "+":
                return word if has else ""
            return (value or "") if has else word
        if operator in "#%" and not colon:
            greedy = self._peek() == operator
            self.at += greedy
            return _cut(value or "", self._word("}", raw=True), from_end=operator == "%", greedy=greedy)
        if operator == "/" and not colon:
            everywhere = self._peek() == "/"
            self.at += everywhere
            pattern = _pattern(self._word("/", raw=True), greedy=True)
            new = self._word("}")
            return re.sub(pattern, lambda _: new, value or "", count=0 if everywhere else 1)
        raise self._error(f"unsupported modifier ({operator}) in substitution")

    def _word(self, stop: str, *, raw: bool = False) -> str:
        if self.depth >= _MOST_DEPTH:
            raise self._error(f"variables within variables go more than {_MOST_DEPTH} levels deep")
        self.depth += 1
        splits, escape = self.splits, self.escape
        self.splits = False
        if raw:
            self.escape = ""  # in a pattern the escape character belongs to the pattern
        try:
            return self.run(stop)
        finally:
            self.depth -= 1
            self.splits, self.escape = splits, escape


def _pattern(glob: str, *, greedy: bool) -> str:
    """Return a shell pattern as a regular expression: ``*`` and ``?`` are special, a backslash takes that away."""
    special = {"*": ".*" if greedy else ".*?", "?": "."}
    out, at = "", 0
    while at < len(glob):
        if glob[at] == "\\" and at + 1 < len(glob):
            at += 1
            out += re.escape(glob[at])
        else:
            out += special.get(glob[at], re.escape(glob[at]))
        at += 1
    return f"(?s:{out})"


def _cut(value: str, glob: str, *, from_end: bool, greedy: bool) -> str:
    """Return ``value`` without the shortest (``greedy``: longest) part at one end that fits ``glob``."""
    pattern = re.compile(_pattern(glob, greedy=True))
    lengths = range(len(value), -1, -1) if greedy else range(len(value) + 1)
    for length in lengths:
        part = value[len(value) - length :] if from_end else value[:length]
        if pattern.fullmatch(part):
            return value[: len(value) - length] if from_end else value[length:]
    return value

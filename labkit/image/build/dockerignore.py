"""``.dockerignore``: which files of the context a build does not see.

One pattern a line; the last one that fits a path decides, and ``!pattern`` takes files back in. A folder that is left out takes all
that is in it along. ``*`` and ``?`` stop at a slash, ``**`` is any number of folders, a pattern is always seen from the
context's root (a leading slash changes nothing).

Leaves out: nothing of the pattern language. Files named ``.containerignore`` or ``NAME.dockerignore`` beside the Containerfile NAME
are read as well, the more special one first.
See: dockerfile(5), ".dockerignore file"; containerignore(5).
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from labkit.image.build.errors import ContainerfileError

__all__ = ["Ignore", "glob_regex", "read_ignore_file"]

_MOST_BYTES = 1 << 20


def glob_regex(pattern: str) -> str:
    """Return a path pattern as a regular expression. Raises: ValueError for a bracket without its end or a lone backslash."""
    out, at = "", 0
    while at < len(pattern):
        char = pattern[at]
        at += 1
        if char == "*" and pattern[at : at + 1] == "*":
            at += 1
            if pattern[at : at + 1] == "/":
                at += 1
                out += "(?:.*/)?"
            else:
                out += ".*"
        elif char == "*":
            out += "[^/]*"
        elif char == "?":
            out += "[^/]"
        elif char == "[":
            body, at = _bracket(pattern, at)
            out += body
        elif char == "\\":
            if at >= len(pattern):
                raise ValueError("a backslash at the end")
            out += re.escape(pattern[at])
            at += 1
        else:
            out += re.escape(char)
    return out


def _bracket(pattern: str, at: int) -> tuple[str, int]:
    """Return ``[…]`` of a pattern as a regular expression, and where the pattern goes on."""
    negated = pattern[at : at + 1] == "^"
    at += negated
    body, first = "", True
    while at < len(pattern) and (first or pattern[at] != "]"):
        char, first = pattern[at], False
        if char == "\\" and at + 1 < len(pattern):
            at += 1
            char = "\\" + pattern[at]
        elif char in "[]^&~|\\":
            char = "\\" + char
        body += char
        at += 1
    if at >= len(pattern) or not body:
        raise ValueError("a bracket without its end")
    try:
        re.compile(f"[{body}]")
    except re.error:
        raise ValueError(f"a bad range in [{body}]") from None
    return f"(?!/)[{'^' if negated else ''}{body}]", at + 1


@dataclass(slots=True)
class Ignore:
    """The patterns of one file, in order. ``hides(path)`` answers for paths such as ``src/app.py``."""

    patterns: tuple[str, ...] = ()
    _compiled: list[tuple[bool, re.Pattern[str]]] = field(default_factory=list)
    _known: dict[str, bool] = field(default_factory=dict)

    @classmethod
    def from_patterns(cls, patterns: Sequence[str], *, where: str = ".dockerignore") -> Ignore:
        """Return what ``patterns`` leave out. Raises: ContainerfileError for one that is no pattern."""
        ignore = cls()
        kept = []
        for pattern in patterns:
            negated = pattern.startswith("!")
            path = posixpath.normpath(pattern[negated:].strip().lstrip("/") or ".")
            if path == "." and not negated and pattern.strip() not in (".", "/", "./"):
                continue
            try:
                regex = re.compile(f"{glob_regex(path)}\\Z", re.DOTALL)
            except ValueError as error:
                raise ContainerfileError(f"{where}: {pattern!r} is no pattern ({error}).") from None
            ignore._compiled.append((negated, regex))
            kept.append(f"{'!' * negated}{path}")
        ignore.patterns = tuple(kept)
        return ignore

    @classmethod
    def from_text(cls, text: str, *, where: str = ".dockerignore") -> Ignore:
        """Return what the lines of ``text`` leave out; lines that begin with ``#`` are comments."""
        lines = (line.strip() for line in text.removeprefix("\ufeff").splitlines() if not line.startswith("#"))
        return cls.from_patterns([line for line in lines if line and line != "!"], where=where)

    def hides(self, path: str) -> bool:
        """Say whether ``path`` (relative to the context, no leading slash) is left out."""
        if not self._compiled or path in ("", "."):
            return False
        found = self._known.get(path)
        if found is None:
            parent = posixpath.dirname(path)
            parents = [parent]
            while parents[-1]:
                parents.append(posixpath.dirname(parents[-1]))
            found = False
            for negated, regex in self._compiled:
                if negated == found and any(regex.match(part) for part in (path, *parents[:-1])):
                    found = not negated
            self._known[path] = found
        return found

    def hides_all_below(self, path: str) -> bool:
        """Say whether nothing below the hidden folder ``path`` can come back: there is no ``!`` pattern at all."""
        return self.hides(path) and not any(negated for negated, _ in self._compiled)


def read_ignore_file(context: Path, containerfile_name: str) -> Ignore:
    """Return the patterns that hold for a build with this Containerfile; none if there is no file of that kind.

    Raises: ContainerfileError naming the file and the pattern.
    """
    for name in (f"{containerfile_name}.dockerignore", ".containerignore", ".dockerignore"):
        path = context / name
        if path.is_symlink() or not path.is_file():
            continue
        if path.stat().st_size > _MOST_BYTES:
            raise ContainerfileError(f"{name} has {path.stat().st_size} bytes; more than {_MOST_BYTES} are not read.")
        return Ignore.from_text(path.read_text(errors="replace"), where=name)
    return Ignore()

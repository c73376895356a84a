"""How the rest of an instruction is split: flags, words, ``name=value`` pairs, and the JSON form.

``CMD ["a", "b c"]`` (exec form) is a JSON array: exactly these words, no shell. Anything else is the shell form: one text for
``/bin/sh -c``. What looks like an array but is none (single quotes, a missing bracket) is taken as shell form, and what follows an
array is not looked at, as in Docker.

See: dockerfile(5), "Shell and exec form".
"""

from __future__ import annotations

import json
import re

from labkit.image.build.errors import ContainerfileError

__all__ = ["name_value_pairs", "parse_json", "split_flags", "split_words"]


def split_words(text: str, escape: str) -> list[str]:
    """Return the words of ``text``; white space inside quotes or after ``escape`` does not split. Quotes stay."""
    words, word, quote, skip, begun = [], "", "", False, False
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
            if begun:
                words.append(word)
            word, begun = "", False
            continue
        word, begun = word + char, True
    return [*words, word] if begun else words


def split_flags(text: str, escape: str) -> tuple[list[str], str]:
    """Return the ``--name=value`` words at the beginning, and what follows them."""
    flags: list[str] = []
    rest = text.strip()
    while rest.startswith("--"):
        flag = split_words(rest, escape)[0]
        rest = rest[len(flag) :].lstrip()
        if flag == "--":
            break
        flags.append(_unquoted(flag, escape))
    return flags, rest


def _unquoted(flag: str, escape: str) -> str:
    flag = re.sub(r"[\"']", "", flag)
    return re.sub(rf"{re.escape(escape)}(.)", r"\1", flag)


def parse_json(text: str, *, line: int = 0) -> list[str] | None:
    """Return the words of a JSON array; None if ``text`` is none. Raises: ContainerfileError for an array of anything but strings."""
    if not text.lstrip().startswith("["):
        return None
    try:
        found, _ = json.JSONDecoder().raw_decode(text.lstrip())
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, list):
        return None
    if not all(isinstance(word, str) for word in found):
        raise ContainerfileError("only string elements are allowed in a JSON array: quote each word.", line=line)
    return found


def name_value_pairs(keyword: str, text: str, escape: str, *, line: int) -> list[tuple[str, str]]:
    """Return the pairs of ENV or LABEL, values as written; ``ENV name value`` without ``=`` is the old form of one pair.

    Raises: ContainerfileError naming the word that is no pair.
    """
    words = split_words(text, escape)
    if not words:
        raise ContainerfileError(f"{keyword} requires at least one argument: write {keyword} name=value.", line=line)
    if "=" not in words[0]:
        parts = text.strip().split(None, 1)
        if len(parts) < 2:
            raise ContainerfileError(f"{keyword} must have two arguments: write {keyword} name=value.", line=line)
        return [(parts[0], parts[1])]
    pairs = []
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            raise ContainerfileError(
                f"Syntax error - can't find = in {word!r}. Must be of the form: name=value (quote a value with spaces).",
                line=line,
            )
        if not name:
            raise ContainerfileError(f"{keyword} names can not be blank.", line=line)
        pairs.append((name, value))
    return pairs

"""Variables in a Compose file: ``${NAME}``, with defaults and demands, replaced before anything is understood.

::

    $NAME  ${NAME}      its value, empty (with a warning) if it is not set
    ${NAME:-text}       text if it is unset or empty          ${NAME-text}   text if it is unset
    ${NAME:?message}    refused with message likewise         ${NAME?message}
    ${NAME:+text}       text if it is set and not empty       ${NAME+text}   text if it is set
    $$                  a dollar sign

Values come from the environment, and before that from a file ``.env`` beside the Compose file.

See: Compose Specification, 12-interpolation.md; 05-services.md (``env_file``).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from labkit.errors import InvalidSpec

__all__ = ["interpolate", "interpolate_tree", "read_env_file"]

_VARIABLE = re.compile(
    r"\$(?:(?P<dollar>\$)|(?P<name>[A-Za-z_]\w*)|\{(?P<braced>[A-Za-z_]\w*)(?P<rest>[^{}]*(?:\{[^{}]*\}[^{}]*)*)\}|(?P<bad>))"
)
_LINE = re.compile(r"\s*(?:export\s+)?([A-Za-z_][\w.-]*)\s*=\s*(.*)")


def interpolate(text: str, variables: Mapping[str, str], *, where: str = "") -> str:
    """Return ``text`` with its variables replaced. Raises: InvalidSpec for a demand that is not met and for a stray ``$``."""

    def replace(match: re.Match[str]) -> str:
        if match["dollar"]:
            return "$"
        name = match["name"] or match["braced"]
        if name is None:
            raise InvalidSpec(
                f"{where or text!r}: a dollar sign that begins no variable; write $$ for one that is meant."
            )
        return _value(name, match["rest"] or "", variables, where=where)

    return _VARIABLE.sub(replace, text)


def _value(name: str, rest: str, variables: Mapping[str, str], *, where: str) -> str:
    value = variables.get(name)
    if not rest:
        return value or ""
    counts_empty = rest.startswith(":")
    operator, argument = (rest[1:2], rest[2:]) if counts_empty else (rest[:1], rest[1:])
    there = value is not None and not (counts_empty and value == "")
    if operator == "-":
        return str(value) if there else interpolate(argument, variables, where=where)
    if operator == "+":
        return interpolate(argument, variables, where=where) if there else ""
    if operator == "?":
        if not there:
            raise InvalidSpec(
                f"{where}: the variable {name} is required{': ' + argument if argument else ''}; set it, or put it into .env."
            )
        return str(value)
    raise InvalidSpec(f"{where}: ${{{name}{rest}}} is no form of a variable; there are :-, -, :?, ?, :+ and +.")


def interpolate_tree(tree: Any, variables: Mapping[str, str], *, where: str = "") -> Any:
    """Return a copy of ``tree`` (as YAML gives it) with the variables in all of its texts replaced; keys stay as they are."""
    if isinstance(tree, str):
        return interpolate(tree, variables, where=where)
    if isinstance(tree, dict):
        return {
            key: interpolate_tree(value, variables, where=f"{where}.{key}".lstrip(".")) for key, value in tree.items()
        }
    if isinstance(tree, list):
        return [interpolate_tree(value, variables, where=f"{where}[{number}]") for number, value in enumerate(tree)]
    return tree


def read_env_file(path: Path, *, required: bool = True) -> dict[str, str]:
    """Return the ``NAME=value`` lines of ``path``; quotes are taken off, ``#`` begins a comment.

    Raises: InvalidSpec if it is missing (and ``required``) or a line is no such line.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        if required:
            raise InvalidSpec(f"There is no file {path}, which env_file names.") from None
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidSpec(f"{path} cannot be read as text: {error}.") from None
    found = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = _LINE.fullmatch(line)
        if match is None:
            raise InvalidSpec(f"{path}, line {number}: {line.strip()!r} is not of the form NAME=value.")
        found[match[1]] = _unquoted(match[2].strip())
    return found


def _unquoted(value: str) -> str:
    for quote in "\"'":
        if value.startswith(quote) and (end := value.find(quote, 1)) > 0:
            inner = value[1:end]
            return inner.replace("\\n", "\n") if quote == '"' else inner
    return re.sub(r"\s+#.*", "", value)

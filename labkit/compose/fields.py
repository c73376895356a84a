"""Reading one value of a Compose file: what it must be, said with the place where it stands when it is something else.

Many keys have a short and a long form (a list or a mapping, a text or a list of words); here both become the same.

See: Compose Specification, 05-services.md.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping
from typing import Any

from labkit.errors import InvalidSpec
from labkit.units import parse_bytes, parse_cpus, parse_seconds

__all__ = [
    "as_bool",
    "as_bytes",
    "as_cpus",
    "as_int",
    "as_list",
    "as_mapping",
    "as_pairs",
    "as_seconds",
    "as_text",
    "as_texts",
    "as_words",
    "only_known",
]

_SHAPES = {
    dict: "a mapping",
    list: "a list",
    str: "a text",
    bool: "true or false",
    int: "a number",
    float: "a number",
    type(None): "nothing",
}


def _wrong(value: Any, where: str, wanted: str) -> InvalidSpec:
    return InvalidSpec(
        f"{where}: this must be {wanted}, and it is {_SHAPES.get(type(value), type(value).__name__)} ({value!r})."
    )


def as_mapping(value: Any, where: str) -> dict[str, Any]:
    """Return a mapping with texts as keys; nothing counts as an empty one. Raises: InvalidSpec."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise _wrong(value, where, "a mapping")
    return {str(key): inner for key, inner in value.items()}


def as_list(value: Any, where: str) -> list[Any]:
    """Return a list; nothing counts as an empty one. Raises: InvalidSpec."""
    if value is None:
        return []
    if not isinstance(value, list):
        raise _wrong(value, where, "a list")
    return value


def as_text(value: Any, where: str) -> str:
    """Return a text; a number is written out. Raises: InvalidSpec (``yes`` and ``on`` are true to YAML: quote them)."""
    if isinstance(value, bool):
        raise InvalidSpec(
            f"{where}: this must be a text, and YAML reads it as {str(value).lower()}; put it into quotes."
        )
    if not isinstance(value, str | int | float):
        raise _wrong(value, where, "a text")
    return str(value)


def as_bool(value: Any, where: str) -> bool:
    """Return true or false, also where a variable has made it a text. Raises: InvalidSpec."""
    words = {"true": True, "false": False}
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in words:
        return words[value.lower()]
    raise _wrong(value, where, "true or false")


def as_int(value: Any, where: str, *, least: int = 0, most: int = 2**31) -> int:
    """Return a whole number from ``least`` to ``most``. Raises: InvalidSpec."""
    try:
        number = int(as_text(value, where))
    except ValueError:
        raise _wrong(value, where, "a whole number") from None
    if not least <= number <= most:
        raise InvalidSpec(f"{where}: {number} is not between {least} and {most}.")
    return number


def as_seconds(value: Any, where: str) -> float:
    """Return a duration in seconds: ``10``, ``1.5s``, ``1m30s``. Raises: InvalidSpec."""
    text = as_text(value, where)
    parts = re.findall(r"\d+(?:\.\d+)?(?:us|ms|s|m|h|$)", text)
    if not text or "".join(parts) != text:
        raise InvalidSpec(f"{where}: {text!r} is no duration; write it as in 90s or 1m30s.")
    return sum(parse_seconds(part) for part in parts)


def as_bytes(value: Any, where: str) -> int:
    """Return a size in bytes; ``64mb`` means ``64m`` here, as in Docker. Raises: InvalidSpec."""
    text = as_text(value, where).lower()
    text = text.removesuffix("b") if text[-2:-1] in ("k", "m", "g") else text
    try:
        return parse_bytes(text)
    except InvalidSpec as error:
        raise InvalidSpec(f"{where}: {error}") from None


def as_cpus(value: Any, where: str) -> float:
    """Return a number of CPUs; 0 means no limit. Raises: InvalidSpec."""
    try:
        return 0 if as_text(value, where) == "0" else parse_cpus(value)
    except InvalidSpec as error:
        raise InvalidSpec(f"{where}: {error}") from None


def as_texts(value: Any, where: str) -> tuple[str, ...]:
    """Return a list of texts. Raises: InvalidSpec."""
    return tuple(as_text(item, f"{where}[{number}]") for number, item in enumerate(as_list(value, where)))


def as_words(value: Any, where: str) -> tuple[str, ...] | None:
    """Return a command: a list of words as it is, a text split as a shell would, None for nothing. Raises: InvalidSpec."""
    if value is None:
        return None
    if isinstance(value, list):
        return tuple(as_text(word, f"{where}[{number}]") for number, word in enumerate(value))
    try:
        return tuple(shlex.split(as_text(value, where)))
    except ValueError as error:
        raise InvalidSpec(f"{where}: {value!r} cannot be split into words: {error}.") from None


def as_pairs(value: Any, where: str, *, otherwise: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return names with values from a mapping or a list of ``NAME=value``.

    A name alone takes its value from ``otherwise`` and is left out where that has none; without ``otherwise`` its value is empty.
    Raises: InvalidSpec.
    """
    if isinstance(value, list):
        texts = [as_text(item, f"{where}[{number}]") for number, item in enumerate(value)]
        items: Iterable[tuple[str, Any]] = [
            (name, after if separator else None) for name, separator, after in (text.partition("=") for text in texts)
        ]
    else:
        items = as_mapping(value, where).items()
    found = {}
    for name, inner in items:
        if inner is None and otherwise is not None:
            if name in otherwise:
                found[name] = otherwise[name]
        elif isinstance(inner, bool):
            found[name] = str(inner).lower()
        else:
            found[name] = "" if inner is None else as_text(inner, f"{where}.{name}")
    return found


def only_known(found: Mapping[str, Any], known: Iterable[str], where: str, *, left_out: Mapping[str, str] = {}) -> None:
    """Refuse a key that is not ``known``: a typing error would change nothing, in silence. ``x-`` keys are anybody's own.

    Raises: InvalidSpec; for a key in ``left_out`` with the reason given there.
    """
    for key in found:
        if key in left_out:
            raise InvalidSpec(f"{where}.{key}: labkit does not know this: {left_out[key]}.")
        if key not in known and not key.startswith("x-"):
            raise InvalidSpec(f"{where}.{key}: there is no such key; known here are {', '.join(sorted(known))}.")

"""Checking JSON from clients: each known field has a type, and what does not fit it is a 400 with the field's name.

A table says what a field must be. ``None`` always passes and means "not given", as Go's decoder, which Docker uses, has it.
Unknown fields pass through unseen, for the same reason.

See: Docker Engine API, "Create a container".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from labkit.engine.wire.errors import BadParameter

__all__ = ["FLAG", "FLOAT", "INT", "OBJECT", "OBJECTS", "TEXT", "TEXTS", "TEXT_MAP", "WORDS", "checked"]

TEXT, INT, FLAG, FLOAT = "string", "int", "bool", "number"
TEXTS, OBJECT, OBJECTS, TEXT_MAP = "array of strings", "object", "array of objects", "object of strings"
#: A command: an array of strings, or one string, which then is the only word.
WORDS = "array of strings or string"

_INT64 = 2**63


def checked(document: Mapping[str, Any], table: Mapping[str, str], where: str) -> dict[str, Any]:
    """Return the fields of ``table`` that ``document`` has, in the table's order. Raises: BadParameter naming a wrong one."""
    found: dict[str, Any] = {}
    lower = {str(key).lower(): value for key, value in document.items()}
    for name, kind in table.items():
        value = document.get(name, lower.get(name.lower()))
        if value is None:
            continue
        if not _fits(value, kind):
            got = _WORD_FOR.get(type(value), type(value).__name__)
            raise BadParameter(f"invalid JSON: cannot unmarshal {got} into field {where}.{name} of type {kind}")
        found[name] = [value] if kind == WORDS and isinstance(value, str) else value
    return found


_WORD_FOR = {str: "string", int: "number", float: "number", bool: "bool", list: "array", dict: "object"}


def _fits(value: Any, kind: str) -> bool:
    if kind == TEXT:
        return isinstance(value, str) and "\0" not in value
    if kind == INT:
        return isinstance(value, int) and not isinstance(value, bool) and -_INT64 <= value < _INT64
    if kind == FLAG:
        return isinstance(value, bool)
    if kind == FLOAT:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if kind == WORDS and isinstance(value, str):
        return "\0" not in value
    if kind in (TEXTS, WORDS):
        return isinstance(value, list) and all(isinstance(item, str) and "\0" not in item for item in value)
    if kind == OBJECTS:
        return isinstance(value, list) and all(isinstance(item, dict) for item in value)
    if kind == TEXT_MAP:
        return isinstance(value, dict) and all(isinstance(item, str) for item in value.values())
    return isinstance(value, dict)

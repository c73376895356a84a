"""JSON as images use it: read with suspicion, written in one canonical form.

A manifest comes from strangers. Two readers must not see two things in it, so doubled keys, NaN and anything after the
document are refused, and its size and depth are bounded. What labkit writes has sorted keys and no spaces: the same content
gives the same bytes, and so the same digest.

Leaves out: JSON text in other encodings than UTF-8.
See: RFC 8259; OCI Image Specification, "Canonicalization".
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from labkit.errors import ImageError

__all__ = ["MOST_BYTES", "Fields", "canonical", "load_object"]

#: The most that registries must take for a manifest is 4 MiB; nothing honest is larger.
MOST_BYTES = 4 << 20


def canonical(document: Mapping[str, Any]) -> bytes:
    """Return ``document`` in its one form: keys sorted, no spaces, UTF-8."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def load_object(data: bytes, what: str) -> dict[str, Any]:
    """Return the JSON object that ``data`` holds. Raises: ImageError naming ``what`` and the fault."""
    if len(data) > MOST_BYTES:
        raise ImageError(f"{what} has {len(data)} bytes; more than {MOST_BYTES} are not read.")
    try:
        document = json.loads(data.decode(), object_pairs_hook=_without_doubles, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise ImageError(f"{what} is not the JSON it should be: {reason}.") from error
    if not isinstance(document, dict):
        raise ImageError(f"{what} is JSON, but no object.")
    return document


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) != len(pairs):
        names = [name for name, _ in pairs]
        doubled = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {doubled!r} stands in it twice")
    return document


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


class Fields:
    """Typed access to a JSON object of strangers; ``what`` names it in errors. Absent and ``null`` are the same."""

    def __init__(self, document: Mapping[str, Any], what: str) -> None:
        self.document = document
        self.what = what
        self._taken: set[str] = set()

    def rest(self) -> dict[str, Any]:
        """Return what nobody asked for: fields of newer versions, kept as they are."""
        return {key: value for key, value in self.document.items() if key not in self._taken}

    def text(self, key: str, default: str = "") -> str:
        """Return a string. Raises: ImageError if it is something else."""
        value = self._take(key, str)
        return default if value is None else str(value)

    def number(self, key: str, default: int | None = None) -> int:
        """Return an integer; without ``default`` it must be there. Raises: ImageError."""
        value = self._take(key, int)
        if value is None and default is None:
            raise ImageError(f"{self.what} has no {key!r}.")
        return int(default or 0) if value is None else int(value)

    def flag(self, key: str) -> bool:
        """Return a boolean. Raises: ImageError."""
        return bool(self._take(key, bool))

    def texts(self, key: str) -> tuple[str, ...] | None:
        """Return a list of strings, None if absent. Raises: ImageError."""
        value = self._take(key, list)
        if value is None:
            return None
        if not all(isinstance(item, str) for item in value):
            raise ImageError(f"{self.what}: {key!r} holds something else than strings.")
        return tuple(value)

    def mapping(self, key: str) -> dict[str, Any]:
        """Return an object; an absent one is empty. Raises: ImageError."""
        return dict(self._take(key, dict) or {})

    def text_mapping(self, key: str) -> dict[str, str]:
        """Return an object whose values are strings. Raises: ImageError."""
        value = self.mapping(key)
        if not all(isinstance(item, str) for item in value.values()):
            raise ImageError(f"{self.what}: {key!r} holds something else than strings.")
        return value

    def objects(self, key: str) -> tuple[dict[str, Any], ...] | None:
        """Return a list of objects, None if absent. Raises: ImageError."""
        value = self._take(key, list)
        if value is None:
            return None
        if not all(isinstance(item, dict) for item in value):
            raise ImageError(f"{self.what}: {key!r} holds something else than objects.")
        return tuple(value)

    def _take(self, key: str, kind: type) -> Any:
        self._taken.add(key)
        value = self.document.get(key)
        # In Python, True is an int; in JSON it is none.
        if value is None or (isinstance(value, kind) and not (kind is int and isinstance(value, bool))):
            return value
        raise ImageError(f"{self.what}: {key!r} is {_kind_of(value)}, not {_WORDS[kind]}.")


_WORDS: dict[type, str] = {
    str: "a string",
    int: "an integer",
    bool: "true or false",
    list: "a list",
    dict: "an object",
    float: "a fraction",
}


def _kind_of(value: Any) -> str:
    return _WORDS.get(type(value), type(value).__name__)

"""Results that can be kept: a frozen dataclass becomes JSON and comes back equal.

Every experiment returns one. It holds the raw samples with their units in the names, and a `HostFacts` that says on what
machine they were taken: a number without that is of no use tomorrow. What a reader computes from the samples (a median,
a ratio) is a property, so it is never stored and never stale.

Leaves out: versions of the form; unknown keys are ignored, missing ones get the field's default.
See: json (the Python library), dataclasses.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from typing import Any, Self

from labkit.errors import InvalidSpec

__all__ = ["Result"]


class Result:
    """Base of all results. Fields may be numbers, text, booleans, None, other results, and tuples of these."""

    __slots__ = ()

    def to_json(self) -> dict[str, Any]:
        """Return the fields as what ``json.dumps`` takes: objects, lists, numbers and text."""
        fields = dataclasses.fields(typing.cast(Any, self))
        return {field.name: _plain(getattr(self, field.name)) for field in fields}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """Return the result that `to_json` made ``data`` from. Raises: InvalidSpec where a field is missing or odd."""
        hints = _hints(cls)
        try:
            return cls(**{name: _typed(hints[name], dict(data)[name]) for name in hints if name in dict(data)})
        except InvalidSpec:
            raise  # of a result inside this one, which says more
        except (TypeError, ValueError) as error:
            raise InvalidSpec(f"This is no {cls.__name__} that labkit has kept: {error}.") from error


def _hints(cls: type) -> dict[str, Any]:
    hints = typing.get_type_hints(cls)
    return {field.name: hints[field.name] for field in dataclasses.fields(cls)}


def _plain(value: Any) -> Any:
    if isinstance(value, Result):
        return value.to_json()
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value


def _typed(hint: Any, value: Any) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        inner = next(argument for argument in arguments if argument is not type(None))
        return None if value is None else _typed(inner, value)
    if origin is tuple:
        if len(arguments) == 2 and arguments[1] is Ellipsis:
            return tuple(_typed(arguments[0], item) for item in value)
        return tuple(_typed(argument, item) for argument, item in zip(arguments, value, strict=True))
    if isinstance(hint, type) and issubclass(hint, Result):
        return hint.from_json(value)
    return float(value) if hint is float else value

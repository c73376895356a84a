"""Recordings: results that another machine measured, for a machine that cannot; what they are, and what is refused.

A recording is one result of `labkit.measure` as JSON, with the facts of the machine that it was taken on, and a digest over both::

    {"format": "labkit-recording-1", "name": "boot", "accelerator": ..., "host": {...}, "result": {...}, "sha256": ...}

It ships with the package, and a lesson shows it only where this machine cannot measure, saying so. So a file must be what
`labkit record` wrote: each field is there, none beside them, and each has its type. The names of the host and of its folders are
taken out before it is written.

Leaves out: signatures (whoever may change the package may change its code, too); results of one's own collected over time.
See: `labkit.measure.recordable` for what is recorded; json (the Python library).
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
import re
import socket
import sys
import types
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from labkit.errors import InvalidSpec
from labkit.linux.proc import read_cgroup
from labkit.measure.hostfacts import HostFacts, host_facts
from labkit.measure.record import Result

__all__ = ["FOLDER", "Recording", "Shown", "anonymous", "read_recording", "write_recording"]

#: Where the recordings that ship with the package lie.
FOLDER = Path(__file__).resolve().parents[1] / "recordings"
_FORMAT = "labkit-recording-1"
_KEYS = {"format", "name", "accelerator", "host", "result", "sha256"}
_MOST_BYTES = 4 << 20
_LONG_ENOUGH = 4

R = TypeVar("R", bound=Result)


@dataclass(frozen=True, slots=True)
class Recording(Generic[R]):
    """A result with the machine that it comes from; ``accelerator`` says who ran that machine's guests."""

    name: str
    accelerator: str
    host: HostFacts
    result: R

    def __str__(self) -> str:
        """Return one sentence for a figure: that it is a recording, of when and of which machine."""
        return (
            f"Recording made on {self.host.date[:10]}, not this machine: {self.host}, guests under {self.accelerator}."
        )


@dataclass(frozen=True, slots=True)
class Shown(Generic[R]):
    """What a lesson shows: measured here and now, or, with the ``reason`` why that cannot be, from a recording."""

    result: R
    recording: Recording[R] | None = None
    reason: str = ""

    def __str__(self) -> str:
        """Return what must stand beside a recording; nothing for what was measured."""
        return "" if self.recording is None else f"{self.reason.rstrip('.')}. Shown instead: {self.recording}"


def write_recording(result: R, *, name: str, accelerator: str, folder: Path = FOLDER) -> Path:
    """Write ``result`` as the recording ``name``, whole or not at all; return its path. Raises: OSError."""
    told = anonymous({"accelerator": accelerator, "host": host_facts().to_json(), "result": result.to_json()})
    content = {"format": _FORMAT, "name": name, **told}
    content["sha256"] = _digest(content)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    partial = folder / f".{name}.{os.getpid()}.partial"
    partial.write_text(json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
    partial.replace(path)
    return path


def read_recording(name: str, kind: type[R], *, folder: Path = FOLDER) -> Recording[R]:
    """Return the recording ``name``, whose result is a ``kind``. Raises: InvalidSpec for what is none, in one sentence."""
    path = folder / f"{name}.json"
    try:
        content = _content(path, name)
        for hint, key in ((HostFacts, "host"), (kind, "result"), (str, "accelerator")):
            _demand(hint, content[key], key)
        return Recording(
            name, content["accelerator"], HostFacts.from_json(content["host"]), kind.from_json(content["result"])
        )
    except (OSError, ValueError, RecursionError) as error:  # InvalidSpec is a ValueError
        why = (error.strerror if isinstance(error, OSError) else str(error)) or type(error).__name__
        raise InvalidSpec(
            f"The recording {path.name} cannot be used, because {why.rstrip('.')}: install labkit again, or make it "
            f"on a machine that can, with `labkit record --only {name}`."
        ) from error


def anonymous(value: Any) -> Any:
    """Return ``value`` (as `Result.to_json` gives it) without the host's name and its folders, in all texts."""
    if isinstance(value, dict):
        return {key: anonymous(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [anonymous(item) for item in value]
    if not isinstance(value, str):
        return value
    for pattern, instead in _private_words():
        value = pattern.sub(instead, value)
    return value


def _private_words() -> list[tuple[re.Pattern[str], str]]:
    names = {socket.gethostname(), os.uname().nodename, socket.gethostname().partition(".")[0]} - {"localhost"}
    own_groups = {line.path for line in read_cgroup()}
    folders = {str(FOLDER.parents[1]), str(Path.cwd()), sys.prefix, str(Path.home()), *own_groups} - {"/", "/usr"}
    words = [(name, "the-host") for name in names if len(name) >= _LONG_ENOUGH]
    words += [(folder, "…") for folder in sorted(folders, key=len, reverse=True)]
    return [(re.compile(rf"(?<![\w.-]){re.escape(word)}(?![\w-])"), instead) for word, instead in words]


def _content(path: Path, name: str) -> dict[str, Any]:
    """Return what the file says if it is a whole recording called ``name``. Raises: OSError, ValueError."""
    with path.open("rb") as file:
        raw = file.read(_MOST_BYTES + 1)
    if len(raw) > _MOST_BYTES:
        raise ValueError("it is larger than any recording")
    try:
        content = json.loads(raw, parse_constant=_no_number)
    except ValueError as error:
        raise ValueError(f"it is damaged ({error})") from error
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        raise ValueError("`labkit record` of this version did not write it")
    if set(content) != _KEYS or content["name"] != name:
        raise ValueError(f"it is another one, or has other parts than {', '.join(sorted(_KEYS))}")
    if content["sha256"] != _digest({key: item for key, item in content.items() if key != "sha256"}):
        raise ValueError("it was changed after it had been made")
    return content


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is no number")


def _digest(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _demand(hint: Any, value: Any, where: str) -> None:
    """Raise ValueError unless ``value`` is exactly what `Result.to_json` makes of a value of type ``hint``."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if value is not None:
            _demand(next(one for one in arguments if one is not type(None)), value, where)
    elif origin is tuple:
        _demand_items(arguments, value, where)
    elif isinstance(hint, type) and issubclass(hint, Result):
        _demand_fields(hint, value, where)
    elif hint is float and type(value) in (int, float):
        if not math.isfinite(value):
            raise ValueError(f"{where} is no number")
    elif type(value) is not hint:
        raise ValueError(f"{where} is {type(value).__name__}, not {getattr(hint, '__name__', hint)}")


def _demand_items(hints: tuple[Any, ...], value: Any, where: str) -> None:
    if not isinstance(value, list):
        raise ValueError(f"{where} is no list")
    wanted = [hints[0]] * len(value) if len(hints) == 2 and hints[1] is Ellipsis else list(hints)
    if len(wanted) != len(value):
        raise ValueError(f"{where} has {len(value)} items, not {len(wanted)}")
    for number, (hint, item) in enumerate(zip(wanted, value, strict=True)):
        _demand(hint, item, f"{where}[{number}]")


def _demand_fields(kind: type[Result], value: Any, where: str) -> None:
    hints = typing.get_type_hints(kind)
    names = {field.name for field in dataclasses.fields(typing.cast(Any, kind))}
    if not isinstance(value, dict) or set(value) != names:
        odd = sorted(set(value) ^ names) if isinstance(value, dict) else ["everything"]
        raise ValueError(f"{where} is no {kind.__name__} of this version ({', '.join(odd)})")
    for name in names:
        _demand(hints[name], value[name], f"{where}.{name}")

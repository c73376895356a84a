"""HEALTHCHECK: how an image says that its program is well. A build keeps it as data; an engine acts on it.

``HEALTHCHECK --interval=30s CMD curl -f http://localhost/`` becomes ``{"Test": ["CMD-SHELL", "curl …"], "Interval": 30000000000}``:
durations are whole nanoseconds in the image's config.

See: dockerfile(5), "HEALTHCHECK"; Docker Image Specification v1.2, "Healthcheck".
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from labkit.image.build.errors import ContainerfileError
from labkit.image.build.words import parse_json

__all__ = ["parse_duration_ns", "parse_healthcheck"]

_UNITS_NS = {
    "h": 3_600_000_000_000,
    "m": 60_000_000_000,
    "s": 1_000_000_000,
    "ms": 1_000_000,
    "us": 1_000,
    "µs": 1_000,
    "ns": 1,
}
_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(h|ms|m|s|us|µs|ns)")
_NAMES = {
    "interval": "Interval",
    "timeout": "Timeout",
    "start-period": "StartPeriod",
    "start-interval": "StartInterval",
}


def parse_healthcheck(
    rest: str, flags: Mapping[str, str], *, line: int
) -> tuple[tuple[str, ...], tuple[tuple[str, int], ...], int]:
    """Return test, durations and retries as the config has them. Raises: ContainerfileError."""
    if not rest:
        raise ContainerfileError("HEALTHCHECK requires at least one argument: CMD command, or NONE", line=line)
    kind, _, command = rest.partition(" ")
    command = command.strip()
    if kind.upper() == "NONE":
        if command:
            raise ContainerfileError("HEALTHCHECK NONE takes no arguments", line=line)
        return ("NONE",), (), 0
    if kind.upper() != "CMD":
        raise ContainerfileError(f"Unknown type {kind!r} in HEALTHCHECK (try CMD)", line=line)
    words = parse_json(command, line=line)
    if not (command if words is None else words):
        raise ContainerfileError("Missing command after HEALTHCHECK CMD", line=line)
    test = ("CMD-SHELL", command) if words is None else ("CMD", *words)
    durations = tuple((key, parse_duration_ns(flags[name], line=line)) for name, key in _NAMES.items() if name in flags)
    return test, durations, _retries(flags.get("retries", "0"), line=line)


def parse_duration_ns(text: str, *, line: int = 0) -> int:
    """Return a duration such as ``1m30s`` in nanoseconds. Raises: ContainerfileError; it must be 0 or at least 1 ms."""
    parts = _PART.findall(text)
    if text != "0" and (not parts or "".join(number + unit for number, unit in parts) != text):
        raise ContainerfileError(f"invalid duration {text!r}: write for example 30s, 500ms or 1m30s", line=line)
    duration_ns = round(sum(float(number) * _UNITS_NS[unit] for number, unit in parts))
    if 0 < duration_ns < _UNITS_NS["ms"]:
        raise ContainerfileError(f"duration {text!r} must be at least 1ms", line=line)
    return duration_ns


def _retries(text: str, *, line: int) -> int:
    if not text.isascii() or not text.isdigit():
        raise ContainerfileError(f"--retries must be a whole number of at least 0, not {text!r}", line=line)
    return int(text)

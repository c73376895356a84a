"""Sizes, CPU counts and durations as people write them: ``64M``, ``1.5GiB``, ``.5``, ``250ms``.

Sizes follow the habit of Docker and systemd: ``K``, ``M``, ``G``, ``T`` are powers of 1024, and so are
``KiB`` and ``kB``-less spellings. Only ``kB``, ``MB``, ``GB``, ``TB`` *with* the letter B and without the ``i`` are
powers of 1000 in the SI sense; to avoid the classic mistake labkit refuses them and names both readings.

Leaves out: bits, exabytes, negative numbers.
See: units(7), systemd.resource-control(5) (MemoryMax=).
"""

from __future__ import annotations

import math
import re

from labkit.errors import InvalidSpec

__all__ = ["GiB", "KiB", "MiB", "TiB", "format_bytes", "parse_bytes", "parse_count", "parse_cpus", "parse_seconds"]

KiB = 1024
MiB = 1024 * KiB
GiB = 1024 * MiB
TiB = 1024 * GiB

_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?|\.\d+)\s*([A-Za-z]*)\s*\Z", re.ASCII)
_FACTORS = {"": 1, "b": 1}
for _letter, _factor in (("k", KiB), ("m", MiB), ("g", GiB), ("t", TiB)):
    _FACTORS[_letter] = _FACTORS[_letter + "ib"] = _factor
_SECONDS = {"": 1.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "m": 60.0, "min": 60.0, "h": 3600.0}


def parse_bytes(text: str | int) -> int:
    """Return the number of bytes that ``text`` names; an ``int`` is taken as bytes already.

    Raises: InvalidSpec for an unknown suffix (``64Q``), a negative number, or the ambiguous ``64MB``.
    """
    if isinstance(text, int) and not isinstance(text, bool):
        return _not_negative(text, "a size")
    match = _SIZE.match(str(text))
    if match is None:
        raise InvalidSpec(f"{text!r} is no size: write a number and K, M, G or T, as in 64M.")
    number, suffix = match.group(1), match.group(2).lower()
    if suffix in ("kb", "mb", "gb", "tb"):
        raise InvalidSpec(
            f"{text!r} could mean powers of 1000 or of 1024: write {number}{suffix[0].upper()} for 1024, or the number of bytes."
        )
    if suffix not in _FACTORS:
        raise InvalidSpec(f"{text!r} has an unknown unit {match.group(2)!r}: use K, M, G or T, as in 64M.")
    return _finite_bytes(float(number), _FACTORS[suffix], text) if "." in number else int(number) * _FACTORS[suffix]


def format_bytes(size_bytes: int) -> str:
    """Return ``size_bytes`` with the largest binary unit that keeps it at 1 or more: ``64 MiB``, ``1.5 GiB``."""
    for name, factor in (("TiB", TiB), ("GiB", GiB), ("MiB", MiB), ("KiB", KiB)):
        if abs(size_bytes) >= factor:
            return f"{size_bytes / factor:.4g} {name}"
    return f"{size_bytes} B"


def parse_cpus(text: str | float) -> float:
    """Return a number of CPUs (``.5`` is half of one). Raises: InvalidSpec unless it is positive and finite."""
    try:
        cpus = float(text)
    except ValueError:
        raise InvalidSpec(f"{text!r} is no number of CPUs: write for example 0.5 or 2.") from None
    if not math.isfinite(cpus) or cpus <= 0:
        raise InvalidSpec(f"{text!r} CPUs cannot be given out: the number must be above 0, as in 0.5.")
    return cpus


def parse_count(text: str | int, *, what: str) -> int:
    """Return a whole number above 0 of ``what``. Raises: InvalidSpec naming ``what``."""
    try:
        count = int(text)
    except ValueError:
        raise InvalidSpec(f"{text!r} is no number of {what}: write a whole number, as in 32.") from None
    if count <= 0:
        raise InvalidSpec(f"{count} is no number of {what}: it must be at least 1.")
    return count


def parse_seconds(text: str | float) -> float:
    """Return a duration in seconds: ``2``, ``250ms``, ``1.5m``. Raises: InvalidSpec."""
    if isinstance(text, (int, float)):
        text = repr(text)
    match = _SIZE.match(text)
    if match is None or match.group(2).lower() not in _SECONDS:
        raise InvalidSpec(f"{text!r} is no duration: write for example 2, 250ms or 1.5m.")
    return float(match.group(1)) * _SECONDS[match.group(2).lower()]


def _not_negative(number: int, what: str) -> int:
    if number < 0:
        raise InvalidSpec(f"{number} is no {what.removeprefix('a ')}: it must not be negative.")
    return number


def _finite_bytes(number: float, factor: int, text: str | int) -> int:
    size = number * factor
    if not math.isfinite(size):
        raise InvalidSpec(f"{text!r} is too large to be a size.")
    return round(size)

"""Sizes, CPU counts and durations as people write them: ``64M``, ``1.5GiB``, ``.5``, ``250ms``.

``K``, ``M``, ``G``, ``T`` and ``KiB``, ``MiB``, ``GiB``, ``TiB`` are powers of 1024, in either case, as Docker and systemd
take them. ``kB``, ``MB``, ``GB`` and ``TB`` mean powers of 1000 to some programs and of 1024 to others: they are refused,
and the error names both readings.

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

#: A number and a unit. No sign, no exponent, no ``_``; and no more digits than the kernel's 64 bits can hold.
_QUANTITY = re.compile(r"\s*(\d{1,20}(?:\.\d{1,20})?|\.\d{1,20})\s*([A-Za-z]*)\s*\Z", re.ASCII)
_LARGEST_BYTES = 2**63 - 1
_FACTORS = {"": 1, "b": 1}
for _letter, _factor in (("k", KiB), ("m", MiB), ("g", GiB), ("t", TiB)):
    _FACTORS[_letter] = _FACTORS[_letter + "ib"] = _factor
_SECONDS = {"": 1.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "m": 60.0, "min": 60.0, "h": 3600.0}


def parse_bytes(text: str | int) -> int:
    """Return the number of bytes that ``text`` names; an ``int`` is taken as bytes already.

    Raises: InvalidSpec for an unknown suffix (``64Q``), a negative number, one past 63 bits, or the ambiguous ``64MB``.
    """
    if isinstance(text, int) and not isinstance(text, bool):
        return _checked_bytes(text, text)
    match = _QUANTITY.match(str(text))
    if match is None:
        raise InvalidSpec(f"{text!r} is no size: write a number and K, M, G or T, as in 64M.")
    number, suffix = match.group(1), match.group(2).lower()
    if suffix in ("kb", "mb", "gb", "tb"):
        letter = suffix[0].upper()
        raise InvalidSpec(
            f"{text!r} could mean powers of 1000 or of 1024: write {number}{letter} for 1024, or the number of bytes."
        )
    if suffix not in _FACTORS:
        raise InvalidSpec(f"{text!r} has an unknown unit {match.group(2)!r}: use K, M, G or T, as in 64M.")
    factor = _FACTORS[suffix]
    return _checked_bytes(round(float(number) * factor) if "." in number else int(number) * factor, text)


def format_bytes(size_bytes: int) -> str:
    """Return ``size_bytes`` to two decimals with the largest unit that keeps it at 1 or more: ``64 MiB``, ``1.5 GiB``."""
    for name, factor in (("TiB", TiB), ("GiB", GiB), ("MiB", MiB), ("KiB", KiB)):
        # What the next smaller unit would show as 1024.00 is 1 of this one.
        if round(abs(size_bytes) * KiB / factor, 2) >= KiB:
            return f"{size_bytes / factor:.2f}".rstrip("0").rstrip(".") + f" {name}"
    return f"{size_bytes} B"


def parse_cpus(text: str | float) -> float:
    """Return a number of CPUs (``.5`` is half of one). Raises: InvalidSpec unless it is positive and finite."""
    cpus = _plain_number(text)
    if cpus is None:
        raise InvalidSpec(f"{text!r} is no number of CPUs: write for example 0.5 or 2.")
    if not math.isfinite(cpus) or cpus <= 0:
        raise InvalidSpec(f"{text!r} CPUs cannot be given out: the number must be above 0, as in 0.5.")
    return cpus


def parse_count(text: str | int, *, what: str) -> int:
    """Return a whole number above 0 of ``what``. Raises: InvalidSpec naming ``what``."""
    count = _plain_number(text)
    if count is None or not count.is_integer() or "." in str(text):
        raise InvalidSpec(f"{text!r} is no number of {what}: write a whole number, as in 32.")
    if count <= 0:
        raise InvalidSpec(f"{text} is no number of {what}: it must be at least 1.")
    return int(text)


def parse_seconds(text: str | float) -> float:
    """Return a duration in seconds: ``2``, ``250ms``, ``1.5m``. Raises: InvalidSpec."""
    if isinstance(text, (int, float)) and not isinstance(text, bool):
        if math.isfinite(text) and text >= 0:
            return float(text)
    elif (match := _QUANTITY.match(str(text))) and match.group(2).lower() in _SECONDS:
        return float(match.group(1)) * _SECONDS[match.group(2).lower()]
    raise InvalidSpec(f"{text!r} is no duration: write for example 2, 250ms or 1.5m.")


def _plain_number(text: str | float) -> float | None:
    """Return ``text`` as a number; None for what only Python takes for one (``1_0``, ``True``, ``1e3``)."""
    if isinstance(text, bool):
        return None
    if isinstance(text, (int, float)):
        return float(text)
    match = re.fullmatch(r"\s*([+-]?(?:\d{1,20}(?:\.\d{0,20})?|\.\d{1,20}))\s*", str(text), re.ASCII)
    return float(match.group(1)) if match else None


def _checked_bytes(size_bytes: int, text: str | int) -> int:
    if size_bytes < 0:
        raise InvalidSpec(f"{text} is no size: it must not be negative.")
    if size_bytes > _LARGEST_BYTES:
        raise InvalidSpec(f"{text} is too large to be a size: the kernel counts bytes in 63 bits.")
    return size_bytes

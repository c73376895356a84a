"""Tables and texts of the image commands.

Names and settings of images are anybody's text, so whatever could move a terminal's cursor is shown as ``?``.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Sequence

__all__ = ["age_of", "clean", "print_table"]


def clean(text: str) -> str:
    """Return ``text`` without characters that a terminal would act on."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def print_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print rows under ``head`` in columns as wide as their widest cell."""
    lines = [list(head), *([clean(cell) for cell in row] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head) - 1)]
    for line in lines:
        print("  ".join([*(cell.ljust(width) for cell, width in zip(line, widths, strict=False)), line[-1]]).rstrip())


def age_of(created: str, now: datetime.datetime | None = None) -> str:
    """Return how long ago a time as images write it was; nothing for none, ``long ago`` for reproducible builds' 1970."""
    try:
        then = datetime.datetime.fromisoformat(created)
    except ValueError:
        return ""
    if then.tzinfo is None:
        then = then.replace(tzinfo=datetime.UTC)
    if then.year < 1990:
        return "long ago"
    seconds = ((now or datetime.datetime.now(datetime.UTC)) - then).total_seconds()
    for unit, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit} ago"
    return f"{max(0, seconds):.0f} seconds ago"

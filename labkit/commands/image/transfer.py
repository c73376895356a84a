"""What ``pull`` and ``push`` show: a line a layer, redrawn while it moves on a terminal, and one line a step elsewhere.

See: docker-pull(1).
"""

from __future__ import annotations

import argparse
import shutil
import time
from typing import TextIO

from labkit.errors import InvalidSpec
from labkit.image.descriptor import Platform
from labkit.image.registry.progress import Event, Transfer
from labkit.units import format_bytes

__all__ = ["Lines", "add_registry_arguments", "parse_platform", "summary"]

_FRAME_S = 0.1
_BAR = 24
_MOVING = ("Downloading", "Pushing")


def add_registry_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that whoever talks to a registry has."""
    parser.add_argument("--insecure", action="store_true", help="allow plain HTTP to another machine than this one")
    parser.add_argument("-q", "--quiet", action="store_true", help="print the digest alone")


def parse_platform(text: str | None) -> Platform | None:
    """Return the platform that ``OS/ARCHITECTURE[/VARIANT]`` names. Raises: InvalidSpec."""
    if text is None:
        return None
    words = text.split("/")
    if len(words) not in (2, 3) or not all(word.isalnum() for word in words):
        raise InvalidSpec(f"{text!r} is no platform: write OS/ARCHITECTURE, as in linux/arm64.")
    return Platform(words[1], words[0], words[2] if len(words) == 3 else "")


def summary(transfer: Transfer) -> str:
    """Return in a line how much travelled and how much was spared."""
    moved, shared = transfer.bytes_of("moved"), transfer.bytes_of("shared", "mounted")
    return f"{format_bytes(moved)} moved, {format_bytes(shared)} shared"


class Lines:
    """Shows events on ``out``. On a terminal the lines of all layers are drawn again and again, in place."""

    def __init__(self, out: TextIO, *, quiet: bool = False) -> None:
        self._out, self._quiet = out, quiet
        self._is_terminal = out.isatty()
        self._lines: dict[str, str] = {}
        self._drawn, self._drawn_s = 0, 0.0

    def __call__(self, event: Event) -> None:
        """Show one event."""
        if self._quiet:
            return
        is_new = event.status not in _MOVING
        self._lines[event.id] = f"{event.id}: {event.text}" if is_new else f"{event.id}: {event.text} {_bar(event)}"
        if not self._is_terminal:
            if is_new:
                print(self._lines[event.id], file=self._out, flush=True)
        elif is_new or time.monotonic() - self._drawn_s >= _FRAME_S:
            self._draw()

    def _draw(self) -> None:
        width = shutil.get_terminal_size().columns
        up = f"\x1b[{self._drawn}A" if self._drawn else ""
        text = "".join(f"\x1b[2K{line[: width - 1]}\n" for line in self._lines.values())
        self._out.write(up + text)
        self._out.flush()
        self._drawn, self._drawn_s = len(self._lines), time.monotonic()


def _bar(event: Event) -> str:
    filled = _BAR * event.current // max(1, event.total)
    bar = "=" * filled + ">" * (filled < _BAR)
    return f"[{bar:{_BAR}}] {format_bytes(event.current)} of {format_bytes(event.total)}"

"""A sheet to draw on: boxes, words and arrows, written as an SVG file of a few kilobytes.

Pictures of the course that show no measurement are drawn by programs, too: whoever finds an error in one corrects a line and draws it
again. The file is the same byte for byte on every machine, because nothing in it is measured, dated or random. Words stay words, so they
can be searched and copied, and a screen reader finds title and description. A sheet brings its own paper, as figures do
(`labkit.charts.theme`), and reads on a light and on a dark page.

Every word is kept with the room that it has and the colour behind it, so that a test can find words that are cut, cover one another, or
are too pale.

Leaves out: automatic layout (whoever draws knows better); curves; gradients.
See: SVG 2; WCAG 2.2, 1.4.3 (contrast); CommonMark, "Images".
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from typing import Literal

from labkit.charts.theme import INK, LOOKS, PAPER
from labkit.errors import InvalidSpec

__all__ = ["FILLS", "FONT", "NORMAL", "SMALL", "Box", "Line", "Point", "Sheet", "Words"]

#: The first one is what the tests measure with; the others are no wider.
FONT = "'DejaVu Sans', Verdana, Geneva, Arial, sans-serif"
#: Sizes in pixels: names, and what is said about them.
NORMAL, SMALL = 14, 12
_LEADING = 1.3
#: A light fill for each concept of the course; the edge has the concept's own colour.
FILLS = {
    "plain": PAPER,
    "host": "#ececec",
    "process": "#dfecf9",
    "namespace": "#e4f3fb",
    "container": "#fcebdf",
    "vm": "#f7e5f0",
    "peer": "#f4f4f4",
}
Point = tuple[float, float]
Align = Literal["start", "middle", "end"]


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle on the sheet, with the points at which arrows begin and end."""

    x: float
    y: float
    width: float
    height: float

    @property
    def right(self) -> float:
        """The x of the right edge."""
        return self.x + self.width

    @property
    def bottom(self) -> float:
        """The y of the lower edge (y grows downwards)."""
        return self.y + self.height

    def side(self, name: Literal["left", "right", "top", "bottom"], along: float = 0.5) -> Point:
        """Return the point on an edge, ``along`` of the way from its left or upper end."""
        if name in ("left", "right"):
            return (self.x if name == "left" else self.right, self.y + along * self.height)
        return (self.x + along * self.width, self.y if name == "top" else self.bottom)


@dataclass(frozen=True, slots=True)
class Words:
    """One line of text: where its baseline is, how it is set, how much room it has (px), and the colour behind it."""

    x: float
    y: float
    text: str
    size: int
    bold: bool
    align: Align
    room: float
    behind: str


@dataclass(frozen=True, slots=True)
class Line:
    """One straight piece of an arrow or a rule."""

    start: Point
    end: Point


class Sheet:
    """One picture in the making. ``alt`` says in words what it shows; lessons show the picture with the same words."""

    def __init__(self, *, width: int, height: int, title: str, alt: str) -> None:
        if not title.strip() or not alt.strip():
            raise InvalidSpec("a picture needs a title and a text that says what it shows (alt).")
        self.width, self.height = width, height
        self.title, self.alt = title, " ".join(alt.split())
        self.words: list[Words] = []
        self.boxes: list[Box] = []
        self.lines: list[Line] = []
        self._parts: list[str] = []
        self.write((20, 32), title, size=17, bold=True, room=width - 40)

    def box(self, x: float, y: float, width: float, height: float, text: str = "", *, concept: str = "plain",
            note: str = "", top: bool = False, dashed: bool = False) -> Box:  # fmt: skip
        """Draw a box with ``text`` in bold and a smaller ``note`` below it, in its middle or at its ``top``."""
        made = Box(x, y, width, height)
        self.boxes.append(made)
        edge = INK if concept == "plain" else LOOKS[concept].colour
        dash = ' stroke-dasharray="6 4"' if dashed else ""
        self._parts.append(
            f'<rect x="{_n(x)}" y="{_n(y)}" width="{_n(width)}" height="{_n(height)}" rx="6" fill="{FILLS[concept]}" '
            f'stroke="{edge}" stroke-width="1.6"{dash}/>'
        )
        lines = [(line, NORMAL, True) for line in text.splitlines()] + [
            (line, SMALL, False) for line in note.splitlines()
        ]
        tall = sum(size * _LEADING for _, size, _ in lines)
        at = y + (8 if top else (height - tall) / 2)
        for line, size, bold in lines:
            at += size * _LEADING
            self._put(Words(x + width / 2, at - 0.32 * size, line, size, bold, "middle", width - 10, FILLS[concept]))
        return made

    def write(self, at: Point, text: str, *, size: int = SMALL, bold: bool = False, align: Align = "start",
              room: float = math.inf, on: str = "plain") -> None:  # fmt: skip
        """Write lines of text whose first baseline is at ``at``; ``on`` names the concept of the box below them."""
        for number, line in enumerate(text.splitlines()):
            self._put(Words(at[0], at[1] + number * size * _LEADING, line, size, bold, align, room, FILLS[on]))

    def arrow(self, *points: Point, concept: str = "plain", both: bool = False, dashed: bool = False,
              head: bool = True) -> None:  # fmt: skip
        """Draw an arrow through ``points``, with a head at the last one (and, with ``both``, at the first one, too)."""
        colour = INK if concept == "plain" else LOOKS[concept].colour
        dash = ' stroke-dasharray="6 4"' if dashed else ""
        path = " L ".join(f"{_n(x)} {_n(y)}" for x, y in points)
        self._parts.append(f'<path d="M {path}" fill="none" stroke="{colour}" stroke-width="1.8"{dash}/>')
        self.lines += [Line(start, end) for start, end in pairwise(points)]
        if head:
            self._head(points[-2], points[-1], colour)
        if both:
            self._head(points[1], points[0], colour)

    def svg(self) -> str:
        """Return the picture as the text of an SVG file."""
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{self.width}" height="{self.height}" '
            f'viewBox="0 0 {self.width} {self.height}" role="img" aria-labelledby="title alt" font-family="{FONT}">'
        )
        words = [f'<title id="title">{escape(self.title)}</title>', f'<desc id="alt">{escape(self.alt)}</desc>']
        paper = f'<rect width="{self.width}" height="{self.height}" rx="8" fill="{PAPER}"/>'
        return "\n".join([head, *words, paper, *self._parts, "</svg>"]) + "\n"

    def _put(self, words: Words) -> None:
        self.words.append(words)
        weight = ' font-weight="bold"' if words.bold else ""
        anchor = "" if words.align == "start" else f' text-anchor="{words.align}"'
        place = f'x="{_n(words.x)}" y="{_n(words.y)}" font-size="{words.size}" fill="{INK}"'
        self._parts.append(f"<text {place}{weight}{anchor}>{escape(words.text, quote=False)}</text>")

    def _head(self, before: Point, tip: Point, colour: str) -> None:
        angle = math.atan2(tip[1] - before[1], tip[0] - before[0])
        wings = [(tip[0] - 10 * math.cos(angle + turn), tip[1] - 10 * math.sin(angle + turn)) for turn in (0.42, -0.42)]
        points = " ".join(f"{_n(x)},{_n(y)}" for x, y in (tip, *wings))
        self._parts.append(f'<polygon points="{points}" fill="{colour}"/>')


def _n(number: float) -> str:
    """Return a coordinate with at most one decimal: the same text on every machine."""
    return f"{number:.1f}".removesuffix(".0")

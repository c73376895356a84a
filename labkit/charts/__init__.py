"""Charts: one ``draw(ax, result)`` a figure, from data that `labkit.measure` took. No chart measures anything.

Read in this order: `theme` (how a concept looks, everywhere in the course), `show` (the only way to put a figure into a
notebook), `frames` (the same figure drawn five times a second, cheaply). matplotlib loads when the first figure is made.

Leaves out: interactive figures; a live view redraws a picture and says it in words beside it.
"""

from __future__ import annotations

from labkit.charts.frames import Chart, Frames
from labkit.charts.show import Picture, show
from labkit.charts.theme import Bar, Look, bars, context, figure, label_axes, line, look

__all__ = [
    "Bar",
    "Chart",
    "Frames",
    "Look",
    "Picture",
    "bars",
    "context",
    "figure",
    "label_axes",
    "line",
    "look",
    "show",
]

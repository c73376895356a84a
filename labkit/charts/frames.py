"""The same figure again and again, for a live view: only what moved is drawn, and the rest is copied.

Drawing a whole figure costs some 40 ms, most of it text and ticks. So the still part (axes, ticks, titles) is drawn once and kept as
pixels; a frame copies those pixels back, draws the few artists that moved over them, and packs the result as a PNG with a palette: a few
milliseconds in all. When an axis must change its range, the chart says so and the whole is drawn again, at most
once a second; until then the frame is drawn over the old axes.

No pyplot and no changed defaults while drawing, so a thread may do it.

Leaves out: animations saved to a file; figures larger than the page.
See: "Faster rendering by using blitting" (matplotlib's documentation).
"""

from __future__ import annotations

import io
import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from labkit.charts import theme

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.figure import Figure

__all__ = ["Chart", "Frames"]

#: Shortest time between two drawings of the whole figure.
WHOLE_EVERY_S = 1.0
_COLOURS = 128

Sample = TypeVar("Sample", contravariant=True)


class Chart(Protocol[Sample]):
    """What a live picture must know: how to lay itself out once, and how to move with a sample."""

    def setup(self, figure: Figure) -> Sequence[Artist | Iterable[Artist]]:
        """Make the axes in ``figure`` (called once, in the course's look); return the artists that `update` will move."""

    def update(self, sample: Sample) -> bool | None:
        """Move the artists to ``sample`` (called for each frame, in a thread); True if axes changed their range too."""


class Frames:
    """One chart on one figure; `png` moves it to a sample and returns the picture."""

    def __init__(self, chart: Chart[Any], *, width_in: float = 6.4, height_in: float = 2.6) -> None:
        self.chart = chart
        self.wholes_drawn = 0
        self._stale = True
        self._drawn_s = -WHOLE_EVERY_S
        self._background: Any = None
        with theme.context():
            from matplotlib.backends.backend_agg import FigureCanvasAgg
            from matplotlib.figure import Figure

            self._figure = Figure(figsize=(width_in, height_in), layout="constrained")
            self._canvas: Any = FigureCanvasAgg(self._figure)
            self._moving = _flat(chart.setup(self._figure))
        for artist in self._moving:
            artist.set_animated(True)
        self._moving.sort(key=lambda artist: artist.get_zorder())

    @property
    def width_px(self) -> int:
        """How wide the picture is shown, in CSS pixels; it holds more pixels than that."""
        return round(self._figure.get_figwidth() * theme.SHOWN_DPI)

    def png(self, sample: Any) -> bytes:
        """Return the picture of ``sample``. Called by one thread at a time."""
        self._stale = bool(self.chart.update(sample)) or self._stale
        now = time.monotonic()
        if self._stale and now - self._drawn_s >= WHOLE_EVERY_S:
            self._draw_whole()
            self._drawn_s, self._stale = now, False
        self._canvas.restore_region(self._background)
        for artist in self._moving:
            if artist.axes is not None:
                artist.axes.draw_artist(artist)
            else:
                self._figure.draw_artist(artist)
        return _packed(self._canvas.buffer_rgba())

    def _draw_whole(self) -> None:
        """Draw all that stands still and keep its pixels."""
        self._canvas.draw()
        if self.wholes_drawn == 0:
            # The places are found once: a layout that is computed anew would make the axes jump when a tick label grows.
            self._figure.set_layout_engine("none")
        self._background = self._canvas.copy_from_bbox(self._figure.bbox)
        self.wholes_drawn += 1


def _flat(artists: Iterable[Artist | Iterable[Artist]]) -> list[Artist]:
    """Return ``artists`` with containers (of bars, of error bars) taken apart."""
    flat: list[Artist] = []
    for artist in artists:
        flat.extend(_flat(artist) if isinstance(artist, Iterable) else [artist])
    return flat


def _packed(rgba: memoryview) -> bytes:
    """Return the pixels as PNG with a palette: a third of the bytes of full colour for a millisecond more."""
    import numpy
    from PIL import Image

    pixels = Image.fromarray(numpy.asarray(rgba)[:, :, :3])
    packed = io.BytesIO()
    palette = pixels.quantize(_COLOURS, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    palette.save(packed, format="png", compress_level=1)
    return packed.getvalue()

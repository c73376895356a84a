"""A frame is drawn from what moved, and looks as if all of it had been drawn."""

from __future__ import annotations

import io
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from PIL import Image

from labkit.charts import Frames, context, label_axes, line, look
from labkit.charts import frames as frames_module


class Bars:
    """Two bars and a line of text that move; ``limit`` is where the axis ends."""

    def __init__(self) -> None:
        self.limit = 10.0

    def setup(self, figure: Any) -> Sequence[Any]:
        """Make the axes."""
        self.axes = figure.add_subplot()
        label_axes(self.axes, title="They move", x="size (MiB)", y=None)
        self.axes.set_xlim(0, self.limit)
        self.bars = self.axes.barh([0, 1], [0, 0], **look("vm").bar_keywords)
        self.line = line(self.axes, [0, 0], [0, 1], concept="process")
        self.words = figure.text(0.9, 0.9, "")
        return [self.bars, self.line, self.words]

    def update(self, sample: float) -> bool:
        """Move to ``sample``; grow the axis when it is passed."""
        for bar in self.bars:
            bar.set_width(sample)
        self.line.set_xdata([sample, sample])
        self.words.set_text(f"{sample:g}")
        if sample > self.limit:
            self.limit = sample * 2
            self.axes.set_xlim(0, self.limit)
            return True
        return False


def pixels(png: bytes) -> np.ndarray:
    """Return the picture as numbers."""
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)


def test_a_frame_after_many_is_the_frame_that_would_have_been_drawn_first() -> None:
    moved = Frames(Bars())
    for sample in (9, 1, 5):
        late = moved.png(sample)
    first = Frames(Bars()).png(5)
    assert np.abs(pixels(late) - pixels(first)).max() <= 8, "the palette may differ by a shade"
    assert moved.wholes_drawn == 1


def test_a_new_range_is_drawn_at_once_or_after_a_second_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    frames = Frames(Bars())
    frames.png(1)
    frames.png(50)
    assert frames.wholes_drawn == 1, "within a second, the frame is drawn over the old axes"
    monkeypatch.setattr(frames_module, "WHOLE_EVERY_S", 0.0)
    frames.png(60)
    assert frames.wholes_drawn == 2
    frames.png(61)
    assert frames.wholes_drawn == 2


def test_paper_is_white_and_the_picture_sharp_and_small() -> None:
    frames = Frames(Bars())
    png = frames.png(5)
    picture = pixels(png)
    assert picture[0, 0].min() >= 252
    assert picture.shape[1] == frames.width_px * 1.5
    assert len(png) < 40_000


def test_frames_are_cheap() -> None:
    frames = Frames(Bars())
    frames.png(1)
    begun_s = time.thread_time()
    for sample in range(20):
        frames.png(sample % 10)
    each_ms = (time.thread_time() - begun_s) / 20 * 1000
    assert each_ms < 20, f"{each_ms:.1f} ms a frame: five a second would take {each_ms / 2:.0f} % of a core"


def test_the_chart_is_laid_out_in_the_look_of_the_course() -> None:
    chart = Bars()
    Frames(chart)
    with context():
        assert chart.axes.spines["right"].get_visible() is False

from __future__ import annotations

import pytest

from labkit.charts import theme
from labkit.charts.build_cache import BuildsChart, draw, finding, words_for
from labkit.charts.frames import Frames
from labkit.measure.builds import BuildRun, BuildStep

HIT = BuildStep("RUN install", cached=True, why="", elapsed_s=0.001)
MISS = BuildStep("COPY app.py /", cached=False, why="app.py changed", elapsed_s=0.25)
GOOD = BuildRun("good", "sha256:x", (HIT, MISS), 0.3)
BAD = BuildRun(
    "bad",
    "sha256:y",
    (MISS, BuildStep("RUN install", cached=False, why="a step before it changed", elapsed_s=1.5)),
    1.8,
)


@pytest.mark.parametrize(
    ("runs", "title"),
    [
        ((), "No build yet"),
        ((GOOD,), "good: 1 of 2 steps came from the cache (0.30 s)"),
        ((BAD, GOOD), "The same change, 2 orders of instructions: bad 1.80 s, good 0.30 s"),
    ],
)
def test_the_title_states_the_finding(runs: tuple[BuildRun, ...], title: str) -> None:
    assert finding(runs) == title


def test_a_step_says_that_it_was_cached_or_why_not() -> None:
    assert words_for(HIT) == "cached"
    assert words_for(MISS) == "0.25 s: app.py changed"


def test_bars_begin_at_zero_and_are_as_long_as_the_step_took() -> None:
    _, [axes] = theme.figure()
    draw(axes, (BAD, GOOD))
    assert [bar.get_width() for bar in axes.patches] == [0.25, 1.5, 0.0, 0.25]
    assert axes.get_xlim()[0] == 0
    assert [label.get_text() for label in axes.get_yticklabels()] == [
        "COPY app.py /",
        "RUN install",
        "RUN install",
        "COPY app.py /",
    ]


def test_the_live_picture_is_drawn_again_only_after_a_build() -> None:
    frames = Frames(BuildsChart(), width_in=6, height_in=3)
    first = frames.png((GOOD,))
    assert frames.png((GOOD,)) == first
    assert frames.wholes_drawn == 1

"""Where files live is drawn as a grid of boxes and said in a sentence."""

from __future__ import annotations

from matplotlib.figure import Figure

from labkit.charts.whereabouts import WhereaboutsChart, describe
from labkit.engine.whereabouts import Place, Whereabouts

SEEN = [
    Whereabouts("left", "running", (Place("layer", "/layer/file", "here"), Place("volume", "/volume/file", "written by somebody else"))),
    Whereabouts("right", "none", (Place("layer", "/layer/file", ""), Place("volume", "/volume/file", ""))),
]  # fmt: skip


def test_each_place_says_what_can_be_read_there() -> None:
    figure, chart = Figure(), WhereaboutsChart(["left", "right"])
    chart.setup(figure)
    chart.update(SEEN)
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert {"left: running", "right: none", "here", "written by somebody e…", "nothing"} <= set(texts)
    assert [patch.get_linestyle() for patch in figure.axes[0].patches][:4] == ["-", "--", "-", "--"]


def test_the_sentence_says_the_same() -> None:
    assert describe(SEEN) == (
        "left (running): layer 'here', volume 'written by somebody else'; right (none): nothing to read."
    )

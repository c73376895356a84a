"""Containers and networks as bars, boxes and lines, and as a sentence."""

from __future__ import annotations

from matplotlib.figure import Figure

from labkit.charts.wiring import WiringChart, describe
from labkit.engine.wiring import Node, Wiring

WIRED = Wiring(
    {"front": "172.18.0.0/16", "back": "172.19.0.0/16"},
    (Node("shop", {"front": "172.18.0.3", "back": "172.19.0.3"}, 12, 7), Node("web", {"front": "172.18.0.2"}, 1, 2)),
)


def test_a_line_stands_where_a_container_is_on_a_network() -> None:
    figure, chart = Figure(), WiringChart()
    chart.setup(figure)
    chart.update(WIRED)
    axes = figure.axes[0]
    texts = [text.get_text() for text in axes.texts if text.get_text()]
    assert {"shop", "web", "12 in, 7 out", "front\n172.18.0.0/16", "172.19.0.3"} <= set(texts)
    assert sum(line.get_marker() == "o" and len(line.get_xdata()) == 2 for line in axes.lines) == 3
    chart.update(Wiring({}, ()))
    assert not [text.get_text() for text in axes.texts if text.get_text()]


def test_the_sentence_names_addresses_and_packets() -> None:
    assert describe(Wiring({}, ())) == "No container is running."
    assert "web has 172.18.0.2 on front; 1 packets in, 2 out" in describe(WIRED)

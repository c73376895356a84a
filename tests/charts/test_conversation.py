"""A conversation is drawn as arrows between three lines, and said in a sentence."""

from __future__ import annotations

from matplotlib.figure import Figure

from labkit.charts.conversation import ROWS, ConversationChart, describe
from labkit.engine.conversation import Message

SAID = [
    Message(0.0, "client", "daemon", "POST /containers/create"),
    Message(0.002, "daemon", "runtime", "create (one)"),
    Message(0.005, "daemon", "client", "201, 88 bytes"),
]


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.axes[0].texts if text.get_text()]


def test_each_message_is_an_arrow_with_its_words() -> None:
    figure, chart = Figure(), ConversationChart()
    chart.setup(figure)
    chart.update(SAID)
    assert texts(figure)[-3:] == [message.words for message in SAID]
    tips = [line.get_marker() for line in figure.axes[0].lines if line.get_marker() in "<>" and len(line.get_xdata())]
    assert tips == [">", ">", "<"]
    chart.update([])
    assert texts(figure) == ["client", "daemon", "runtime (processes)"]


def test_only_the_last_messages_are_shown_and_long_words_are_cut() -> None:
    figure, chart = Figure(), ConversationChart()
    chart.setup(figure)
    chart.update([Message(n, "client", "daemon", f"{n} " + 80 * "x") for n in range(40)])
    shown = texts(figure)[3:]
    assert len(shown) == ROWS and shown[-1].startswith("39 ") and shown[-1].endswith("…")


def test_the_sentence_tells_number_time_and_the_last_one() -> None:
    assert describe([]) == "Nobody has said anything yet."
    assert describe(SAID) == "3 messages in 5 ms. The last one: daemon to client, 201, 88 bytes."

"""Transfers as bars: lengths are bytes, and the words beside them say the same."""

from __future__ import annotations

import pytest

from labkit import MiB, charts
from labkit.charts import Frames
from labkit.charts.transfers import PARTS, TransferChart, draw, finding, words_for
from labkit.measure.transfers import Journey, Ledger

FIRST = Journey("alice/base:1", "push", 3 * MiB, 0, 0, 3 * MiB, 9, 10.0)
SECOND = Journey("bob/site:1", "push", 512 * 1024, MiB, 2 * MiB, 600_000, 9, 5.0)


def test_the_title_states_what_was_found() -> None:
    assert finding(Ledger()) == "Nothing has travelled yet"
    assert finding(Ledger((FIRST, SECOND))) == "3.5 MiB travelled for 6.5 MiB of images"
    assert words_for(SECOND) == "512 KiB moved, 3 MiB spared"


def test_each_part_of_a_bar_has_its_bytes_and_begins_where_the_last_one_ended() -> None:
    figure, (axes,) = charts.figure(9.2, 2.4)
    draw(axes, Ledger((FIRST, SECOND)))
    drawn = [(bar.get_x(), bar.get_width()) for bar in axes.patches]
    assert drawn == [(0, 3), (3, 0), (3, 0), (0, 0.5), (0.5, 1), (1.5, 2)]
    assert axes.get_xlim()[0] == 0
    words = [text.get_text() for text in axes.texts]
    assert {"push alice/base:1", "push bob/site:1", words_for(FIRST), words_for(SECOND)} <= set(words)
    figure.clear()


def test_parts_differ_in_colour_and_in_hatch() -> None:
    looks = [charts.look(concept) for _, concept in PARTS]
    assert len({look.colour for look in looks}) == len({look.hatch for look in looks}) == len(PARTS)


def test_the_live_picture_shows_the_last_journeys_and_keeps_its_axes() -> None:
    frames = Frames(TransferChart(rows=2, most_bytes=4 * MiB), width_in=9.2, height_in=3.0)
    pictures = [frames.png(Ledger((FIRST, SECOND)[:count])) for count in range(3)]
    assert len(set(pictures)) == 3
    assert frames.png(Ledger((FIRST, FIRST, SECOND))) == pictures[2]
    assert frames.wholes_drawn == 1


@pytest.mark.parametrize("ledger", [Ledger(), Ledger((FIRST,))])
def test_few_journeys_are_drawn_too(ledger: Ledger) -> None:
    figure, (axes,) = charts.figure(9.2, 2.4)
    draw(axes, ledger)
    figure.clear()

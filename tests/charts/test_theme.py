"""The course's colours can be told apart by everyone, and its figures say their units and start at zero."""

from __future__ import annotations

import itertools
import threading

import matplotlib
import numpy as np
import pytest

from labkit.charts import Bar, bars, context, figure, label_axes, line, look
from labkit.charts.theme import INK, LOOKS, PAPER
from labkit.errors import InvalidSpec

#: How a colour looks with a kind of colour blindness, in linear RGB (Machado, Oliveira and Fernandes 2009, severity 1).
SEEN = {
    "everyone": np.eye(3),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "tritanopia": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]
    ),
}
TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
#: CIE76 distance; 2.3 is just noticeable side by side, and these are not side by side.
LEAST_DISTANCE = 18


def linear(colour: str) -> np.ndarray:
    """Return the linear RGB of ``#rrggbb``."""
    value = np.array([int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)])
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def lab(rgb: np.ndarray) -> np.ndarray:
    """Return CIE L*a*b* (D65) of linear RGB."""
    x, y, z = (
        part ** (1 / 3) if part > 0.008856 else 7.787 * part + 16 / 116
        for part in TO_XYZ @ np.clip(rgb, 0, 1) / np.array([0.95047, 1, 1.08883])
    )
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def contrast(one: str, other: str) -> float:
    """Return WCAG's contrast ratio."""
    low, high = sorted(float(TO_XYZ[1] @ linear(colour)) for colour in (one, other))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("kind", SEEN)
def test_any_two_concepts_differ_in_colour_for(kind: str) -> None:
    seen = {name: lab(SEEN[kind] @ linear(found.colour)) for name, found in LOOKS.items()}
    near = [
        pair
        for pair in itertools.combinations(seen, 2)
        if np.linalg.norm(seen[pair[0]] - seen[pair[1]]) < LEAST_DISTANCE
    ]
    assert near == []


def test_colours_stand_out_from_the_paper_and_text_is_readable() -> None:
    assert {
        name: contrast(found.colour, PAPER) for name, found in LOOKS.items() if contrast(found.colour, PAPER) < 3
    } == {}
    assert contrast(INK, PAPER) >= 7


@pytest.mark.parametrize("sign", ["colour", "hatch", "marker", "line_style", "label"])
def test_every_concept_has_its_own(sign: str) -> None:
    values = [getattr(found, sign) for found in LOOKS.values()]
    if sign == "line_style":  # host and process share the plain line; marker and colour differ
        values.remove("-")
    assert len(set(values)) == len(values)


def test_an_unknown_concept_is_refused_with_the_known_ones() -> None:
    with pytest.raises(InvalidSpec, match="host, process, namespace, container, vm, peer"):
        look("pod")


def test_matplotlibs_defaults_are_as_they_were_after_drawing_in_two_threads() -> None:
    before = dict(matplotlib.rcParams)

    def draw() -> None:
        for _ in range(5):
            made, (axes,) = figure()
            bars(axes, [Bar("a", 1, "host")], title="One", x="size (MiB)")
            made.canvas.draw()

    threads = [threading.Thread(target=draw) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert dict(matplotlib.rcParams) == before
    with context():
        assert matplotlib.rcParams["text.color"] == INK


def test_bars_start_at_zero_the_first_on_top_each_with_its_value() -> None:
    made, (axes,) = figure()
    bars(axes, [Bar("a", 5, "process", (4, 8)), Bar("b", 4.5, "container")], title="Near", x="time (ms)")
    made.canvas.draw()
    assert axes.get_xlim()[0] == 0 and axes.get_xlim()[1] > 8
    assert [bar.get_x() for bar in axes.patches] == [0, 0]
    assert axes.get_ylim()[0] > axes.get_ylim()[1]
    assert {text.get_text() for text in axes.texts} == {"5", "4.5"}


def test_a_figure_without_unit_or_finding_is_refused() -> None:
    _, (axes,) = figure()
    for x in ("time", "time ()", "(ms)", "time(ms)"):
        with pytest.raises(InvalidSpec, match="lacks its unit"):
            label_axes(axes, title="A finding", x=x, y=None)
    with pytest.raises(InvalidSpec, match="title"):
        label_axes(axes, title=" ", x=None, y="time (ms)")
    with pytest.raises(InvalidSpec, match="no negative"):
        bars(axes, [Bar("a", -1, "host")], title="x", x="time (ms)")


def test_a_line_has_a_few_markers_and_the_look_of_its_concept() -> None:
    _, (left, right) = figure(columns=2)
    drawn = line(right, range(100), range(100), concept="vm", label="guest")
    assert (drawn.get_color(), drawn.get_marker(), drawn.get_label()) == (look("vm").colour, "X", "guest")
    assert drawn.get_markevery() == 12
    assert not left.lines

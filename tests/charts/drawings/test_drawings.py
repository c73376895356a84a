"""The drawn pictures: the committed files are what the programs draw, no word is cut or covered, and all can be read.

Words are measured with the font that matplotlib brings (DejaVu Sans, the first of the file's fonts); contrast is computed as the
guidelines for web content define it.
"""

from __future__ import annotations

import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from itertools import combinations
from pathlib import Path

import pytest
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextPath

from labkit.charts.drawings import PICTURES, Sheet, drawn, write_all
from labkit.charts.drawings.sheet import FILLS, Line, Words
from labkit.charts.theme import INK, LOOKS, PAPER
from labkit.errors import InvalidSpec
from tests.support import PROJECT

FOLDER = PROJECT / "notebooks" / "figures"
#: Pages on which a picture may stand: JupyterLab's two themes, GitHub's dark one.
PAGES = ("#ffffff", "#111111", "#0d1117")
#: How much wider another font may be than the one measured with.
SPARE = 1.03
Rectangle = tuple[float, float, float, float]


def rectangle_of(words: Words) -> Rectangle:
    """Return left, top, right and bottom of a line of text."""
    font = FontProperties(family="DejaVu Sans", weight="bold" if words.bold else "normal")
    width = TextPath((0, 0), words.text, size=words.size, prop=font).get_extents().x1 * SPARE
    left = words.x - {"start": 0.0, "middle": width / 2, "end": width}[words.align]
    return left, words.y - 0.76 * words.size, left + width, words.y + 0.24 * words.size


def luminance(colour: str) -> float:
    """Return the relative luminance of ``#rrggbb``."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    """Return the contrast of two colours, 1 to 21."""
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def covers(one: Rectangle, other: Rectangle) -> bool:
    """Return whether two rectangles have more than an edge in common."""
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def crosses(line: Line, rectangle: Rectangle) -> bool:
    """Return whether a line comes into a rectangle, found by looking at a point every two pixels."""
    (x, y), (x1, y1) = line.start, line.end
    steps = max(2, int(max(abs(x1 - x), abs(y1 - y)) / 2))
    points = ((x + (x1 - x) * step / steps, y + (y1 - y) * step / steps) for step in range(steps + 1))
    return any(rectangle[0] < px < rectangle[2] and rectangle[1] < py < rectangle[3] for px, py in points)


def test_drawing_again_changes_nothing(tmp_path: Path) -> None:
    names = {f"{name}.svg" for name in PICTURES}
    assert {path.name for path in FOLDER.iterdir()} == names
    assert len(write_all(tmp_path)) == len(PICTURES)
    assert write_all(tmp_path) == []
    for name in names:
        assert (tmp_path / name).read_bytes() == (FOLDER / name).read_bytes(), "run python -m labkit.charts.drawings"


def test_another_python_with_other_hashes_draws_the_same_bytes(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "labkit.charts.drawings", str(tmp_path)]
    done = subprocess.run(
        command, cwd=PROJECT, env={"PYTHONHASHSEED": "7", "LC_ALL": "C"}, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout.split(";")[0]) == (0, f"{len(PICTURES)} pictures in {tmp_path}"), done.stderr
    assert all((tmp_path / path.name).read_bytes() == path.read_bytes() for path in FOLDER.glob("*.svg"))


def test_a_folder_that_is_not_there_is_told_in_a_sentence(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "labkit.charts.drawings", str(tmp_path / "none")]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True)
    assert done.returncode == 2 and "there is no folder" in done.stderr


@pytest.mark.parametrize("name", PICTURES)
def test_no_word_is_cut_or_covered(name: str) -> None:
    sheet = drawn(name)
    placed = [(words, rectangle_of(words)) for words in sheet.words]
    problems = [
        f"{words.text!r} takes {right - left:.0f} px of {words.room}"
        for words, (left, top, right, bottom) in placed
        if right - left > words.room or left < 4 or top < 4 or right > sheet.width - 4 or bottom > sheet.height - 4
    ]
    problems += [f"{a.text!r} and {b.text!r}" for (a, one), (b, other) in combinations(placed, 2) if covers(one, other)]
    for words, rectangle in placed:
        problems += [f"a line crosses {words.text!r}" for line in sheet.lines if crosses(line, rectangle)]
        edges = (
            Line((x0, y0), (x1, y1))
            for box in sheet.boxes
            for (x0, y0), (x1, y1) in combinations(
                [(box.x, box.y), (box.right, box.y), (box.x, box.bottom), (box.right, box.bottom)], 2
            )
            if x0 == x1 or y0 == y1
        )
        problems += [f"an edge crosses {words.text!r}" for edge in edges if crosses(edge, rectangle)]
    assert not problems, "\n".join(problems)


@pytest.mark.parametrize("name", PICTURES)
def test_words_stand_out_from_what_is_behind_them_and_lines_from_the_paper(name: str) -> None:
    sheet = drawn(name)
    assert min(contrast(INK, words.behind) for words in sheet.words) >= 7
    assert min(contrast(colour, PAPER) for colour in [INK, *(look.colour for look in LOOKS.values())]) >= 3


def test_a_picture_brings_its_paper_so_that_the_page_behind_it_does_not_matter() -> None:
    for name in PICTURES:
        first = ElementTree.parse(FOLDER / f"{name}.svg").getroot().find("{*}rect")
        root = drawn(name)
        assert first is not None and first.get("fill") == PAPER
        assert (first.get("width"), first.get("height")) == (str(root.width), str(root.height))
    # On a dark page the paper's edge is seen; on a light one there is nothing that would have to be.
    assert all(contrast(PAPER, page) > 15 for page in PAGES[1:])
    assert set(FILLS) - {"plain"} == set(LOOKS)


@pytest.mark.parametrize("name", PICTURES)
def test_the_file_says_in_words_what_it_shows_and_asks_nobody_for_anything(name: str) -> None:
    text = (FOLDER / f"{name}.svg").read_text()
    root = ElementTree.fromstring(text)
    assert root.get("role") == "img"
    assert [root.findtext(f"{{*}}{tag}") for tag in ("title", "desc")] == [drawn(name).title, drawn(name).alt]
    assert len(drawn(name).alt.split()) > 30
    assert text.count("http") == 1 and "<script" not in text, "nothing but the name of the format"
    assert len(text) < 20_000


def test_a_picture_without_words_for_it_is_refused() -> None:
    with pytest.raises(InvalidSpec, match="says what it shows"):
        Sheet(width=100, height=100, title="A title", alt=" ")


def test_a_word_that_is_cut_is_found() -> None:
    sheet = Sheet(width=200, height=100, title="t", alt="words")
    sheet.box(10, 50, 60, 30, "much too long for it")
    left, _, right, _ = rectangle_of(sheet.words[-1])
    assert right - left > sheet.words[-1].room

"""A figure travels with the sentence that says the same, in a form that every reader gets."""

from __future__ import annotations

import base64
import gc
import io
import weakref

import pytest
from PIL import Image

from labkit.charts import Bar, Picture, bars, figure, show
from labkit.charts.show import png_of
from labkit.charts.theme import LOOKS
from labkit.errors import InvalidSpec

ALT = "Bar chart: a < b & the rest."


def drawn() -> object:
    """Return a figure with a bar of each concept."""
    made, (axes,) = figure()
    bars(axes, [Bar(name, 1, name) for name in LOOKS], title="All", x="time (ms)")
    return made


def test_it_is_shown_as_html_with_alt_as_png_and_as_text(capsys: pytest.CaptureFixture[str]) -> None:
    show(drawn(), alt=ALT)  # type: ignore[arg-type]
    assert capsys.readouterr().out.strip() == f"Figure: {ALT}"
    bundle = Picture(png_of(drawn()), alt=ALT, width_px=614)._repr_mimebundle_()  # type: ignore[arg-type]
    assert list(bundle) == ["text/html", "image/png", "text/plain"]
    assert 'alt="Bar chart: a &lt; b &amp; the rest."' in bundle["text/html"] and 'width="614"' in bundle["text/html"]
    png = base64.b64decode(bundle["image/png"])
    assert Image.open(io.BytesIO(png)).size in ((921, 460), (922, 461))
    assert bundle["image/png"] in bundle["text/html"]


def test_the_same_drawing_gives_the_same_small_file_in_the_colours_of_the_course() -> None:
    one, two = png_of(drawn()), png_of(drawn())  # type: ignore[arg-type]
    assert one == two
    assert len(one) < 30_000
    colours = {
        f"#{r:02x}{g:02x}{b:02x}" for _, (r, g, b) in Image.open(io.BytesIO(one)).convert("RGB").getcolors(10**6) or ()
    }
    assert {"#ffffff", *(found.colour.lower() for found in LOOKS.values())} <= colours


@pytest.mark.parametrize("alt", ["", "   ", "a figure", "\n\n"])
def test_a_figure_that_says_nothing_is_refused_before_it_is_drawn(alt: str) -> None:
    with pytest.raises(InvalidSpec, match="say in a sentence what it shows"):
        show(drawn(), alt=alt)  # type: ignore[arg-type]


def test_a_figure_that_was_shown_is_gone_pyplots_too(capsys: pytest.CaptureFixture[str]) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    made = pyplot.figure()
    number = made.number
    show(made, alt=ALT)
    assert not pyplot.fignum_exists(number)
    other = drawn()
    seen = weakref.ref(other)
    show(other, alt=ALT)  # type: ignore[arg-type]
    del other
    gc.collect()
    assert seen() is None

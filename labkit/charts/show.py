"""Put a figure into a notebook so that everybody can read it: as a picture and as a sentence.

JupyterLab gives a bare PNG output no alternative text. So a figure travels as three forms of one thing: HTML whose ``<img>`` has
an ``alt``, the PNG itself for viewers that drop inline pictures, and the sentence as plain text. nbval compares the HTML
after ``tests/nbval_sanitize.cfg`` has taken the pixels out: a changed sentence fails, changed pixels do not.

Leaves out: SVG (its ids differ from run to run); captions (the sentence is the caption for those who cannot see).
See: WCAG 2.2, 1.1.1 (non-text content).
"""

from __future__ import annotations

import base64
import html
import io
import sys
import textwrap
from typing import TYPE_CHECKING, Any

from labkit.charts.theme import DRAWN_DPI, RECORDED, SHOWN_DPI, context
from labkit.errors import InvalidSpec

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from labkit.measure.recording import Recording

__all__ = ["Picture", "checked_alt", "mark_recording", "picture_html", "png_of", "show"]

#: More colours than a chart of flat areas has; a palette makes the file a third of its size.
_COLOURS = 128
_FEWEST_ALT_WORDS = 3
#: What a line of small bold text takes.
_LINE_IN, _LETTERS_PER_IN = 0.14, 12.5


class Picture:
    """PNG bytes and the sentence that says the same; what `show` hands to the notebook."""

    def __init__(self, png: bytes, *, alt: str, width_px: int) -> None:
        self.png = png
        self.alt = checked_alt(alt)
        self.width_px = width_px

    def __repr__(self) -> str:
        return f"Figure: {self.alt}"

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        """Return the three forms; IPython calls this when the object is displayed."""
        return {
            "text/html": picture_html(self.png, alt=self.alt, width_px=self.width_px),
            "image/png": base64.b64encode(self.png).decode("ascii"),
            "text/plain": repr(self),
        }


def show(figure: Figure, *, alt: str, recording: Recording[Any] | None = None) -> None:
    """Show ``figure`` in the notebook with ``alt``, the sentence that says what a reader would see in it, and close it.

    Under nbval the sentence is compared, so it states what is true on every machine; live numbers belong into a cell
    tagged ``nbval-ignore-output``. Where the numbers come from another machine, ``recording`` is written into the figure and
    behind the sentence. Raises: InvalidSpec if ``alt`` says nothing.
    """
    checked_alt(alt)
    from IPython.display import display

    if recording is not None:
        mark_recording(figure, recording)
        alt = f"{alt.rstrip('.')}. {recording}"

    picture = Picture(png_of(figure), alt=alt, width_px=round(figure.get_figwidth() * SHOWN_DPI))
    _close(figure)
    display(picture)  # type: ignore[no-untyped-call]


def mark_recording(figure: Figure, recording: Recording[Any]) -> None:
    """Write below the axes of ``figure`` that its numbers are a recording, and of which machine; it grows by these lines."""
    width_in, height_in = figure.get_size_inches()
    lines = textwrap.wrap(str(recording), max(30, int(width_in * _LETTERS_PER_IN)))
    figure.set_size_inches(width_in, height_in + (len(lines) + 1) * _LINE_IN)
    with context():
        figure.supxlabel("\n".join(lines), x=0.01, ha="left", fontsize=8, fontweight="bold", color=RECORDED)


def png_of(figure: Figure) -> bytes:
    """Return ``figure`` as PNG: the same bytes for the same drawing, without date or version of matplotlib."""
    from PIL import Image

    drawn = io.BytesIO()
    with context():
        figure.savefig(drawn, format="png", dpi=DRAWN_DPI, metadata={"Software": None})
    drawn.seek(0)
    small = io.BytesIO()
    flat = Image.open(drawn).convert("RGB").quantize(_COLOURS, dither=Image.Dither.NONE)
    flat.save(small, format="png", optimize=True)
    return small.getvalue()


def picture_html(png: bytes, *, alt: str, width_px: int) -> str:
    """Return an ``<img>`` that carries its own bytes and its alternative text, and never leaves the page's width."""
    data = base64.b64encode(png).decode("ascii")
    return f'<img alt="{html.escape(alt)}" width="{width_px}" style="max-width:100%;height:auto" src="data:image/png;base64,{data}">'


def checked_alt(alt: str) -> str:
    """Return ``alt`` on one line. Raises: InvalidSpec unless it is a sentence of at least three words."""
    words = alt.split()
    if len(words) < _FEWEST_ALT_WORDS:
        raise InvalidSpec(
            f"alt={alt!r} tells a reader who cannot see the figure nothing: say in a sentence what it shows, "
            "as in 'Bar chart: a container starts in 2 ms, a virtual machine in 900 ms.'"
        )
    return " ".join(words)


def _close(figure: Figure) -> None:
    """Take ``figure`` out of pyplot's list, which would otherwise keep it alive (and warn after twenty)."""
    pyplot = sys.modules.get("matplotlib.pyplot")
    if pyplot is not None:
        pyplot.close(figure)

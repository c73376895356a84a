"""Controls that everyone can use: each has a label with its unit, works from the keyboard, and says in words what it did.

ipywidgets draws standard HTML inputs, so Tab, Space and the arrow keys work as everywhere. What it does not do by itself is
name a picture, announce a change, or keep a stable ``repr``; the helpers here do.

Leaves out: tabs and accordions, whose hidden parts a first reader overlooks.
See: WAI-ARIA 1.2 (status role, live regions); https://ipywidgets.readthedocs.io
"""

from __future__ import annotations

import functools
import html
from collections.abc import Callable, Sequence
from typing import Any

from labkit.errors import InvalidSpec

__all__ = [
    "VIEW_MIME",
    "button",
    "checkbox",
    "dropdown",
    "choice",
    "close_tree",
    "column",
    "heading",
    "mimebundle",
    "number",
    "picture",
    "row",
    "say",
    "slider",
    "status",
    "table_html",
]

#: What a front end needs to draw a widget; its model id is random, so the build takes it out of a stored notebook.
VIEW_MIME = "application/vnd.jupyter.widget-view+json"
_LABEL_WIDTH = "15em"


def button(label: str, *, does: str, on_click: Callable[[], None]) -> Any:
    """Return a button named ``label``; ``does`` says what will happen, for the tooltip."""
    import ipywidgets

    made = ipywidgets.Button(description=label, tooltip=does, layout={"width": "auto"})
    made.on_click(lambda _: on_click())
    return made


def choice(options: Sequence[str], *, label: str, on_choice: Callable[[str], object]) -> Any:
    """Return radio buttons of which none is chosen yet; ``label`` names the group.

    Tab goes from one to the next and Space chooses: JupyterLab keeps the arrow keys for its cells.
    """
    import ipywidgets

    made = ipywidgets.RadioButtons(
        options=list(options), value=None, tooltip=label, layout={"width": "auto"}, style={"description_width": "auto"}
    )
    made.observe(lambda change: on_choice(change["new"]) if change["new"] is not None else None, names="value")
    return made


def checkbox(label: str, *, does: str, checked: bool = False) -> Any:
    """Return a box to tick; ``does`` says what a tick means, for the tooltip."""
    import ipywidgets

    return ipywidgets.Checkbox(
        value=checked, description=label, tooltip=does, indent=False, layout={"width": "auto", "margin": "0 1em 0 0"}
    )


def dropdown(label: str, *, does: str, options: Sequence[str]) -> Any:
    """Return a list to choose one of ``options`` from, the first at the start; ``does`` says what the choice is about."""
    import ipywidgets

    return ipywidgets.Dropdown(
        options=list(options), value=options[0], description=label, tooltip=does, style={"description_width": "auto"},
        layout={"width": "auto", "margin": "0 1em 0 0"},
    )  # fmt: skip


def number(*, label: str, unit: str) -> Any:
    """Return a field for one number in ``unit``; it counts when Enter is pressed or the field is left."""
    import ipywidgets

    return ipywidgets.FloatText(
        description=f"{label} ({unit})",
        style={"description_width": "auto"},
        layout={"width": "20em"},
        continuous_update=False,
    )


def slider(label: str, *, unit: str, low: float, high: float, value: float, step: float = 1) -> Any:
    """Return a slider over whole or broken numbers of ``unit``; it counts when let go, so a drag is one change.

    Arrow keys, Page Up and Down, Home and End move it; the number beside it can be typed over.
    Raises: InvalidSpec if the unit is empty or ``value`` lies outside ``low`` to ``high``.
    """
    import ipywidgets

    if not unit or not low <= value <= high:
        raise InvalidSpec(f"the slider {label!r} needs a unit and a value between {low} and {high}.")
    whole = all(float(part).is_integer() for part in (low, high, value, step))
    kind, cast = (ipywidgets.IntSlider, int) if whole else (ipywidgets.FloatSlider, float)
    return kind(
        value=cast(value),
        min=cast(low),
        max=cast(high),
        step=cast(step),
        description=f"{label} ({unit})",
        continuous_update=False,
        style={"description_width": _LABEL_WIDTH},
        layout={"width": "36em", "max_width": "100%"},
    )


def picture(alt: str, *, width_px: int) -> Any:
    """Return an image that a live view refills; ``alt`` says what kind of picture it is, the line beside it what it shows now.

    ipywidgets' image has no ``alt``; its tooltip becomes the ``title`` attribute, which names an image as well.
    """
    # Its own height and place: a flex column would stretch it to the column's width.
    box = {"max_width": "100%", "height": "auto", "align_self": "flex-start"}
    return _named_image()(format="png", tooltip=alt, width=str(width_px), layout=box)


@functools.cache
def _named_image() -> Any:
    """Return ipywidgets' image with an empty ``description``: its view reads one before it sets a tooltip, and fails without."""
    import ipywidgets
    import traitlets

    return type("NamedImage", (ipywidgets.Image,), {"description": traitlets.Unicode("").tag(sync=True)})


def status(text: str = "") -> Any:
    """Return a line of text that a screen reader announces, politely, when `say` changes it."""
    import ipywidgets

    return ipywidgets.HTML(value=_status_html(text))


def say(line: Any, text: str) -> None:
    """Change what a `status` line says; nothing is sent if it says so already."""
    line.value = _status_html(text)


def heading(kind: str, text: str) -> Any:
    """Return ``text`` as HTML behind a bold word that says what kind of thing it is (Predict, Quiz, Exercise)."""
    import ipywidgets

    return ipywidgets.HTML(value=f"<strong>{html.escape(kind)}.</strong> {html.escape(text)}")


def table_html(heads: Sequence[str], rows: Sequence[Sequence[object]], *, caption: str) -> str:
    """Return an HTML table whose head cells and first column are marked as what they are; all text is escaped."""
    head_cells = "".join(f'<th scope="col">{html.escape(head)}</th>' for head in heads)
    body = ""
    for first, *rest in rows:
        cells = "".join(f"<td>{html.escape(str(cell))}</td>" for cell in rest)
        body += f'<tr><th scope="row" style="text-align:left">{html.escape(str(first))}</th>{cells}</tr>'
    opening = f'<table><caption style="text-align:left">{html.escape(caption)}</caption>'
    return f"{opening}<thead><tr>{head_cells}</tr></thead><tbody>{body}</tbody></table>"


def row(*children: Any) -> Any:
    """Return ``children`` side by side, wrapped onto further lines where the page is narrow."""
    import ipywidgets

    return ipywidgets.HBox(list(children), layout={"flex_flow": "row wrap", "align_items": "center"})


def column(*children: Any, edge: str | None = None) -> Any:
    """Return ``children`` one below the other, with a left edge of the colour ``edge`` if one is given."""
    import ipywidgets

    box = {} if edge is None else {"border_left": f"4px solid {edge}", "padding": "0 0 0 10px", "margin": "4px 0"}
    return ipywidgets.VBox(list(children), layout=box)


def close_tree(widget: Any) -> None:
    """Close ``widget``, what it contains, and their layouts and styles, each of which has a comm of its own."""
    for child in getattr(widget, "children", ()):
        close_tree(child)
    for part in (getattr(widget, "layout", None), getattr(widget, "style", None), widget):
        if part is not None:
            part.close()


def mimebundle(widget: Any, *, plain: str, html_text: str) -> dict[str, Any]:
    """Return ``widget`` for a front end that has a jupyter_kernel, and two still forms for one that has none.

    The widget's own text form would hold values and be cut at 110 characters; ``plain`` and ``html_text`` stay the same.
    """
    bundle = dict(widget._repr_mimebundle_() or {})
    return {"text/plain": plain, "text/html": html_text} | {VIEW_MIME: bundle[VIEW_MIME]}


def _status_html(text: str) -> str:
    return f'<div role="status" aria-live="polite">{html.escape(text)}</div>'

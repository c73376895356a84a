"""Controls have names and units, pictures have names, status lines are announced, and nothing shows a random id."""

from __future__ import annotations

import pytest

from labkit.errors import InvalidSpec
from labkit.widgets import layout


def test_a_slider_has_its_unit_and_counts_when_it_is_let_go() -> None:
    made = layout.slider("memory.max", unit="MiB", low=16, high=512, value=64, step=16)
    assert (made.description, made.value, made.min, made.max) == ("memory.max (MiB)", 64, 16, 512)
    assert not made.continuous_update
    assert type(made).__name__ == "IntSlider"
    assert type(layout.slider("cpu.max", unit="CPUs", low=0.1, high=1, value=0.5, step=0.1)).__name__ == "FloatSlider"


@pytest.mark.parametrize(("unit", "value"), [("", 3), ("MiB", -1), ("MiB", 11)])
def test_a_slider_without_unit_or_beyond_its_ends_is_refused(unit: str, value: float) -> None:
    with pytest.raises(InvalidSpec, match="needs a unit and a value between 0 and 10"):
        layout.slider("x", unit=unit, low=0, high=10, value=value)


def test_a_button_says_what_it_does_and_does_it() -> None:
    pressed: list[bool] = []
    made = layout.button("Start", does="Start the race", on_click=lambda: pressed.append(True))
    made.click()
    assert pressed == [True] and made.tooltip == "Start the race"


def test_a_choice_begins_with_nothing_chosen_and_reports_what_is() -> None:
    chosen: list[str] = []
    made = layout.choice(["a", "b"], label="Which?", on_choice=chosen.append)
    assert made.value is None
    made.value = "b"
    made.value = None
    assert chosen == ["b"]


def test_a_status_line_is_a_polite_live_region_and_escapes_its_text() -> None:
    line = layout.status("<b>")
    assert line.value == '<div role="status" aria-live="polite">&lt;b&gt;</div>'
    layout.say(line, "now")
    assert ">now<" in line.value


def test_a_picture_has_a_name_that_its_view_can_set() -> None:
    made = layout.picture("Line: a wave", width_px=614)
    assert (made.tooltip, made.width, made.format) == ("Line: a wave", "614", "png")
    # ipywidgets' view reads the description of whatever has a tooltip.
    assert made.get_state()["description"] == ""


def test_a_table_marks_its_heads() -> None:
    shown = layout.table_html(["layer", "size"], [["<base>", 3]], caption="Layers")
    assert shown.count('scope="col"') == 2 and 'scope="row"' in shown
    assert "&lt;base&gt;" in shown and "<caption" in shown


def test_a_closed_tree_leaves_no_open_comm() -> None:
    import ipywidgets

    before = set(ipywidgets.widget._instances) if hasattr(ipywidgets.widget, "_instances") else None
    made = layout.column(layout.row(layout.button("a", does="b", on_click=lambda: None)), layout.status("x"))
    layout.close_tree(made)
    assert made.comm is None and all(child.comm is None for child in made.children)
    if before is not None:
        assert set(ipywidgets.widget._instances) == before


def test_the_bundle_has_two_forms_without_the_widgets_id() -> None:
    bundle = layout.mimebundle(layout.status("x"), plain="A view", html_text="<p>A view</p>")
    assert set(bundle) == {"text/plain", "text/html", layout.VIEW_MIME}
    assert bundle["text/plain"] == "A view"

"""The lessons need no front end of their own: JupyterLab, VS Code's notebook and others show the same media types and controls."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from labkit.widgets.layout import VIEW_MIME
from tests.support import PROJECT

NOTEBOOKS = sorted((PROJECT / "notebooks").glob("[0-9][0-9]_*.ipynb"))
#: What nbformat names, and every front end draws without an extension.
STANDARD = {"text/plain", "text/html", "text/markdown", "image/png", "image/jpeg", "image/svg+xml", "application/json"}
#: Ways to send JavaScript along, or a widget of one's own; none of them works everywhere.
TRICKS = re.compile(
    r"<script|\bon(?:click|load|error)=|application/javascript|Javascript\(|anywidget|_view_module\b|_model_module\b|_esm\b"
    r"|require\(|labextension|IPython\.notebook|jupyterapp",
    re.IGNORECASE,
)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_outputs_have_standard_media_types_and_carry_no_script(path: Path) -> None:
    outputs = [
        output
        for cell in json.loads(path.read_text())["cells"]
        if cell["cell_type"] == "code"
        for output in cell["outputs"]
    ]
    assert {mime for output in outputs for mime in output.get("data", {})} <= STANDARD
    pages = ["".join(output.get("data", {}).get("text/html", "")) for output in outputs]
    assert not [page for page in pages if TRICKS.search(page)]


def test_every_widget_is_one_of_ipywidgets_core() -> None:
    import ipywidgets

    core = {name for name in dir(ipywidgets) if isinstance(getattr(ipywidgets, name), type)}
    used: dict[str, str] = {}
    for path in [*(PROJECT / "labkit/widgets").rglob("*.py"), *(PROJECT / "labkit/lesson").rglob("*.py")]:
        text = path.read_text()
        used |= dict.fromkeys(re.findall(r"\bipywidgets\.([A-Z]\w+)", text), path.name)
        assert not TRICKS.search(text) or path.name in {"rules.py"}, f"{path.name}: {TRICKS.search(text)}"
    assert len(used) >= 8, "the search still finds how widgets are made"
    assert used.keys() <= core, {name: used[name] for name in used.keys() - core}


def test_the_picture_of_a_live_view_keeps_the_model_and_view_of_ipywidgets() -> None:
    import ipywidgets

    from labkit.widgets import layout

    picture, plain = layout.picture("Line: a wave", width_px=300), ipywidgets.Image()
    for trait in ("_model_name", "_view_name", f"{'_model'}_module", f"{'_view'}_module"):
        assert getattr(picture, trait) == getattr(plain, trait)
    picture.close()
    plain.close()


def test_a_view_names_a_picture_for_front_ends_that_draw_no_widget() -> None:
    from labkit.widgets import layout

    made = layout.button("Start", does="Start it", on_click=lambda: None)
    bundle = layout.mimebundle(made, plain="Live view", html_text="<p>still</p>")
    assert bundle.keys() == {VIEW_MIME, "text/plain", "text/html"}
    made.close()

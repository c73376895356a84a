"""Text for a notebook in two forms: HTML for the browser, plain text for viewers, tests and screen readers that want it.

Both forms must be the same on every run: no ids, no addresses, no times. Colours come from the notebook's own variables, with a
fallback that is readable on light and dark paper.

Leaves out: scripts and style sheets, which a notebook that is not yet trusted would drop.
"""

from __future__ import annotations

import html
from dataclasses import dataclass
from typing import Any

__all__ = ["EDGES", "Text", "note", "show_text"]

#: Left edge of a note, by its kind. The word in front of the note says the same as the colour.
EDGES = {"predict": "#7A5CC0", "quiz": "#7A5CC0", "pass": "#2A8A57", "not yet": "#C26A00", "note": "#0B7CC0"}


@dataclass(frozen=True, slots=True)
class Text:
    """What to show; ``html`` is derived from ``plain`` where it is not given."""

    plain: str
    html: str = ""

    def __repr__(self) -> str:
        return self.plain

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        """Return both forms; IPython calls this when the object is displayed."""
        return {"text/plain": self.plain, "text/html": self.html or f"<p>{html.escape(self.plain)}</p>"}


def show_text(text: Text) -> None:
    """Display ``text`` below the running cell."""
    from IPython.display import display

    display(text)  # type: ignore[no-untyped-call]


def note(kind: str, body_html: str) -> str:
    """Return ``body_html`` in a box with an edge in the colour of ``kind``."""
    edge = EDGES.get(kind, EDGES["note"])
    style = f"border-left:4px solid {edge};padding:2px 0 2px 10px;margin:4px 0;max-width:46em;line-height:1.5"
    return f'<div style="{style}">{body_html}</div>'

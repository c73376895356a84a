"""The capability table: what this machine allows, for the lesson that you choose, with the rule and the remedy of each refusal.

The doctor has tried everything before the table is drawn; the two controls only choose rows.

Leaves out: asking again (run the cell again for that).
See: `labkit.doctor`.
"""

from __future__ import annotations

import weakref
from typing import Any

from labkit.doctor import LESSONS, Feature, Report, State, needs
from labkit.widgets import layout
from labkit.widgets.cells import close_with_cell, forget

__all__ = ["DoctorTable"]

ALL = "the whole course"
_BOX = "max-height:26em;overflow:auto;border:1px solid #8884;padding:4px"
_WORDS: dict[State, str] = {"yes": "✔ yes", "limited": "◐ limited", "no": "✘ no"}


class DoctorTable:
    """A choice of lesson, a box, and the table; show it as the last line of a cell. ``rows`` are the features on show."""

    def __init__(self, report: Report) -> None:
        self.report = report
        self.rows: tuple[Feature, ...] = ()
        self.closed = False
        self.widget = self._build()
        self.show()
        self._still = str(self._table.value)
        weakref.finalize(self, layout.close_tree, self.widget).atexit = False
        close_with_cell(self)

    def __repr__(self) -> str:
        return "Live view: what this machine allows"

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        """Return the widget, and the whole table for a notebook without a process; IPython calls this."""
        return layout.mimebundle(self.widget, plain=repr(self), html_text=self._still)

    def show(self) -> None:
        """Show the rows of the chosen lesson, or of all."""
        wanted = self._names()
        self.rows = tuple(
            row
            for row in self.report.features
            if (wanted is None or row.name in wanted) and not (self._box.value and row.state == "yes")
        )
        count = sum(row.state == "no" for row in self.rows)
        refused = "nothing is refused" if not count else f"{count} refused"
        layout.say(self._words, f"{len(self.rows)} rows for {self._choice.value}: {refused}.")
        cells = [
            (row.name, _WORDS[row.state], row.detail, row.rule, "" if row.state == "yes" else row.remedy)
            for row in self.rows
        ]
        heads = ("feature", "here", "what was found", "the rule that refuses", "what would change it")
        table = layout.table_html(heads, cells, caption=self.report.summary())
        # Sixty rows would push the lesson off the page: the table scrolls in a box that the keyboard reaches.
        self._table.value = (
            f'<div tabindex="0" role="region" aria-label="what this machine allows" style="{_BOX}">{table}</div>'
        )

    def close(self) -> None:
        """Take the widgets from the page; safe to call twice."""
        if not self.closed:
            self.closed = True
            forget(self)
            layout.close_tree(self.widget)

    def _names(self) -> set[str] | None:
        lesson = str(self._choice.value)
        if lesson == ALL:
            return None
        wanted = needs(lesson)
        return {*wanted.requires, *wanted.uses}

    def _build(self) -> Any:
        import ipywidgets

        me = weakref.ref(self)
        lessons = [ALL, *(f"{item.lesson} {item.title}" for item in LESSONS if item.requires or item.uses)]
        self._choice = ipywidgets.Dropdown(
            options=lessons, value=ALL, description="What is needed for", style={"description_width": "auto"},
            layout={"width": "30em", "max_width": "100%", "margin": "2px 2em 2px 2px"}, tooltip="Show only what one lesson needs",
        )  # fmt: skip
        self._box = layout.checkbox("only what is limited or refused", does="Hide the rows that say yes")
        for control in (self._choice, self._box):
            control.observe(lambda _: _show(me), names="value")
        self._words, self._table = layout.status(), ipywidgets.HTML()
        return layout.column(layout.row(self._choice, self._box), self._words, self._table)


def _show(me: weakref.ref[DoctorTable]) -> None:
    view = me()
    if view is not None and not view.closed:
        view.show()

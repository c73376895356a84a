"""The doctor's report: one row a feature, as text, as JSON and as an accessible HTML table.

The table has the same rows in the same order on every machine. A state is a word with a sign, never a colour alone.

Leaves out: sorting and folding.
See: WCAG 2.1, H51, H63 and H39 (tables, scope, caption).
"""

from __future__ import annotations

import dataclasses
import html
import json
import textwrap
from collections import Counter
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from labkit.doctor.answers import State
from labkit.doctor.features import LESSONS, needs

__all__ = ["Feature", "LessonState", "Report"]

_SIGNS: dict[State, str] = {"yes": "✔ yes", "limited": "◐ limited", "no": "✘ no"}
_NAME_WIDTH, _STATE_WIDTH = 24, 10


@dataclass(frozen=True, slots=True)
class Feature:
    """One row: what was asked, what was found, the rule that refuses it (if one does) and the remedy in one line."""

    name: str
    group: str
    state: State
    detail: str
    rule: str
    remedy: str


@dataclass(frozen=True, slots=True)
class LessonState:
    """What a lesson can show here: everything (yes), its main point (limited), or a recording (no), and what it misses."""

    lesson: str
    title: str
    state: State
    missing: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Report:
    """What this machine can do, as this user."""

    features: tuple[Feature, ...]
    host: Mapping[str, str]
    elapsed_s: float

    def __getitem__(self, name: str) -> Feature:
        """Return the row called ``name``. Raises: KeyError."""
        return {feature.name: feature for feature in self.features}[name]

    def lesson(self, lesson: str) -> LessonState:
        """Return what the lesson can show here. Raises: InvalidSpec for an unknown one."""
        wanted = needs(lesson)
        required = tuple(name for name in wanted.requires if self[name].state == "no")
        useful = tuple(name for name in wanted.uses if self[name].state == "no")
        state: State = "no" if required else "limited" if useful else "yes"
        return LessonState(wanted.lesson, wanted.title, state, required + useful)

    def lessons(self) -> tuple[LessonState, ...]:
        """Return what each lesson can show here."""
        return tuple(self.lesson(item.lesson) for item in LESSONS)

    def summary(self) -> str:
        """Return one sentence."""
        count = Counter(feature.state for feature in self.features)
        who = ", ".join(f"{key} {value}" for key, value in self.host.items())
        return f"{count['yes']} yes, {count['limited']} limited, {count['no']} no, in {self.elapsed_s:.1f} s ({who})."

    def table(self, *, width: int = 120, only: Container[str] | None = None) -> str:
        """Return the report as text, ``width`` columns wide; with ``only`` the rows with these names."""
        lines: list[str] = []
        for group, features in self._groups():
            rows = [_text_row(feature, width) for feature in features if only is None or feature.name in only]
            lines += [f"\n{group.upper()}", *(line for row in rows for line in row)] if rows else []
        return "\n".join(lines).lstrip("\n") + f"\n\n{self.summary()}"

    def to_json(self) -> str:
        """Return the report as JSON: ``host``, ``elapsed_s``, ``features``, ``lessons``."""
        data = {
            "host": dict(self.host),
            "elapsed_s": round(self.elapsed_s, 3),
            "features": [dataclasses.asdict(feature) for feature in self.features],
            "lessons": [dataclasses.asdict(lesson) for lesson in self.lessons()],
        }
        return json.dumps(data, indent=1, ensure_ascii=False)

    def to_html(self) -> str:
        """Return the report as one HTML table; every cell is text."""
        head = "".join(
            f'<th scope="col">{title}</th>' for title in ("Feature", "State", "Found", "Rule that refuses", "Remedy")
        )
        body = "".join(_html_group(group, features) for group, features in self._groups())
        caption = f"<caption>What this machine can do, as this user: {html.escape(self.summary())}</caption>"
        return f'<table class="labkit-doctor">{caption}<thead><tr>{head}</tr></thead>{body}</table>'

    def _groups(self) -> Iterator[tuple[str, list[Feature]]]:
        for group in dict.fromkeys(feature.group for feature in self.features):
            yield group, [feature for feature in self.features if feature.group == group]

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        return {"text/plain": self.table(), "text/html": self.to_html()}


def _text_row(feature: Feature, width: int) -> list[str]:
    parts = (feature.detail, feature.rule and f"Rule: {feature.rule}.", feature.remedy and f"Remedy: {feature.remedy}")
    head = f"  {feature.name:<{_NAME_WIDTH}}{_SIGNS[feature.state]:<{_STATE_WIDTH}} "
    first, *others = [part for part in parts if part] or [""]
    indent = " " * len(head)
    lines = textwrap.wrap(first, width, initial_indent=head, subsequent_indent=indent) or [head.rstrip()]
    for part in others:
        lines += textwrap.wrap(part, width, initial_indent=indent, subsequent_indent=indent)
    return lines


def _html_group(group: str, features: list[Feature]) -> str:
    rows = "".join(_html_row(feature) for feature in features)
    return f'<tbody><tr><th scope="rowgroup" colspan="5">{html.escape(group)}</th></tr>{rows}</tbody>'


def _html_row(feature: Feature) -> str:
    cells = (_SIGNS[feature.state], feature.detail, feature.rule, feature.remedy)
    texts = "".join(f"<td>{html.escape(text)}</td>" for text in cells)
    return f'<tr><th scope="row">{html.escape(feature.name)}</th>{texts}</tr>'

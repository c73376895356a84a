"""A question with answers to choose from, and a reply to each of them: why it is right, or what it overlooks.

A quiz closes a section. It may be tried as often as one likes; the reply is the lesson, so every answer has one.

Leaves out: marks, time limits, several right answers at once.
See: WAI-ARIA Authoring Practices, radio group.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from labkit.errors import InvalidSpec
from labkit.lesson.display import EDGES, note
from labkit.lesson.progress import record
from labkit.widgets import layout

__all__ = ["Answer", "Quiz", "quiz"]


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer and the reply to it. Exactly one answer of a quiz is ``right``."""

    text: str
    reply: str
    right: bool = False


def quiz(question: str, answers: Sequence[Answer]) -> Quiz:
    """Return a quiz to show as the last line of its cell.

    Raises: InvalidSpec unless there are two or more different answers, each with a reply, and exactly one is right.
    """
    if len({answer.text for answer in answers}) < max(2, len(answers)):
        raise InvalidSpec("quiz() needs at least two different answers.")
    if sum(answer.right for answer in answers) != 1:
        raise InvalidSpec(f"exactly one answer of the quiz {question!r} must be right=True.")
    silent = [answer.text for answer in answers if not answer.reply.strip()]
    if silent:
        raise InvalidSpec(f"every answer needs a reply that explains it; {silent[0]!r} has none.")
    return Quiz(question, answers)


class Quiz:
    """One question on show; `choose` answers it from a cell, the radio buttons from the page."""

    def __init__(self, question: str, answers: Sequence[Answer]) -> None:
        self.question = " ".join(question.split())
        self.answers = tuple(answers)
        self.tries = 0
        self._widget: Any = None
        self._line: Any = None

    def __repr__(self) -> str:
        return f"Quiz: {self.question} ({' / '.join(answer.text for answer in self.answers)})"

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        """Return the widget, or question and answers where no widget can be drawn; IPython calls this."""
        if self._widget is None:
            self._widget = self._build()
        return layout.mimebundle(self._widget, plain=repr(self), html_text=self._still_html())

    def choose(self, text: str) -> str:
        """Answer with ``text``; return and show the reply. Raises: InvalidSpec if it is none of the answers."""
        chosen = next((answer for answer in self.answers if answer.text == text), None)
        if chosen is None:
            raise InvalidSpec(f"{text!r} is none of the answers to {self.question!r}.")
        self.tries += 1
        reply = f"{'Right' if chosen.right else 'Not quite'}: {chosen.reply}"
        if chosen.right:
            record("quiz", self.question, did={"tries": self.tries})
        if self._line is not None:
            layout.say(self._line, reply)
        return reply

    def _build(self) -> Any:
        self._line = layout.status("Choose an answer, with the mouse or with Tab and Space.")
        radio = layout.choice([answer.text for answer in self.answers], label=self.question, on_choice=self.choose)
        return layout.column(layout.heading("Quiz", self.question), radio, self._line, edge=EDGES["quiz"])

    def _still_html(self) -> str:
        items = "".join(f"<li>{html.escape(answer.text)}</li>" for answer in self.answers)
        return note("quiz", f"<strong>Quiz.</strong> {html.escape(self.question)}<ul>{items}</ul>")

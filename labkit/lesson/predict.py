"""Say what will happen before it does: a question with options or a number, remembered, and compared with the event.

A prediction that turns out wrong is remembered better than an explanation, but only if it was made. The widget never waits for
one: Restart and Run All goes through it, and the comparison then says that none was made. Its text is the same on every run
without a student, so nbval can compare it.

Leaves out: forcing an answer; free text.
"""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from typing import Any

from labkit.errors import InvalidSpec
from labkit.lesson.display import EDGES, Text, note, show_text
from labkit.lesson.progress import record
from labkit.widgets import layout

__all__ = ["Prediction", "predict"]

#: A number within this factor of what happened counts as right: the point is the order of magnitude.
CLOSE_FACTOR = 2.0


def predict(
    question: str,
    *,
    options: Sequence[str] | None = None,
    unit: str | None = None,
    answer: object = None,
    why: str = "",
) -> Prediction:
    """Return a prediction to show as the last line of its cell; give either ``options`` or the ``unit`` of a number.

    ``answer`` is what will happen, if it is the same everywhere; else hand the observed value to `Prediction.compare`.
    ``why`` is shown with the comparison. Raises: InvalidSpec for both or neither kind, or an answer that is no option.
    """
    if (options is None) == (unit is None):
        raise InvalidSpec("predict() takes either options=[...] or unit='ms', not both and not neither.")
    if options is not None and (len(options) < 2 or len(set(options)) != len(options)):
        raise InvalidSpec("predict() needs at least two different options.")
    if options is not None and answer is not None and str(answer) not in options:
        raise InvalidSpec(f"the answer {answer!r} is none of the options {list(options)}.")
    return Prediction(question, options=options, unit=unit, answer=answer, why=why)


class Prediction:
    """One question, the student's answer if there is one, and the comparison."""

    def __init__(
        self, question: str, *, options: Sequence[str] | None, unit: str | None, answer: object, why: str
    ) -> None:
        self.question = " ".join(question.split())
        self.options = tuple(options or ())
        self.unit = unit or ""
        self.answer = answer
        self.why = why
        self.said: str | float | None = None
        self._widget: Any = None
        self._input: Any = None
        self._line: Any = None

    def __repr__(self) -> str:
        choices = " / ".join(self.options) or f"a number of {self.unit}"
        return f"Predict: {self.question} ({choices})"

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        """Return the widget, or the question alone where no widget can be drawn; IPython calls this."""
        if self._widget is None:
            self._widget = self._build()
        return layout.mimebundle(self._widget, plain=repr(self), html_text=self._still_html())

    def say(self, said: str | float) -> None:
        """Make the prediction from a cell instead of with the mouse. Raises: InvalidSpec for what is no option."""
        if self.options and said not in self.options:
            raise InvalidSpec(f"{said!r} is none of the options {list(self.options)}.")
        self.said = said if self.options else float(said)
        record("predict", self.question, did={"said": self.said})
        if self._line is not None:
            layout.say(self._line, f"Noted: you predict {self._shown(self.said)}. Now run the next cell.")

    def compare(self, happened: object = None) -> None:
        """Show the prediction beside what ``happened`` (default: the known answer); a prediction that was made then stays.

        Raises: InvalidSpec if neither is known.
        """
        happened = self.answer if happened is None else happened
        if happened is None:
            raise InvalidSpec(f"compare() needs what happened: {self.question!r} was asked without an answer.")
        if self.said is not None:
            if self._input is not None:
                self._input.disabled = True
            record("predict", self.question, did={"said": self.said, "happened": str(happened)})
        sentence = self._verdict(happened)
        plain = f"What happened: {sentence} {self.why}".strip()
        body = f"<strong>What happened.</strong> {html.escape(sentence)} {html.escape(self.why)}".strip()
        show_text(Text(plain=plain, html=note("predict", body)))

    def _verdict(self, happened: object) -> str:
        shown = self._shown(happened)
        if self.said is None:
            return f"{shown}. You made no prediction."
        if self._is_right(happened):
            return f"{shown}. You predicted {self._shown(self.said)}: right."
        return f"{shown}. You predicted {self._shown(self.said)}."

    def _is_right(self, happened: object) -> bool:
        if self.options:
            return self.said == str(happened)
        said, number = float(self.said or 0), float(str(happened))
        if said == number:
            return True
        return said * number > 0 and abs(math.log(said / number)) <= math.log(CLOSE_FACTOR)

    def _shown(self, value: object) -> str:
        return str(value) if self.options else f"{float(str(value)):.3g} {self.unit}"

    def _build(self) -> Any:
        question = layout.heading("Predict", self.question)
        self._line = layout.status("Nothing predicted yet.")
        if self.options:
            self._input = layout.choice(self.options, label=self.question, on_choice=self.say)
            return layout.column(question, self._input, self._line, edge=EDGES["predict"])
        self._input = layout.number(label="Your prediction", unit=self.unit)
        self._input.observe(lambda change: self.say(change["new"]), names="value")
        keep = layout.button(
            "Keep", does="Keep this number as your prediction", on_click=lambda: self.say(self._input.value)
        )
        return layout.column(question, layout.row(self._input, keep), self._line, edge=EDGES["predict"])

    def _still_html(self) -> str:
        choices = "".join(f"<li>{html.escape(option)}</li>" for option in self.options)
        asked = f"<strong>Predict.</strong> {html.escape(self.question)}"
        return note(
            "predict", asked + (f"<ul>{choices}</ul>" if choices else f" (a number of {html.escape(self.unit)})")
        )

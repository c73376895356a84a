"""A task that is judged by what it did to the system, never by how the answer is written.

A judge looks at the effect: a host name read inside, a limit read back from the cgroup, a process that is gone. It takes the steps
of the task in order and stops at the first one that is not there yet; the reply says what the system looks like now and, from
the second try at the same step on, gives one hint more. An exercise cell left as it was is "not yet" and raises nothing, so Restart and Run
All goes through; the folded solution must pass, or its cell raises, so the tests notice when a solution has rotted.

Leaves out: time limits (the caller's processes have their own); judging two students against each other.
"""

from __future__ import annotations

import dataclasses
import html
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from typing import Any

from labkit.errors import InvalidSpec, LabkitError
from labkit.lesson.check import CheckFailed
from labkit.lesson.display import note
from labkit.lesson.needs import Need
from labkit.lesson.progress import record

__all__ = ["Exercise", "Step", "Verdict", "exercise"]

#: A hint, or a function of what the step saw that makes one ("the host name is 'vm'; ...").
Hint = str | Callable[[Any], str]


@dataclass(frozen=True, slots=True)
class Step:
    """One effect. ``look`` reads it off the subject; it is there if that equals ``want`` (or ``want(seen)`` is true)."""

    claim: str
    look: Callable[[Any], Any]
    want: Any = True
    hints: Sequence[Hint] = ()

    def holds(self, seen: Any) -> bool:
        """Return whether what was ``seen`` is what the task asks for."""
        return bool(self.want(seen)) if callable(self.want) else bool(seen == self.want)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What the judge found: the step that is missing (none if passed), what was seen instead, the hints earned so far."""

    passed: bool
    task: str
    missing: str = ""
    seen: str = ""
    hints: tuple[str, ...] = ()

    def __repr__(self) -> str:
        if self.passed:
            return f"pass: {self.task}"
        lines = [f"not yet: {self.missing}. Now: {self.seen}", *(f"Hint: {hint}" for hint in self.hints)]
        return "\n".join(lines)

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        """Return the verdict as text and as a box; IPython calls this."""
        first, *rest = (html.escape(text) for text in repr(self).split("\n"))
        word, said = first.split(":", 1)
        body = f'<div role="status"><strong>{word}:</strong>{said}{"".join(f"<br>{line}" for line in rest)}</div>'
        return {"text/plain": repr(self), "text/html": note(word, body)}


def exercise(task: str, *, steps: Sequence[Step]) -> Exercise:
    """Return an exercise to show as the last line of its cell. Raises: InvalidSpec without a task or steps."""
    if not task.strip() or not steps:
        raise InvalidSpec("exercise() needs a task in words and at least one Step that looks at its effect.")
    return Exercise(task, steps)


class Exercise:
    """One task, its judge, and how often each step has been missed."""

    def __init__(self, task: str, steps: Sequence[Step]) -> None:
        self.task = " ".join(task.split()).rstrip(".")
        self.steps = tuple(steps)
        self.passed = False
        self._misses: dict[str, int] = {}

    def __repr__(self) -> str:
        return f"Exercise: {self.task}."

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        """Return the task and what will be looked at; IPython calls this."""
        looked_at = "".join(f"<li>{html.escape(step.claim)}</li>" for step in self.steps)
        body = f"<strong>Exercise.</strong> {html.escape(self.task)}.<br>It is done when:<ul>{looked_at}</ul>"
        return {"text/plain": repr(self), "text/html": note("note", body)}

    def judge(self, attempt: Any) -> Verdict:
        """Look at what ``attempt`` made and return the verdict; a function is called, a context manager entered and left.

        Nothing made (None, ``...``) and errors of labkit and the kernel are "not yet", with the error as what was seen.
        """
        verdict = self._look(attempt)
        if verdict.passed:
            self.passed = True
            record("exercise", self.task, did={"missed": sum(self._misses.values())})
            return verdict
        earned = self._misses.get(verdict.missing, 0)
        self._misses[verdict.missing] = earned + 1
        return dataclasses.replace(verdict, hints=verdict.hints[:earned])

    def prove(self, solution: Any, *, here: Need | bool = True) -> None:
        """Judge the author's ``solution`` and print one stable line; where ``here`` is refused, it is not tried.

        Raises: CheckFailed if it misses a step.
        """
        if not here:
            print("not shown here: the solution does what the exercise asks for")
            return
        verdict = self._look(solution)
        if not verdict.passed:
            raise CheckFailed(f"the solution of {self.task!r} reaches: {verdict.missing}", got=verdict.seen)
        print("pass: the solution does what the exercise asks for")

    def _look(self, attempt: Any) -> Verdict:
        """Return the first step that is missing, with all of its hints, or that all are there."""
        first = self.steps[0]
        with ExitStack() as stack:
            try:
                subject = attempt() if callable(attempt) else attempt
                if subject is None or subject is ...:
                    return self._missing(first, None, "nothing has been made: the exercise cell is as it was")
                if isinstance(subject, AbstractContextManager):
                    subject = stack.enter_context(subject)
            except (LabkitError, OSError) as error:
                return self._missing(first, None, str(error))
            for step in self.steps:
                try:
                    seen = step.look(subject)
                except (LabkitError, OSError) as error:
                    return self._missing(step, None, str(error))
                if not step.holds(seen):
                    return self._missing(step, seen, repr(seen))
        return Verdict(passed=True, task=self.task)

    def _missing(self, step: Step, seen: Any, shown: str) -> Verdict:
        told = (hint for hint in step.hints if seen is not None or not callable(hint))
        hints = tuple(hint(seen) if callable(hint) else hint for hint in told)
        return Verdict(passed=False, task=self.task, missing=step.claim, seen=shown, hints=hints)

"""Ask what this machine allows before a lesson tries it, so that a refusal is a sentence and not an error.

::

    memory = lesson.needs("cgroup memory")        # true, or a note with the rule that refuses and the remedy
    if memory:
        end = run(Container(hog, limits=...)).exit
    lesson.check("a process over its limit is killed", memory and end.oom_killed, got=memory and end)

A refused `Need` is false, so ``memory and ...`` hands it on untouched; `labkit.lesson.check` and an exercise's ``prove`` then say
``not shown here`` where they otherwise say ``pass``. (The tests of the notebooks take the two words for one another, and
demand ``pass`` of the notebooks that are handed out.)

The doctor answers, by trying, once a process: it takes a second or two.

Leaves out: recordings of what a machine refuses (`labkit.lesson.recorded`, `labkit.lesson.stand_in`).
See: `labkit.doctor`.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any

from labkit.doctor import FEATURES, Feature, Report, examine
from labkit.errors import InvalidSpec
from labkit.lesson.display import note
from labkit.lesson.progress import current_notebook
from labkit.widgets.cells import running_shell

__all__ = ["Need", "needs", "report"]


class Need:
    """Whether this machine, for this user, has all of some features; false if not, and then it says why."""

    def __init__(self, features: tuple[str, ...], *, answers: Report) -> None:
        self.features = features
        self.refused = tuple(answers[name] for name in features if answers[name].state == "no")

    def __bool__(self) -> bool:
        return not self.refused

    def __repr__(self) -> str:
        if not self.refused:
            return f"This machine has what comes now: {', '.join(self.features)}."
        by_rule: dict[str, list[Feature]] = {}
        for item in self.refused:
            by_rule.setdefault(item.rule, []).append(item)
        return "Not on this machine: " + " ".join(_refusal(rule, items) for rule, items in by_rule.items())

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        """Return the answer as a note; IPython calls this."""
        body = html.escape(repr(self))
        if self.refused:
            body += " <em>The cells below go on; where something cannot be shown, they say so.</em>"
        return {"text/plain": repr(self), "text/html": note("not yet" if self.refused else "note", body)}


#: How long the second question may take; the doctor returns as soon as it has all answers.
_PATIENT_S = 20.0
_report: Report | None = None
_stands_in = False


def report(*, again: bool = False) -> Report:
    """Return the doctor's report on this machine, taken once a process; or taken ``again``, with all the time it needs."""
    global _report
    if again:
        _report = examine(timeout_s=_PATIENT_S)
    elif _report is None:
        _report = examine()
    return _report


def needs(*features: str) -> Need:
    """Return whether this machine has ``features``, in the doctor's names (``"cgroup memory"``, ``"time namespace"``).

    Raises: InvalidSpec for a name that the doctor does not know.
    """
    unknown = [name for name in features if name not in FEATURES]
    if unknown or not features:
        raise InvalidSpec(f"The doctor knows no feature {unknown or features!r}: `labkit doctor` lists their names.")
    need = Need(features, answers=report())
    # On a slow or busy machine probes miss their deadline: a refusal is worth asking for twice.
    need = need or Need(features, answers=report(again=True))
    if not need and report()["user namespace"].state == "no":
        _let_recordings_stand_in()
    return need


def _let_recordings_stand_in() -> None:
    """From the next cell on, show what this lesson's cells gave elsewhere where they cannot run; once a process."""
    global _stands_in
    shell = running_shell()
    if shell is None or _stands_in:
        return
    from labkit.lesson import stand_in  # only on a machine that refuses nearly everything

    _stands_in = True
    stand_in.begin(shell, rule=report()["user namespace"].rule, notebook=current_notebook())


def _refusal(rule: str, items: Sequence[Feature]) -> str:
    names = ", ".join(item.name for item in items)
    remedies = " ".join(dict.fromkeys(_sentence(item.remedy) for item in items))
    return f"{names}. The rule: {_sentence(rule)} What would change it: {remedies}"


def _sentence(text: str) -> str:
    return text if text.endswith((".", "!", "?")) else f"{text}."

"""What a probe answers: yes, limited or no, what was found, the rule that refuses, and what to do about it.

Leaves out: how it is shown (`labkit.doctor.report`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["Answer", "State", "expect", "limited", "no", "yes"]

State = Literal["yes", "limited", "no"]


@dataclass(frozen=True, slots=True)
class Answer:
    """The outcome of one probe. ``rule`` names what refuses, ``remedy`` says in one line what would change that."""

    state: State
    detail: str = ""
    rule: str = ""
    remedy: str = ""


def yes(detail: str = "") -> Answer:
    """The feature works: it was used."""
    return Answer("yes", detail)


def limited(detail: str, *, rule: str, remedy: str) -> Answer:
    """A part of the feature works, or it works for some only."""
    return Answer("limited", detail, rule, remedy)


def no(detail: str, *, rule: str, remedy: str) -> Answer:
    """The feature does not work here."""
    return Answer("no", detail, rule, remedy)


def expect(detail: str = "", *, holds: bool, otherwise: str) -> Answer:
    """Yes if the effect that Linux promises was seen; else no, because the kernel only pretends to have the feature."""
    if holds:
        return yes(detail)
    return no(
        otherwise, rule="this kernel does not behave as Linux does (gVisor? an emulation?)", remedy="Use Linux itself."
    )

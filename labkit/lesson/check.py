"""A claim about this machine, tested: one stable line if it holds, an error that says what is there instead if not.

A **Check** cell stands after every cell with live numbers. nbval ignores the numbers and compares this line, so the claim must be
true on every supported host and must not itself contain a number that varies.

Leaves out: partial credit; a claim holds or it does not.
"""

from __future__ import annotations

from labkit.errors import InvalidSpec, LabkitError
from labkit.lesson.needs import Need

__all__ = ["CheckFailed", "check"]


class CheckFailed(LabkitError, AssertionError):
    """A lesson's claim is false on this machine. ``got`` is what was found instead."""

    def __init__(self, claim: str, *, got: object) -> None:
        super().__init__(
            f"Not true on this machine: {claim}. Found instead: {got!r}. Run the cells above again, from the top."
        )
        self.claim = claim
        self.got = got


def check(claim: str, ok: object, *, got: object) -> None:
    """Print ``pass: <claim>`` if ``ok`` is true; ``got`` is what was observed, shown only when the claim is false.

    A refused `Need` as ``ok`` (from ``need and ...``) prints ``not shown here: <claim>`` instead.
    Raises: CheckFailed if ``ok`` is false, InvalidSpec if ``claim`` is empty.
    """
    claim = " ".join(claim.split()).rstrip(".")
    if not claim:
        raise InvalidSpec("check() needs a claim in words, as in 'the child sees itself as PID 1'.")
    if isinstance(ok, Need) and not ok:
        print(f"not shown here: {claim}")
        return
    if not ok:
        raise CheckFailed(claim, got=got)
    print(f"pass: {claim}")

"""The header ``WWW-Authenticate``: how a server says which way of logging in it takes.

One header may hold several challenges, and several headers may come; a challenge is a scheme and parameters, quoted or not::

    Bearer realm="https://auth.example.org/token",service="registry.example.org",scope="repository:alice/web:pull"
    Basic realm="registry"

Leaves out: schemes whose challenge is a single word of data (Negotiate, NTLM); they are skipped.
See: RFC 9110 section 11.6.1.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

__all__ = ["Challenge", "parse_challenges"]

_MOST_LETTERS = 8192
_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_PART = re.compile(
    rf"\s*,?\s*(?:(?P<key>{_TOKEN})\s*=\s*(?:\"(?P<quoted>(?:[^\"\\]|\\.)*)\"|(?P<bare>{_TOKEN}))|(?P<scheme>{_TOKEN})(?=\s|,|$))"
)


@dataclass(frozen=True, slots=True)
class Challenge:
    """One way of logging in; ``scheme`` and the names of ``parameters`` in small letters."""

    scheme: str
    parameters: Mapping[str, str]


def parse_challenges(headers: Iterable[str]) -> list[Challenge]:
    """Return the challenges in all ``headers``, in their order; what cannot be read ends that header's reading."""
    found: list[Challenge] = []
    for text in headers:
        position = 0
        parameters: dict[str, str] | None = None
        while match := _PART.match(text[:_MOST_LETTERS], position):
            position = match.end()
            if match["scheme"]:
                parameters = {}
                found.append(Challenge(match["scheme"].lower(), parameters))
            elif parameters is not None:
                value = match["bare"] if match["quoted"] is None else re.sub(r"\\(.)", r"\1", match["quoted"])
                parameters.setdefault(match["key"].lower(), value)
    return found

"""What a registry's refusal or misbehaviour looks like to the caller: one error class, with the registry's own code.

See: OCI Distribution Specification, "Error Codes".
"""

from __future__ import annotations

import json

from labkit.errors import ImageError

__all__ = ["Interrupted", "RegistryError", "Unreachable", "refusal"]

_MOST_LETTERS = 300


class RegistryError(ImageError):
    """A registry refused, misbehaved or could not be reached. ``status`` is HTTP's (0: no answer), ``code`` the registry's."""

    def __init__(self, message: str, *, status: int = 0, code: str = "") -> None:
        super().__init__(message)
        self.status, self.code = status, code


class Interrupted(RegistryError, ConnectionError):
    """The connection broke in the middle of something; what has come so far was right, and one can go on from there."""


class Unreachable(RegistryError):
    """Nobody answers, or nobody whom TLS trusts; later it may be otherwise."""


#: For registries that give no code: what the status means to people.
_BY_STATUS = {401: "UNAUTHORIZED", 403: "DENIED", 404: "NOT_FOUND", 413: "SIZE_INVALID", 429: "TOOMANYREQUESTS"}
_REMEDIES = {
    "UNAUTHORIZED": "log in with `labkit registry login`",
    "DENIED": "an account may write below its own name only, as in ACCOUNT/NAME",
    "MANIFEST_UNKNOWN": "look for another tag, or check the name",
    "NAME_UNKNOWN": "check the name",
    "TOOMANYREQUESTS": "try again later",
}


def refusal(what: str, host: str, status: int, body: bytes) -> RegistryError:
    """Return the error for an answer with ``status`` to ``what``; the body may hold the registry's own words."""
    code, message = _first_error(body)
    code = code or _BY_STATUS.get(status, "")
    words = code.lower().replace("_", " ") or f"status {status}"
    said = f" ({message})" if message and message.lower() != words else ""
    # A registry's own words about who may do what are better than ours.
    remedy = f"; {_REMEDIES[code]}" if code in _REMEDIES and not (said and code == "DENIED") else ""
    return RegistryError(f"{what} was refused by {host}: {words}{said}{remedy}.", status=status, code=code)


def _first_error(body: bytes) -> tuple[str, str]:
    try:
        error = json.loads(body)["errors"][0]
        return _clean(str(error.get("code") or "")), _clean(str(error.get("message") or ""))
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return "", ""


def _clean(text: str) -> str:
    # A stranger's text is on its way to a terminal.
    text = "".join(letter if letter.isprintable() else "?" for letter in text[:_MOST_LETTERS])
    return text.strip().rstrip(".")

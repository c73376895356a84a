"""What a registry answers: a status, headers and a body; or an error in the form that every client knows.

An error is JSON, ``{"errors": [{"code": ..., "message": ..., "detail": ...}]}``; the codes are a fixed list. Clients decide by code and
status and show the message to people.

See: OCI Distribution Specification, "Error Codes"; RFC 9110 section 15.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any

from labkit.errors import LabkitError

__all__ = ["CODES", "Answer", "FilePart", "Refusal", "json_answer"]

#: The error codes of the specification, with the status that goes with each where the request itself is at fault.
CODES: Mapping[str, HTTPStatus] = {
    "BLOB_UNKNOWN": HTTPStatus.NOT_FOUND,
    "BLOB_UPLOAD_INVALID": HTTPStatus.BAD_REQUEST,
    "BLOB_UPLOAD_UNKNOWN": HTTPStatus.NOT_FOUND,
    "DIGEST_INVALID": HTTPStatus.BAD_REQUEST,
    "MANIFEST_BLOB_UNKNOWN": HTTPStatus.BAD_REQUEST,
    "MANIFEST_INVALID": HTTPStatus.BAD_REQUEST,
    "MANIFEST_UNKNOWN": HTTPStatus.NOT_FOUND,
    "NAME_INVALID": HTTPStatus.NOT_FOUND,
    "NAME_UNKNOWN": HTTPStatus.NOT_FOUND,
    "SIZE_INVALID": HTTPStatus.BAD_REQUEST,
    "UNAUTHORIZED": HTTPStatus.UNAUTHORIZED,
    "DENIED": HTTPStatus.FORBIDDEN,
    "UNSUPPORTED": HTTPStatus.METHOD_NOT_ALLOWED,
    "TOOMANYREQUESTS": HTTPStatus.TOO_MANY_REQUESTS,
}


@dataclass(frozen=True, slots=True)
class FilePart:
    """A body that lies in a file: ``length`` bytes from ``offset``. It is sent without passing through Python."""

    path: Path
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class Answer:
    """What goes back. ``length`` is for a HEAD request's header where there is no body to measure."""

    status: HTTPStatus
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | FilePart = b""

    @property
    def length(self) -> int:
        """How many bytes the body has."""
        return self.body.length if isinstance(self.body, FilePart) else len(self.body)


class Refusal(LabkitError):
    """A request that is not carried out: ``code`` from the list, a sentence, and what the client may use to do better."""

    def __init__(
        self,
        code: str,
        message: str = "",
        *,
        detail: Any = None,
        status: HTTPStatus | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message or code)
        self.code, self.detail, self.headers = code, detail, headers or {}
        self.status = status or CODES[code]

    def answer(self) -> Answer:
        """Return the error as the specification has it written."""
        error = {"code": self.code, "message": str(self), "detail": self.detail}
        return json_answer({"errors": [error]}, status=self.status, headers=self.headers)


def json_answer(
    data: Any,
    *,
    status: HTTPStatus = HTTPStatus.OK,
    kind: str = "application/json",
    headers: dict[str, str] | None = None,
) -> Answer:
    """Return ``data`` as JSON of the media type ``kind``."""
    return Answer(status, {"Content-Type": kind, **(headers or {})}, json.dumps(data).encode() + b"\n")

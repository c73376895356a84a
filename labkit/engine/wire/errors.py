"""Errors on the wire: a status and ``{"message": "..."}``, in Docker's words where a client reads them.

The `docker` client decides on some of these words: the exit status of ``docker run`` is 127 when the message of a failed start
says "executable file not found", 126 when it says "permission denied". So messages are part of the interface here.

See: Docker Engine API, "Errors".
"""

from __future__ import annotations

from labkit.errors import DeadlineExceeded, FeatureMissing, ImageError, InvalidSpec, InvalidState, LabkitError

__all__ = ["ApiError", "BadParameter", "Conflict", "NotFound", "NotModified", "as_api_error"]


class ApiError(LabkitError):
    """An answer that is an error: ``status`` is HTTP's, the message goes to the client as it is."""

    status = 500

    def __init__(self, message: str, *, status: int | None = None) -> None:
        super().__init__(message)
        if status is not None:
            self.status = status


class BadParameter(ApiError):
    """The request says something that cannot be: 400."""

    status = 400


class NotFound(ApiError):
    """There is no such container, image, network, volume, exec or path: 404."""

    status = 404


class Conflict(ApiError):
    """The request does not fit the state of the object: 409."""

    status = 409


class NotModified(ApiError):
    """Nothing to do: already started, already stopped: 304, which has no body."""

    status = 304


_STATUS_OF: tuple[tuple[type[LabkitError], int], ...] = (
    (InvalidSpec, 400),
    (InvalidState, 409),
    (FeatureMissing, 501),
    (ImageError, 500),
    (DeadlineExceeded, 500),
)


def as_api_error(error: LabkitError) -> ApiError:
    """Return ``error`` as something that can be answered; what labkit raises has a status by its type."""
    if isinstance(error, ApiError):
        return error
    status = next((number for kind, number in _STATUS_OF if isinstance(error, kind)), 500)
    return ApiError(str(error), status=status)

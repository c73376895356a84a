"""The errors a reader of labkit can meet.

::

    LabkitError                 something labkit was asked to do did not happen
    |-- FeatureMissing          this machine lacks a part, or a rule of it refuses; carries the remedy
    |-- InvalidSpec             what was asked for cannot be: unknown size, negative limit, missing command (your input)
    |-- InvalidState            right request at the wrong moment: exec into a container that has ended
    |-- SetupError              a step between clone and exec was refused; names the step and the errno
    |-- ImageError              an image, layer or registry answer is not what it says it is
    |-- GuestError              a virtual machine failed, hung or panicked
    `-- DeadlineExceeded        the time limit that the caller set has passed

``labkit.linux`` raises plain `OSError`, as `os` does. Everything above it raises one of these *from* it.

See: errno(3).
"""

from __future__ import annotations

__all__ = [
    "DeadlineExceeded",
    "FeatureMissing",
    "GuestError",
    "ImageError",
    "InvalidSpec",
    "InvalidState",
    "LabkitError",
    "SetupError",
]


class LabkitError(Exception):
    """Base of all errors that labkit raises on purpose; the message is one sentence and what to do."""


class FeatureMissing(LabkitError):
    """The machine lacks something; nobody's input is wrong. ``remedy`` says what would change that."""

    def __init__(self, message: str, *, remedy: str = "") -> None:
        super().__init__(f"{message} {remedy}".strip())
        self.remedy = remedy


class InvalidSpec(LabkitError, ValueError):
    """The request itself is wrong; nothing was started. The caller must change it."""


class InvalidState(LabkitError):
    """The object is not in a state in which this can be done (already started, already ended)."""


class SetupError(LabkitError):
    """The kernel refused a step between ``clone3`` and ``execve``; the half-made container is gone.

    ``step`` is the launcher's name of the step ("mount /proc"), ``errno`` the kernel's answer.
    """

    # The defaults are for pickle, which makes the error from its message and fills in the rest afterwards.
    def __init__(self, message: str, *, step: str = "", errno: int = 0) -> None:
        super().__init__(message)
        self.step = step
        self.errno = errno


class ImageError(LabkitError):
    """An image, a layer or a registry's answer is damaged, lies, or goes past a limit."""


class GuestError(LabkitError):
    """A virtual machine could not start, panicked, hung or went away."""


class DeadlineExceeded(LabkitError, TimeoutError):
    """The caller's time limit passed; what was running has been ended."""

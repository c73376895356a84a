"""What goes wrong in a build, with the line of the Containerfile that it belongs to.

::

    InvalidSpec
    `-- ContainerfileError   the text is wrong: nothing was built, no container was started
    ImageError
    `-- BuildError           an instruction could not be carried out: a file is missing, a command failed
        `-- BuildCancelled   somebody asked for the end

The sentences begin as Docker's do, because that is what people look for; labkit adds what to do.

See: dockerfile(5), `labkit.errors`.
"""

from __future__ import annotations

from labkit.errors import ImageError, InvalidSpec

__all__ = ["BuildCancelled", "BuildError", "ContainerfileError"]


class ContainerfileError(InvalidSpec):
    """The Containerfile cannot be read; ``line`` counts from 1 (0: the file as a whole)."""

    def __init__(self, message: str, *, line: int = 0) -> None:
        where = f"dockerfile parse error on line {line}: " if line else ""
        message = message if message.endswith((".", "?", ")", "…")) else f"{message}."
        super().__init__(message if message.startswith(where) and where else where + message)
        self.line = line


class BuildError(ImageError):
    """An instruction failed; ``line`` is where it stands, ``code`` the exit status of a RUN command (0: not a command)."""

    def __init__(self, message: str, *, line: int = 0, code: int = 0) -> None:
        super().__init__(message)
        self.line = line
        self.code = code


class BuildCancelled(BuildError):
    """The caller's event was set; the step that ran was ended and nothing of it is kept."""

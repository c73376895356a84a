"""Routes: which function answers which path.

A pattern such as ``/containers/{id}/json`` is a path with names in it; ``{name...}`` takes slashes, too, as the names of images
have them. Paths may begin with a version (``/v1.41``), which says how the client wants its answers.

See: Docker Engine API, "Versioning".
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote

from labkit.engine.wire.errors import ApiError, BadParameter, NotFound
from labkit.engine.wire.reply import Reply
from labkit.engine.wire.request import Request

__all__ = ["MAX_VERSION", "MIN_VERSION", "Handler", "Router", "Routes", "split_version", "version_text"]

#: What this engine speaks, and the oldest that it answers to.
MAX_VERSION, MIN_VERSION = (1, 44), (1, 24)
_VERSION = re.compile(r"/v(\d+)\.(\d+)(?=/)")
_NAME = re.compile(r"\{(\w+)(\.\.\.)?\}")

Handler = Callable[[Any, Request], Reply]


def version_text(version: tuple[int, int]) -> str:
    """Return ``1.44``."""
    return f"{version[0]}.{version[1]}"


def split_version(path: str) -> tuple[tuple[int, int], str]:
    """Return the version that ``path`` begins with (without one: ours) and the rest. Raises: BadParameter."""
    match = _VERSION.match(path)
    if match is None:
        return MAX_VERSION, path
    version = (int(match.group(1)), int(match.group(2)))
    asked = version_text(version)
    if version < MIN_VERSION:
        raise BadParameter(
            f"client version {asked} is too old. Minimum supported API version is {version_text(MIN_VERSION)}, "
            "please upgrade your client to a newer version"
        )
    if version > MAX_VERSION:
        raise BadParameter(
            f"client version {asked} is too new. Maximum supported API version is {version_text(MAX_VERSION)}"
        )
    return version, path[match.end() :]


class Routes:
    """The routes of one module: ``@routes.get("/info")`` above a handler."""

    def __init__(self) -> None:
        self.table: list[tuple[str, str, Handler]] = []

    def get(self, pattern: str) -> Callable[[Handler], Handler]:
        """Return a decorator for the handler of ``GET pattern``; HEAD is answered by it, too."""
        return self.on("GET", pattern)

    def post(self, pattern: str) -> Callable[[Handler], Handler]:
        """Return a decorator for the handler of ``POST pattern``."""
        return self.on("POST", pattern)

    def delete(self, pattern: str) -> Callable[[Handler], Handler]:
        """Return a decorator for the handler of ``DELETE pattern``."""
        return self.on("DELETE", pattern)

    def on(self, method: str, pattern: str) -> Callable[[Handler], Handler]:
        """Return a decorator for the handler of ``method pattern``."""

        def note(handler: Handler) -> Handler:
            self.table.append((method, pattern, handler))
            return handler

        return note


class Router:
    """All routes of the engine."""

    def __init__(self, *groups: Routes) -> None:
        entries = [entry for group in groups for entry in group.table]
        self._entries = [(method, _compile(pattern), handler) for method, pattern, handler in entries]

    def find(self, method: str, path: str) -> tuple[Handler, dict[str, str]]:
        """Return the handler for a request and the names in its path. Raises: NotFound; ApiError with 405."""
        others = False
        for wanted, pattern, handler in self._entries:
            match = pattern.fullmatch(path)
            if match is None:
                continue
            if method == wanted or (method == "HEAD" and wanted == "GET"):
                return handler, {name: unquote(value) for name, value in match.groupdict().items()}
            others = True
        if others:
            raise ApiError(f"method {method} is not allowed for {path}", status=405)
        raise NotFound("page not found")


def _compile(pattern: str) -> re.Pattern[str]:
    def group(match: re.Match[str]) -> str:
        return f"(?P<{match.group(1)}>{'.+?' if match.group(2) else '[^/]+'})"

    return re.compile(_NAME.sub(group, pattern), re.DOTALL)

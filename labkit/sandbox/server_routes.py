"""Which addresses the course's server answers: a list, and nothing beside it.

JupyterLab's server does more than a lesson needs, on the host, with the rights of its user: it opens terminals, installs
packages (the extension manager), runs a build, starts language servers, converts notebooks with TeX and a browser, and whatever else
an extension of the environment brings. A rule in front of all others lets pass what is on the list; the rest is "not found".

Conversions are cut down to those that only write text. A notebook can name the converter of the format ``script``, PDF goes through
programs that read any file for it, and templates would be looked for in the working folder, which a student may have filled.

Leaves out: who may ask (the token, or JupyterHub).
See: Jupyter Server, "Server Extensions"; tornado.routing; nbconvert, "Exporters".
"""

from __future__ import annotations

import re
from typing import Any

from jupyter_server.base.handlers import APIHandler, JupyterHandler
from jupyter_server.nbconvert.handlers import NbconvertFileHandler
from tornado.httputil import HTTPServerRequest
from tornado.routing import Matcher, Rule
from tornado.web import HTTPError, authenticated
from typing_extensions import override

__all__ = ["ANSWERED", "FORMATS", "READ_ONLY", "REFUSED", "Refused", "is_answered"]

#: What notebooks can be exported to: name and type.
FORMATS = {
    "html": "text/html",
    "markdown": "text/markdown",
    "python": "text/x-python",
    "slides": "text/html",
}
#: Below the server's base address; a word stands for itself and all below it.
ANSWERED = (
    "lab", "doc", "static", "login", "logout", "files", "view", "nbconvert", "kernelspecs", "favicon.ico", "custom",
    "api", "api/contents", "api/kernels", "api/kernelspecs", "api/sessions", "api/status", "api/me", "api/nbconvert", "api/config", "lsp/status",
    "api/spec.yaml", "api/events", "api/security", "api/shutdown", "oauth_callback", "hub", "logo", "metrics",
)  # fmt: skip
#: Below what is answered, and not for a lesson; of the second kind JupyterLab's page asks how things are, which does no harm.
REFUSED = ("lab/api/update", "lab/api/news")
READ_ONLY = ("lab/api/build", "lab/api/extensions", "lab/api/plugins")
_READS = ("GET", "HEAD", "OPTIONS")
_EXACTLY = ("api",)


class Refused(JupyterHandler):
    """Answers "not found", whoever asks and whatever for."""

    @override
    async def prepare(self, *_: Any, **__: Any) -> None:
        raise HTTPError(404, "The course's server does not offer this.")


class Formats(APIHandler):
    """The list of formats for the menu "Save and Export Notebook As"."""

    @authenticated
    async def get(self) -> None:
        """Answer with name and type of each format."""
        await self.finish({name: {"output_mimetype": kind} for name, kind in FORMATS.items()})


class NoLanguageServers(APIHandler):
    """What JupyterLab's editor asks before it would use a language server: there is none, as they are programs of the host."""

    @authenticated
    async def get(self) -> None:
        """Answer with an empty list."""
        await self.finish({"version": 2, "sessions": {}, "specs": {}})


class Converted(NbconvertFileHandler):
    """A notebook in one of the formats."""

    @authenticated
    @override
    async def get(self, format: str, path: str) -> None:
        if format not in FORMATS:
            raise HTTPError(404, f"Notebooks are exported as {', '.join(FORMATS)} here.")
        answer = super().get(format, path)
        if answer is not None:
            await answer


class _NotOnTheList(Matcher):
    def __init__(self, base_url: str) -> None:
        self.base_url = base_url

    @override
    def match(self, request: HTTPServerRequest) -> dict[str, Any] | None:
        """Return None, which lets the next rule have it, for what is on the list."""
        path = request.path
        if not path.startswith(self.base_url):
            return None  # sent on to the base address
        return None if is_answered(request.method or "", path[len(self.base_url) :]) else {}


def is_answered(method: str, path: str) -> bool:
    """Tell whether a request for ``path``, below the base address, is on the list."""
    names = re.sub(r"/+", "/", path).strip("/")
    if not names:
        return True
    if any(_is_below(names, refused) for refused in REFUSED):
        return False
    if method not in _READS and any(_is_below(names, word) for word in READ_ONLY):
        return False
    return any(names == word if word in _EXACTLY else _is_below(names, word) for word in ANSWERED)


def _is_below(path: str, word: str) -> bool:
    return path == word or path.startswith(word + "/")


def _jupyter_server_extension_points() -> list[dict[str, Any]]:
    return [{"module": __name__}]


def _load_jupyter_server_extension(serverapp: Any) -> None:
    """Put the rules in front of all others; called by the Jupyter server while it starts."""
    base_url: str = serverapp.base_url
    escaped = re.escape(base_url)
    own = [
        (rf"{escaped}lsp/status", NoLanguageServers),
        (rf"{escaped}api/nbconvert/?", Formats),
        (rf"{escaped}nbconvert/([^/]+)(/.*)", Converted),
        (rf"{escaped}nbconvert.*", Refused),
    ]
    application = serverapp.web_app
    application.add_handlers(".*$", own)
    rules = application.default_router.rules
    rules.insert(0, rules.pop(-2))  # where add_handlers has put ours
    rules.insert(0, Rule(_NotOnTheList(base_url), Refused))

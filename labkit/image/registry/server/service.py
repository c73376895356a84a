"""A registry: a folder with content, accounts and settings, served over HTTP.

Each request is looked up in a list of routes, as the specification's table of end points has them; then it is decided who asks and
whether they may; then the route's method is called. Whatever goes wrong becomes an answer in the specification's form of errors.

Leaves out: a web page for people; moving repositories between accounts.
See: OCI Distribution Specification, "Endpoints".
"""

from __future__ import annotations

import errno
import logging
import re
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from pathlib import Path
from types import TracebackType
from urllib.parse import parse_qs, unquote, urlsplit

from labkit.errors import ImageError, InvalidSpec, InvalidState, LabkitError
from labkit.image.blobs import BlobStore
from labkit.image.lock import dead_entries
from labkit.image.reference import is_repository
from labkit.image.registry.server.access import Access, Caller
from labkit.image.registry.server.accounts import Accounts
from labkit.image.registry.server.answers import Answer, Refusal, json_answer
from labkit.image.registry.server.blob_routes import BlobRoutes
from labkit.image.registry.server.listener import Bounds, Listener, Request
from labkit.image.registry.server.manifest_routes import ManifestRoutes
from labkit.image.registry.server.repositories import Repositories
from labkit.image.registry.server.uploads import Uploads
from labkit.units import GiB

__all__ = ["RegistryServer", "RegistrySettings", "accounts_of"]

log = logging.getLogger(__name__)

_LOOPBACK = ("127.0.0.1", "::1", "localhost")
#: What is asked for: a pattern of the path, and which method with which right calls what.
_PATHS = {
    "base": re.compile(r"/v2/?"),
    "catalog": re.compile(r"/v2/_catalog"),
    "token": re.compile(r"/token"),
    "start": re.compile(r"/v2/(.+)/blobs/uploads/?"),
    "upload": re.compile(r"/v2/(.+)/blobs/uploads/([^/]+)"),
    "blob": re.compile(r"/v2/(.+)/blobs/([^/]+)"),
    "manifest": re.compile(r"/v2/(.+)/manifests/([^/]+)"),
    "tags": re.compile(r"/v2/(.+)/tags/list"),
    "referrers": re.compile(r"/v2/(.+)/referrers/([^/]+)"),
}
_READS, _WRITES = ("GET", "HEAD"), ("POST", "PUT", "PATCH")
_METHODS = {
    "base": _READS, "catalog": _READS, "token": _READS, "start": ("POST",), "upload": ("GET", "PATCH", "PUT", "DELETE"),
    "blob": (*_READS, "DELETE"), "manifest": (*_READS, "PUT", "DELETE"), "tags": _READS, "referrers": _READS,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class RegistrySettings:
    """How to serve. ``open_to_all`` lets a registry without accounts listen beyond this machine; ``scheme``: bearer or basic."""

    host: str = "127.0.0.1"
    port: int = 5000
    anonymous_pull: bool = True
    open_to_all: bool = False
    scheme: str = "bearer"
    certificate: Path | None = None
    key: Path | None = None
    most_blob_bytes: int = 16 * GiB
    upload_lasts_s: float = 86400.0
    chunk_min_bytes: int = 0
    bounds: Bounds = field(default_factory=Bounds)


def accounts_of(folder: Path) -> Accounts:
    """Return the accounts of the registry in ``folder``."""
    return Accounts(folder / "accounts.json")


class RegistryServer:
    """The registry in ``folder``, which is made if need be. A context manager: it serves in threads until it is closed.

    ``watch`` is told method, address and status of each request, in the thread that answers it.
    """

    def __init__(
        self,
        folder: Path,
        settings: RegistrySettings | None = None,
        *,
        watch: Callable[[str, str, int], object] = lambda *_: None,
    ) -> None:
        self._watch = watch
        self.folder, self.settings = folder, settings or RegistrySettings()
        self.accounts = accounts_of(folder)
        _check(self.settings, self.accounts)
        self.blobs = BlobStore(folder)
        self.repositories = Repositories(folder / "repositories")
        self._uploads = Uploads(
            self.blobs, folder / "sessions",
            most_bytes=self.settings.most_blob_bytes, lasts_s=self.settings.upload_lasts_s,
        )  # fmt: skip
        self.collect()
        self._access = Access(self.accounts, anonymous_pull=self.settings.anonymous_pull, scheme=self.settings.scheme)
        self._blob_routes = BlobRoutes(
            self.blobs, self.repositories, self._uploads, chunk_min_bytes=self.settings.chunk_min_bytes
        )
        self._manifest_routes = ManifestRoutes(self.blobs, self.repositories)
        self._listener: Listener | None = None
        self._thread: threading.Thread | None = None

    @property
    def address(self) -> str:
        """Where it listens: ``127.0.0.1:5000``."""
        port = self._listener.server_port if self._listener is not None else self.settings.port
        host = f"[{self.settings.host}]" if ":" in self.settings.host else self.settings.host
        return f"{host}:{port}"

    def start(self) -> None:
        """Listen, and serve in threads. Raises: OSError if the address is taken."""
        tls = None
        if self.settings.certificate is not None:
            tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            tls.load_cert_chain(self.settings.certificate, self.settings.key)
        address = (self.settings.host, self.settings.port)
        self._listener = Listener(address, self.respond, bounds=self.settings.bounds, tls=tls)
        self._thread = threading.Thread(target=self._listener.serve, name="labkit-registry", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop serving, and cut what is under way; uploads can be gone on with later. Safe to call twice."""
        if self._listener is not None and self._thread is not None:
            self._listener.stop()
            self._thread.join()
            self._listener.server_close()
            self._listener.wait_for_connections()
        self._listener = self._thread = None
        self._uploads.close()

    def __enter__(self) -> RegistryServer:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def collect(self) -> int:
        """Remove what no repository has: of killed servers, and uploads that are too old. Return how many blobs that were."""
        self._uploads.remove_old()
        with self.repositories.collecting():
            self.repositories.remove_unfinished()
            used = self.repositories.used()
            unused = [digest for digest in self.blobs.digests() if digest not in used]
            for digest in unused:
                self.blobs.delete(digest)
        for path, _ in dead_entries(self.blobs.tmp):
            path.unlink(missing_ok=True)
        return len(unused)

    def remove_uploads(self) -> int:
        """Remove every unfinished upload that nobody is writing to; return how many."""
        return self._uploads.remove_old(older_than_s=0)

    def respond(self, request: Request) -> Answer:
        """Return the answer to a request. Raises: ConnectionError, TimeoutError when the client is gone or too slow."""
        try:
            answer = self._route(request)
        except Refusal as refusal:
            answer = refusal.answer()
        except (TimeoutError, ConnectionError):
            raise
        except (LabkitError, OSError, ValueError) as error:
            log.exception("%s %s failed", request.method, request.target[:200])
            answer = _failure(error)
        self._watch(request.method, request.target, answer.status)
        common = {"Docker-Distribution-Api-Version": "registry/2.0", "X-Content-Type-Options": "nosniff"}
        return replace(answer, headers=common | answer.headers)

    def _route(self, request: Request) -> Answer:
        path, query = _split(request.target)
        kind, words = _match(path)
        if request.method not in _METHODS[kind]:
            headers = {"Allow": ", ".join(_METHODS[kind])}
            raise Refusal("UNSUPPORTED", f"{request.method} is not offered here", headers=headers)
        authorization = request.headers.get("Authorization", "")
        if kind == "token":
            return self._access.token(query, authorization)
        name = words[0] if words else ""
        if words and not is_repository(name):
            raise Refusal("NAME_INVALID", f"{name[:200]!r} is no name of a repository", detail={"name": name[:200]})
        action = "pull" if request.method in _READS and kind != "upload" else "push"
        action = "delete" if request.method == "DELETE" and kind != "upload" else action
        caller = self._admit(request, authorization, name, action, listing=kind == "catalog")
        return self._call(kind, request, words, query, caller)

    def _admit(self, request: Request, authorization: str, name: str, action: str, *, listing: bool) -> Caller:
        """Return who asks. Raises: Refusal with 401 and how to log in, or 403."""
        try:
            caller = self._access.caller(authorization)
            if not (listing and self.settings.anonymous_pull):
                self._access.demand(caller, name, action, base=request.base)
        except Refusal as refusal:
            if refusal.status == HTTPStatus.UNAUTHORIZED:
                refusal.headers = self._access.challenge(name, action, base=request.base) | refusal.headers
            raise
        return caller

    def _call(
        self, kind: str, request: Request, words: tuple[str, ...], query: dict[str, list[str]], caller: Caller
    ) -> Answer:
        blobs, manifests, method, headers = self._blob_routes, self._manifest_routes, request.method, request.headers

        name, second = (*words, "", "")[:2]

        def may_read(name: str) -> bool:
            return self._access.may_read(caller, name)

        calls: dict[str, Callable[[], Answer]] = {
            "base": lambda: json_answer({}),
            "catalog": lambda: manifests.catalog(query),
            "start": lambda: blobs.start(name, query, request.body, may_read=may_read),
            "tags": lambda: manifests.tags(name, query),
            "referrers": lambda: manifests.referrers(name, second, query),
            "blob": lambda: blobs.get(name, second, headers),
            "blob DELETE": lambda: blobs.delete(name, second),
            "manifest": lambda: manifests.get(name, second, headers),
            "manifest PUT": lambda: manifests.put(name, second, query, request.body, headers),
            "manifest DELETE": lambda: manifests.delete(name, second),
            "upload": lambda: blobs.status(name, second),
            "upload PATCH": lambda: blobs.patch(name, second, request.body, headers),
            "upload PUT": lambda: blobs.put(name, second, query, request.body, headers),
            "upload DELETE": lambda: blobs.cancel(name, second),
        }
        return calls.get(f"{kind} {method}", calls[kind])()


def _split(target: str) -> tuple[str, dict[str, list[str]]]:
    """Return path and query of what was asked for. Raises: Refusal with 400 for what is no address."""
    try:
        parts = urlsplit(target)
        return unquote(parts.path), parse_qs(parts.query, keep_blank_values=True, max_num_fields=100)
    except ValueError as error:
        raise Refusal("UNSUPPORTED", f"that is no address: {error}", status=HTTPStatus.BAD_REQUEST) from error


def _match(path: str) -> tuple[str, tuple[str, ...]]:
    for kind, pattern in _PATHS.items():
        if match := pattern.fullmatch(path):
            return kind, match.groups()
    raise Refusal("UNSUPPORTED", "there is no such end point", status=HTTPStatus.NOT_FOUND)


def _failure(error: Exception) -> Answer:
    """Return the answer to a request that failed for a reason of ours, or of the disk's."""
    status = HTTPStatus.INTERNAL_SERVER_ERROR
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        status = HTTPStatus.INSUFFICIENT_STORAGE
    what = error.strerror if isinstance(error, OSError) else str(error) if isinstance(error, ImageError) else ""
    return Refusal("UNKNOWN", what or "the registry failed; its log says how", status=status).answer()


def _check(settings: RegistrySettings, accounts: Accounts) -> None:
    if settings.scheme not in ("bearer", "basic"):
        raise InvalidSpec(f"{settings.scheme!r} is no way to log in: choose bearer or basic.")
    if (settings.certificate is None) != (settings.key is None):
        raise InvalidSpec("TLS needs a certificate and its key: give both files, or none.")
    if settings.host not in _LOOPBACK and not accounts.in_use and not settings.open_to_all:
        raise InvalidState(
            f"This registry has no accounts, and {settings.host} can be reached by others: whoever finds it could replace its"
            " images. Add an account (`labkit registry adduser NAME`), or allow it to all with --open."
        )

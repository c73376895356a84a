"""A registry as its clients see it: one host, which is asked for things and may want to know who asks.

A `RegistryClient` is a host: it finds out whether to speak TLS, logs in where it must, follows redirections a few steps and never takes a
password along to another host.

Leaves out: caching of answers; other registries than the reference names (mirrors).
See: OCI Distribution Specification, "Endpoints".
"""

from __future__ import annotations

import re
import ssl
import threading
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from urllib.parse import urljoin, urlsplit

from labkit.errors import DeadlineExceeded, InvalidSpec
from labkit.image.jsontext import MOST_BYTES, Fields, load_object
from labkit.image.reference import DEFAULT_REGISTRY, Reference
from labkit.image.registry.auth import Login
from labkit.image.registry.credentials import Credentials, credentials_file
from labkit.image.registry.failures import Interrupted, RegistryError, refusal
from labkit.image.registry.transport import FileSlice, Patience, Response, Transport, is_loopback, origin_of

__all__ = ["MOST_ERROR_BYTES", "RegistryClient"]

_HOSTS = {DEFAULT_REGISTRY: "registry-1." + DEFAULT_REGISTRY}
MOST_ERROR_BYTES = 1 << 16
_MOST_REDIRECTIONS = 5
_MOST_PAGES = 1000
_NEXT = re.compile(r"<([^>]{1,2000})>\s*;[^,]*\brel=\"?next\"?")
_MOVED = (301, 302, 303, 307, 308)


class RegistryClient:
    """One registry, ``HOST[:PORT]``. A context manager; threads may use it at once.

    Without ``credentials`` those in labkit's own file are taken. ``insecure`` allows plain HTTP to another machine.
    """

    def __init__(
        self,
        registry: str,
        *,
        credentials: Credentials | None = None,
        insecure: bool = False,
        patience: Patience | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        if Reference.parse(f"{registry}/name").registry != registry:
            raise InvalidSpec(
                f"{registry!r} is no registry: write HOST:PORT, or a host's whole name, as in localhost:5000."
            )
        self.registry = registry
        self.transport = Transport(patience=patience, tls=tls)
        self._credentials = credentials or credentials_file().get(registry)
        self._insecure = insecure
        self._host = _HOSTS.get(registry, registry)
        self._found: tuple[str, Login] | None = None
        self._lock = threading.Lock()

    @property
    def base(self) -> str:
        """The address of the registry with its scheme, found out by asking. Raises: RegistryError, DeadlineExceeded."""
        return self._reach()[0]

    def ping(self) -> None:
        """Ask whether a registry is there that lets us in. Raises: RegistryError with 401 for a wrong password."""
        with self.request("GET", "/v2/", what=f"Access to {self.registry}"):
            return

    def catalog(self, *, matching: str = "") -> Iterator[str]:
        """Yield the names of the registry's repositories that hold the text ``matching``."""
        for page in self.pages("/v2/_catalog", what=f"The catalog of {self.registry}", scope="registry:catalog:*"):
            yield from (name for name in page.texts("repositories") or () if matching in name)

    def request(
        self,
        method: str,
        target: str,
        *,
        what: str,
        scope: str = "",
        headers: Mapping[str, str] | None = None,
        body: bytes | FileSlice = b"",
        expect: Sequence[int] = (200,),
    ) -> Response:
        """Send a request to ``target`` (a path, or an address that the registry gave) and return its answer.

        Raises: RegistryError for a status not in ``expect``, saying that ``what`` was refused; Interrupted if it breaks.
        """
        base, login = self._reach()
        url, may_log_in = urljoin(base, target), True
        for _ in range(_MOST_REDIRECTIONS + 2):
            at_home = origin_of(url) == origin_of(base)
            known = login.header(scope) if at_home else {}
            response = self.transport.send(method, url, headers={**(headers or {}), **known}, body=body)
            if response.status == 401 and at_home and may_log_in:
                may_log_in = False
                if login.answer(response, scope, known.get("Authorization", "")):
                    with response:
                        response.read_all(MOST_ERROR_BYTES)
                    continue
            if response.status in _MOVED and method in ("GET", "HEAD"):
                url = self._follow(url, response)
                continue
            if response.status not in expect:
                with response:
                    data = b"" if method == "HEAD" else response.read_all(MOST_ERROR_BYTES)
                    raise refusal(what, self.registry, response.status, data)
            return response
        raise RegistryError(f"{what}: {self.registry} answers with one redirection after the other.")

    def pages(self, target: str, *, what: str, scope: str) -> Iterator[Fields]:
        """Yield the parts of a list; each says where the next one is. Raises: RegistryError when that never ends."""
        seen: set[str] = set()
        while target:
            if target in seen or len(seen) > _MOST_PAGES:
                raise RegistryError(f"{what} has no end: {self.registry} goes round in circles.")
            seen.add(target)
            with self.request("GET", target, what=what, scope=scope) as response:
                data = response.read_all(MOST_BYTES)
                match = _NEXT.search(response.headers.get("Link", ""))
            yield Fields(load_object(data, what), what)
            target = urljoin(response.url, match[1]) if match else ""
            if target and origin_of(target) != origin_of(self.base):
                raise RegistryError(f"{what}: {self.registry} wants it to be read on at another host, {target[:200]}.")

    def close(self) -> None:
        """Close the connections; safe to call twice."""
        self.transport.close()

    def __enter__(self) -> RegistryClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _follow(self, url: str, response: Response) -> str:
        """Return where a redirection leads; not from TLS to where everybody can listen."""
        with response:
            response.read_all(MOST_ERROR_BYTES)
        target = urljoin(url, response.headers.get("Location", ""))
        scheme, host, _ = origin_of(target)
        if origin_of(url)[0] == "https" and scheme != "https":
            raise RegistryError(f"{self.registry} leads from TLS to plain HTTP, {target[:200]}: not followed.")
        if scheme != "https" and not is_loopback(host) and not self._insecure:
            raise RegistryError(f"{self.registry} leads to {target[:200]}, over plain HTTP: not followed.")
        return target

    def _reach(self) -> tuple[str, Login]:
        with self._lock:
            if self._found is None:
                base = self._find_scheme()
                self._found = base, Login(self.transport, base, self._credentials, insecure=self._insecure)
            return self._found

    def _find_scheme(self) -> str:
        """Return the address with a scheme: TLS, and plain HTTP where that is allowed and nobody speaks TLS."""
        try:
            host = urlsplit(f"//{self._host}").hostname or ""
        except ValueError:
            raise InvalidSpec(f"{self._host!r} is no registry: write HOST or HOST:PORT.") from None
        if is_loopback(host) and self._speaks(f"http://{self._host}"):
            return f"http://{self._host}"
        if not self._insecure:
            return f"https://{self._host}"
        try:
            return f"https://{self._host}" if self._speaks(f"https://{self._host}") else f"http://{self._host}"
        except (RegistryError, DeadlineExceeded):
            return f"http://{self._host}"

    def _speaks(self, base: str) -> bool:
        """Tell whether a registry answers at ``base``; nothing secret is sent."""
        try:
            with self.transport.send("GET", f"{base}/v2/") as response:
                response.read_all(MOST_ERROR_BYTES)
                return response.status in (200, 401, 403, 404, 429, 503)
        except Interrupted:
            return False

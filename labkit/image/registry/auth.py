"""Logging in at a registry: what to send along, and what to do when it answers 401.

The first request carries nothing. A registry that wants to know who asks answers 401 with a challenge: *Basic* wants name and
password, *Bearer* a token, which is fetched from the place that the challenge names, with name and password if there are any. A
token is kept for its scope (``repository:alice/web:pull,push``) until it is too old.

A password goes to the registry itself and to its place for tokens, never to another host: not where a redirection leads to, and
not over plain HTTP to anything but this machine, unless the caller allows it for that registry.

Leaves out: OAuth2 refresh tokens, client certificates.
See: Docker's "Token Authentication Specification"; RFC 6750, RFC 7617.
"""

from __future__ import annotations

import json
import threading
import time
from dataclasses import dataclass
from urllib.parse import urlencode

from labkit.image.registry.challenge import Challenge, parse_challenges
from labkit.image.registry.credentials import Credentials
from labkit.image.registry.failures import RegistryError, refusal
from labkit.image.registry.transport import Response, Transport, is_loopback, origin_of

__all__ = ["Login", "scope_of"]

_MOST_BYTES = 1 << 16
_LEAST_LASTS_S, _MARGIN_S = 60.0, 10.0


def scope_of(repository: str, *actions: str) -> str:
    """Return the scope of a token: what shall be done in a repository."""
    return f"repository:{repository}:{','.join(actions)}"


@dataclass(frozen=True, slots=True)
class _Token:
    value: str
    until_s: float


class Login:
    """What one registry, at ``base`` (``https://host:port``), is told about who asks; threads may use it at once."""

    def __init__(
        self, transport: Transport, base: str, credentials: Credentials | None, *, insecure: bool = False
    ) -> None:
        self._transport, self._credentials, self._insecure = transport, credentials, insecure
        self._origin = origin_of(base)
        self._basic = False
        self._tokens: dict[str, _Token] = {}
        self._lock = threading.Lock()

    def header(self, scope: str) -> dict[str, str]:
        """Return the header ``Authorization`` for a request that needs ``scope``, if one is known to be wanted."""
        with self._lock:
            token = self._tokens.get(scope)
            if token is not None and token.until_s > time.monotonic():
                return {"Authorization": f"Bearer {token.value}"}
            if self._basic and self._credentials is not None:
                return {"Authorization": self._credentials.basic}
        return {}

    def answer(self, response: Response, scope: str, sent: str) -> bool:
        """Make ready what the challenge in ``response`` asks for, to ask once more; False if that cannot be done.

        ``sent`` is the header of the refused request; a token in it may have been good once. Raises: RegistryError if the place for tokens refuses.
        """
        for challenge in parse_challenges(response.headers.get_all("WWW-Authenticate", [])):
            if challenge.scheme == "bearer":
                return self._answer_bearer(challenge, scope, sent)
            if challenge.scheme == "basic":
                return self._answer_basic(sent)
        return False

    def _answer_basic(self, sent: str) -> bool:
        if self._credentials is None or sent.startswith("Basic "):
            return False
        self._check_carrier(self._origin)
        with self._lock:
            self._basic = True
        return True

    def _answer_bearer(self, challenge: Challenge, scope: str, sent: str) -> bool:
        with self._lock:
            token = self._tokens.get(scope)
            if token is not None and token.until_s > time.monotonic() and sent != f"Bearer {token.value}":
                return True  # another thread has fetched one meanwhile
        fetched = self._fetch(challenge, scope)
        with self._lock:
            self._tokens[scope] = fetched
        return True

    def _fetch(self, challenge: Challenge, scope: str) -> _Token:
        realm = challenge.parameters.get("realm", "")
        scopes = (scope or challenge.parameters.get("scope", "")).split()
        query = {"service": [challenge.parameters.get("service", "")], "scope": scopes}
        headers = {"Accept": "application/json"}
        if self._credentials is not None:
            self._check_carrier(origin_of(realm))
            headers["Authorization"] = self._credentials.basic
            query["account"] = [self._credentials.name]
        separator = "&" if "?" in realm else "?"
        url = realm + separator + urlencode(query, doseq=True)
        with self._transport.send("GET", url, headers=headers) as response:
            body = response.read_all(_MOST_BYTES)
            if response.status != 200:
                host = origin_of(realm)[1]
                raise refusal("A token", host, response.status, body)
        return _read_token(body, realm)

    def _check_carrier(self, origin: tuple[str, str, int]) -> None:
        """Refuse to send the password where it could be read on the way. Raises: RegistryError."""
        scheme, host, port = origin
        if scheme == "https" or is_loopback(host) or (self._insecure and host == self._origin[1]):
            return
        raise RegistryError(
            f"{host}:{port} wants name and password over plain HTTP, where everybody on the way could read them:"
            " it needs TLS (or --insecure, if you know the way)."
        )


def _read_token(body: bytes, realm: str) -> _Token:
    try:
        found = json.loads(body)
        value = found.get("token") or found.get("access_token")
        lasts_s = max(_LEAST_LASTS_S, float(found.get("expires_in") or 0))
    except (ValueError, TypeError, AttributeError, RecursionError):
        value, lasts_s = None, 0.0
    if not isinstance(value, str) or not value.isascii() or not value.isprintable():
        raise RegistryError(f"{realm[:200]} gave no token.")
    return _Token(value, time.monotonic() + min(lasts_s, 86400) - _MARGIN_S)

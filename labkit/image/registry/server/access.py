"""Who is asking, and may they: basic credentials, tokens, and the challenge that tells a client how to log in.

Two schemes are understood. *Basic* sends name and password with every request. *Bearer* sends a token: the registry answers 401 with
the place where tokens are given out and the scope that is needed; the client goes there with name and password, or with neither, gets a
token that is good for some minutes, and asks again with it. The token says who it is for and what it allows, and is signed, so nothing
need be remembered about it.

The rule is short: everybody who is logged in may read everything, and write below their own name (``alice`` writes ``alice/web``). Who is not
logged in reads where the registry says so. While there are no accounts at all everybody may do everything.

Leaves out: private repositories, tokens that last (OAuth2 refresh tokens).
See: RFC 7617 (Basic), RFC 6750 (Bearer); Docker's "Token Authentication Specification"; RFC 2104 (HMAC).
"""

from __future__ import annotations

import base64
import binascii
import hmac
import json
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from labkit.image.registry.server.accounts import Accounts
from labkit.image.registry.server.answers import Answer, Refusal, json_answer

__all__ = ["SERVICE", "Access", "Caller"]

SERVICE = "labkit"
TOKEN_LASTS_S = 300
_MOST_SCOPES = 16


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks: an account or nobody. ``scope`` is what a token allows; None where there is no token to limit it."""

    name: str = ""
    scope: Mapping[str, Sequence[str]] | None = None
    logged_in: bool = False


class Access:
    """Decides for one registry. ``scheme`` is what a challenge names: ``bearer`` or ``basic``; both are understood."""

    def __init__(self, accounts: Accounts, *, anonymous_pull: bool, scheme: str = "bearer") -> None:
        self._accounts, self._anonymous_pull, self._scheme = accounts, anonymous_pull, scheme
        self._secret = secrets.token_bytes(32)

    def caller(self, authorization: str) -> Caller:
        """Return who sent the header ``Authorization``. Raises: Refusal with 401 for a wrong password or token."""
        scheme, _, value = authorization.strip().partition(" ")
        if scheme.lower() == "basic":
            name = self._check_basic(value)
            return Caller(name, logged_in=bool(name))
        if scheme.lower() == "bearer":
            return self._check_token(value.strip())
        if authorization:
            raise Refusal("UNAUTHORIZED", f"the authorization scheme {scheme[:32]!r} is not known")
        return Caller()

    def demand(self, caller: Caller, name: str, action: str, *, base: str) -> None:
        """Let ``caller`` do ``action`` (pull, push, delete) in the repository ``name``, or raise Refusal: 401 or 403.

        With an empty ``name`` it is about the registry as a whole: whoever is logged in passes.
        """
        if not self._accounts.in_use:
            return
        if self._is_open(caller, name, action):
            return
        if caller.logged_in and name and not self._may(caller.name, name, action):
            raise Refusal("DENIED", f"{caller.name} may write below {caller.name}/ only, not in {name}")
        raise Refusal("UNAUTHORIZED", "authentication required", headers=self.challenge(name, action, base=base))

    def may_read(self, caller: Caller, name: str) -> bool:
        """Tell whether ``caller`` may read the repository ``name``, whatever the scope of a token: to mount from it."""
        return not self._accounts.in_use or self._may(caller.name, name, "pull")

    def challenge(self, name: str, action: str, *, base: str) -> dict[str, str]:
        """Return the header that tells a client how to log in for ``action`` in the repository ``name``."""
        if self._scheme == "basic":
            return {"WWW-Authenticate": f'Basic realm="{SERVICE}"'}
        actions = "pull" if action == "pull" else f"pull,{action}"
        scope = f',scope="repository:{name}:{actions}"' if name else ""
        return {"WWW-Authenticate": f'Bearer realm="{base}/token",service="{SERVICE}"{scope}'}

    def token(self, query: Mapping[str, Sequence[str]], authorization: str) -> Answer:
        """Answer a request for a token. Raises: Refusal with 401 for a wrong password."""
        if not authorization.lower().startswith("basic ") and authorization:
            raise Refusal("UNAUTHORIZED", "a token is given for a name and a password")
        name = self._check_basic(authorization[6:]) if authorization else ""
        scope: dict[str, list[str]] = {}
        for words in [word for text in query.get("scope", ()) for word in text.split()][:_MOST_SCOPES]:
            kind, _, rest = words.partition(":")
            repository, _, actions = rest.rpartition(":")
            if kind == "repository":
                wanted = ("pull", "push", "delete") if actions == "*" else actions.split(",")
                allowed = [word for word in wanted if self._may(name, repository, word)]
                scope[repository] = sorted({*scope.get(repository, []), *allowed})
        claims = {"sub": name, "exp": int(time.time()) + TOKEN_LASTS_S, "access": scope}
        payload = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
        token = f"{payload}.{self._sign(payload)}"
        return json_answer({"token": token, "access_token": token, "expires_in": TOKEN_LASTS_S})

    def _is_open(self, caller: Caller, name: str, action: str) -> bool:
        if caller.scope is None:
            return self._may(caller.name, name, action) if name else caller.logged_in
        # The account may have been removed, or the setting changed, since the token was made.
        return self._may(caller.name, name, action) and action in caller.scope.get(name, ()) if name else True

    def _may(self, account: str, name: str, action: str) -> bool:
        if not self._accounts.in_use:
            return True
        if account and account not in self._accounts.names():
            return False
        if action == "pull":
            return bool(account) or self._anonymous_pull
        return bool(account) and action in ("push", "delete") and name.startswith(f"{account}/")

    def _check_basic(self, value: str) -> str:
        try:
            name, colon, password = base64.b64decode(value, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            raise Refusal("UNAUTHORIZED", "the basic credentials cannot be read") from None
        if (name, password) == ("", "") and colon:
            return ""  # what some clients send for "nobody"
        if self._accounts.in_use and not self._accounts.is_right(name, password):
            raise Refusal("UNAUTHORIZED", "the name or the password is wrong")
        return name

    def _check_token(self, token: str) -> Caller:
        payload, _, signature = token.partition(".")
        if not hmac.compare_digest(signature.encode(), self._sign(payload).encode()):
            raise Refusal("UNAUTHORIZED", "the token is not from this registry, or from before it was started")
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        if claims["exp"] < time.time():
            raise Refusal("UNAUTHORIZED", "the token is too old")
        if claims["sub"] and self._accounts.in_use and claims["sub"] not in self._accounts.names():
            raise Refusal("UNAUTHORIZED", f"there is no account {claims['sub']} any more")
        return Caller(claims["sub"], claims["access"], logged_in=bool(claims["sub"]))

    def _sign(self, payload: str) -> str:
        return hmac.digest(self._secret, payload.encode(), "sha256").hex()

"""Credentials: names and passwords for registries, in the file format that Docker made and everybody reads.

::

    {"auths": {"127.0.0.1:5000": {"auth": "YWxpY2U6c2VjcmV0"}}}

``auth`` is ``NAME:PASSWORD`` in base64: anybody who may read the file may read the password, so only its owner may. labkit keeps a file
of its own, ``credentials.json`` in its state folder; a file of Docker's or Podman's can be given instead.

Leaves out: credential helpers (``credsStore``, ``credHelpers``), which keep passwords elsewhere; identity tokens.
See: docker-login(1), containers-auth.json(5); RFC 7617.
"""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labkit.errors import InvalidSpec, InvalidState
from labkit.image.reference import DEFAULT_REGISTRY
from labkit.image.registry.privatefile import changing
from labkit.image.store import state_folder

__all__ = ["Credentials", "CredentialsFile", "credentials_file"]

_DOCKER_HUB = "https://index.docker.io/v1/"
_MOST_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Credentials:
    """A name and a password; neither is shown by ``repr``."""

    name: str
    password: str

    def __repr__(self) -> str:
        return "Credentials(...)"

    @property
    def basic(self) -> str:
        """The value of the header ``Authorization``."""
        return "Basic " + base64.b64encode(f"{self.name}:{self.password}".encode()).decode()


def credentials_file() -> CredentialsFile:
    """Return labkit's own file of this user."""
    return CredentialsFile(state_folder() / "credentials.json")


class CredentialsFile:
    """Credentials by registry, in the file ``path``, which need not exist. What else it holds is kept."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def get(self, registry: str) -> Credentials | None:
        """Return the credentials for ``registry`` (``HOST[:PORT]``); None if there are none. Raises: InvalidState if damaged."""
        auths = self._read().get("auths", {})
        for key in _keys(registry):
            entry = auths.get(key)
            if isinstance(entry, dict) and (found := _decode(entry)) is not None:
                return found
        return None

    def registries(self) -> list[str]:
        """Return the registries there are credentials for."""
        return sorted(self._read().get("auths", {}))

    def set(self, registry: str, credentials: Credentials) -> None:
        """Keep credentials for ``registry``. Raises: InvalidSpec for a name with a colon, which the format cannot hold."""
        if ":" in credentials.name or not credentials.name:
            raise InvalidSpec("An account's name has at least one letter and no colon.")
        with changing(self.path, self._read) as document:
            text = base64.b64encode(f"{credentials.name}:{credentials.password}".encode()).decode()
            document.setdefault("auths", {})[_keys(registry)[0]] = {"auth": text}

    def remove(self, registry: str) -> bool:
        """Forget the credentials for ``registry``; False if there were none."""
        with changing(self.path, self._read) as document:
            auths = document.setdefault("auths", {})
            gone = [auths.pop(key) for key in _keys(registry) if key in auths]
        return bool(gone)

    def _read(self) -> dict[str, Any]:
        try:
            data = self.path.read_bytes()[:_MOST_BYTES]
        except FileNotFoundError:
            return {}
        try:
            document = json.loads(data or b"{}")
        except ValueError as error:
            raise InvalidState(f"{self.path} is damaged ({error}): remove it and log in again.") from error
        if not isinstance(document, dict) or not isinstance(document.setdefault("auths", {}), dict):
            raise InvalidState(f"{self.path} does not hold credentials: remove it and log in again.")
        return document


def _keys(registry: str) -> list[str]:
    """Return the keys under which a registry may stand, the usual first: Docker once wrote addresses with a scheme."""
    if registry in (DEFAULT_REGISTRY, "registry-1." + DEFAULT_REGISTRY):
        return [_DOCKER_HUB, DEFAULT_REGISTRY]
    return [registry, f"https://{registry}", f"http://{registry}", f"https://{registry}/v2/", f"https://{registry}/v1/"]


def _decode(entry: dict[str, Any]) -> Credentials | None:
    if isinstance(entry.get("username"), str) and isinstance(entry.get("password"), str):
        return Credentials(entry["username"], entry["password"])
    try:
        name, colon, password = base64.b64decode(str(entry.get("auth", "")), validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return None
    return Credentials(name, password.rstrip("\0")) if colon else None

"""Credentials over the wire: the header ``X-Registry-Auth``, and ``docker login``.

See: Docker Engine API, "Authentication".
"""

from __future__ import annotations

import base64
import binascii
import json
from urllib.parse import urlsplit

from labkit.engine.wire.errors import ApiError, BadParameter
from labkit.engine.wire.request import Request
from labkit.errors import LabkitError
from labkit.image.registry.client import RegistryClient
from labkit.image.registry.credentials import Credentials
from labkit.image.registry.failures import RegistryError

__all__ = ["check_login", "client_for"]


def client_for(request: Request, registry: str) -> RegistryClient:
    """Return a client for ``registry`` with the credentials that the request carries, if it does. Raises: BadParameter."""
    text = request.headers.get("X-Registry-Auth", "")
    name = password = ""
    if text:
        try:
            padded = text + "=" * (-len(text) % 4)
            found = json.loads(base64.urlsafe_b64decode(padded.replace("+", "-").replace("/", "_")) or b"{}")
            name, password = str(found.get("username") or ""), str(found.get("password") or "")
        except (ValueError, binascii.Error, AttributeError) as error:
            raise BadParameter(f"the header X-Registry-Auth is damaged: {error}") from error
    return RegistryClient(registry, credentials=Credentials(name, password) if name else None)


def check_login(address: str, name: str, password: str) -> None:
    """Ask the registry whether it knows these credentials. Raises: ApiError: 401 for wrong ones, 500 if it cannot be reached."""
    host = urlsplit(address).netloc if "://" in address else address.split("/")[0]
    try:
        with RegistryClient(host, credentials=Credentials(name, password)) as client:
            client.ping()
    except RegistryError as error:
        if error.status in (401, 403):
            raise ApiError("login attempt failed: unauthorized: incorrect username or password", status=401) from error
        raise ApiError(f"login attempt to {address} failed: {error}") from error
    except LabkitError as error:
        raise ApiError(f"login attempt to {address} failed: {error}") from error

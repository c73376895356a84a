"""A client of the Docker Engine API to read: all that ``docker run`` needs, on the standard library's HTTP client.

There is no secret in the ``docker`` command. It turns words into requests, sends them to a socket, and shows the answers.

Leaves out: attaching (output is read from the log afterwards), terminals, images, authentication, TLS.
See: Docker Engine API 1.44, https://docs.docker.com/reference/api/engine/.
"""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Sequence
from typing import Any

from labkit.errors import InvalidState

__all__ = ["SmallClient", "UnixConnection"]

_HEADER_BYTES = 8


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket: the address is a path, everything else is as ever."""

    def __init__(self, path: str, timeout_s: float = 60) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self.path = path

    def connect(self) -> None:
        """Connect to the socket; http.client calls this before the first request."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


class SmallClient:
    """Speaks to the engine at the unix socket ``path``."""

    def __init__(self, path: str) -> None:
        self.path = path

    def ask(self, method: str, path: str, body: Any = None) -> bytes:
        """Send one request and return the answer's body. Raises: InvalidState with the engine's own words."""
        connection = UnixConnection(self.path)
        data = None if body is None else json.dumps(body)
        try:
            connection.request(method, f"/v1.44{path}", data, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            content = answer.read()
        finally:
            connection.close()
        if answer.status >= 400:
            raise InvalidState(f"The engine refused {method} {path}: {json.loads(content)['message']}")
        return content

    def run(self, image: str, command: Sequence[str]) -> tuple[int, str]:
        """Do what ``docker run --rm`` does: create, start, wait, read the output, remove; return (status, output)."""
        made = json.loads(self.ask("POST", "/containers/create", {"Image": image, "Cmd": list(command)}))
        container = f"/containers/{made['Id']}"
        try:
            self.ask("POST", f"{container}/start")
            status = json.loads(self.ask("POST", f"{container}/wait"))["StatusCode"]
            output = self.ask("GET", f"{container}/logs?stdout=1&stderr=1")
        finally:
            self.ask("DELETE", f"{container}?force=1")
        return status, _without_frames(output).decode(errors="replace")


def _without_frames(data: bytes) -> bytes:
    """Take off the 8 bytes before each piece of output: which stream it is (1, 2), three zeros, its length (big-endian)."""
    text = b""
    while data:
        length = int.from_bytes(data[4:_HEADER_BYTES], "big")
        text += data[_HEADER_BYTES : _HEADER_BYTES + length]
        data = data[_HEADER_BYTES + length :]
    return text

"""Who says what to whom when a command is carried out: client to daemon, daemon to the processes that it starts.

What client and daemon say was overheard by a proxy; what the daemon does to containers, it announces itself (``GET /events``). Put
in the order of time, that is the whole conversation.

See: `labkit.engine.proxy`; Docker Engine API 1.44, SystemEvents.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from typing import Any, Literal

from docker.api.client import APIClient

from labkit.engine.proxy import Exchange, TracingProxy

__all__ = ["Listener", "Message", "messages_of"]

Party = Literal["client", "daemon", "runtime"]
_ID = re.compile(r"\b([0-9a-f]{12})[0-9a-f]{52}\b")
_TOLD = (
    "create",
    "start",
    "die",
    "kill",
    "stop",
    "pause",
    "unpause",
    "destroy",
    "exec_start",
    "exec_die",
    "health_status",
)


@dataclass(frozen=True, slots=True)
class Message:
    """One thing said, ``at_s`` seconds after the listening began; ids are cut to twelve digits."""

    at_s: float
    source: Party
    target: Party
    words: str


def messages_of(exchanges: list[Exchange]) -> list[Message]:
    """Return the requests and answers of ``exchanges`` as messages."""
    found = []
    for exchange in exchanges:
        found.append(Message(exchange.asked_s, "client", "daemon", _short(exchange.words)))
        if exchange.status:
            found.append(Message(exchange.answered_s, "daemon", "client", _answer(exchange)))
    return found


def _answer(exchange: Exchange) -> str:
    if exchange.hijacked:
        return f"101: a raw stream ({exchange.sent_bytes} bytes there, {exchange.received_bytes} back)"
    return f"{exchange.status}" + (f", {exchange.received_bytes} bytes" if exchange.received_bytes else "")


def _short(words: str) -> str:
    path, _, query = _ID.sub(r"\1", words).partition("?")
    return path + ("?…" if query else "")


class Listener:
    """Puts the two halves together: what ``proxy`` overhears and what the engine behind ``api`` announces."""

    def __init__(self, proxy: TracingProxy, api: APIClient) -> None:
        self.proxy, self.api = proxy, api
        self._began_s = time.time() - proxy.now_s()
        self._since_s = time.time()

    def restart(self) -> None:
        """Forget what was said so far."""
        self.proxy.clear()
        self._since_s = time.time()

    def messages(self) -> list[Message]:
        """Return everything said since the start, in the order of time. Raises: docker.errors.APIError."""
        found = messages_of(list(self.proxy.exchanges))
        # To the API a time is seconds with a fraction; only the SDK's type hints say otherwise.
        span: Any = {"since": self._since_s, "until": time.time()}
        for event in self.api.events(**span, decode=True, filters={"type": "container"}):
            action = str(event["Action"])
            at_s = event["timeNano"] / 1e9 - self._began_s
            if action.partition(":")[0] in _TOLD and event["timeNano"] / 1e9 >= self._since_s:
                name = event["Actor"]["Attributes"].get("name", "")
                found.append(_of_event(action, name, at_s))
        return sorted(found, key=lambda message: message.at_s)


def _of_event(action: str, name: str, at_s: float) -> Message:
    if action in ("die", "exec_die") or action.startswith("health_status"):
        return Message(at_s, "runtime", "daemon", f"{action} ({name})")
    return Message(at_s, "daemon", "runtime", f"{action} ({name})")

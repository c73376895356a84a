"""Events: what happened to which object, for ``docker events`` and for everybody who follows the engine.

The last `KEPT` events are remembered, for ``--since``. A follower that does not keep up loses nothing of these, and is told nothing
twice: it reads from the same list at its own pace, and misses only what has been dropped from it.

See: Docker Engine API, "Monitor events"; docker-events(1).
"""

from __future__ import annotations

import itertools
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

__all__ = ["KEPT", "Events", "matches"]

KEPT = 1024


class Events:
    """The list of what happened; safe to use from several threads."""

    def __init__(self) -> None:
        self._kept: deque[tuple[int, dict[str, Any]]] = deque(maxlen=KEPT)
        self._numbers = itertools.count()
        self._changed = threading.Condition()
        self._last = -1

    def say(self, kind: str, action: str, identity: str, attributes: Mapping[str, str]) -> None:
        """Note that ``action`` happened to the object ``identity`` of type ``kind``."""
        now_ns = time.time_ns()
        event: dict[str, Any] = {
            "Type": kind,
            "Action": action,
            "Actor": {"ID": identity, "Attributes": dict(attributes)},
            "scope": "local",
            "time": now_ns // 1_000_000_000,
            "timeNano": now_ns,
        }
        if kind in ("container", "image"):
            event = {"status": action, "id": identity, **event}
            if kind == "container":
                event["from"] = attributes.get("image", "")
        with self._changed:
            self._last = next(self._numbers)
            self._kept.append((self._last, event))
            self._changed.notify_all()

    def follow(self, *, since_ns: int | None, until_ns: int | None) -> Iterator[dict[str, Any] | None]:
        """Yield events from ``since_ns`` (None: from now) until ``until_ns``; None now and then, when nothing happens."""
        with self._changed:
            seen = -1 if since_ns is not None else self._last
        while True:
            with self._changed:
                fresh = [(number, event) for number, event in self._kept if number > seen]
                if not fresh:
                    left_s = 1.0 if until_ns is None else min(1.0, (until_ns - time.time_ns()) / 1e9)
                    if left_s <= 0:
                        return
                    self._changed.wait(left_s)
                    fresh = [(number, event) for number, event in self._kept if number > seen]
            for number, event in fresh:
                seen = number
                if since_ns is not None and event["timeNano"] < since_ns:
                    continue
                if until_ns is not None and event["timeNano"] > until_ns:
                    return
                yield event
            if not fresh:
                yield None


_LABEL_FILTER = "label"


def matches(event: Mapping[str, Any], filters: Mapping[str, Sequence[str]]) -> bool:
    """Tell whether an event passes ``filters``: all of them, and of each any value."""
    attributes = event["Actor"]["Attributes"]
    for name, values in filters.items():
        if name == _LABEL_FILTER:
            fits = all(_has_label(attributes, value) for value in values)
        elif name in ("type", "event"):
            what = event["Type"] if name == "type" else event["Action"]
            fits = any(what == value or what.startswith(f"{value}:") for value in values)
        elif name == "scope":
            fits = event["scope"] in values
        else:
            names = (event["Actor"]["ID"], attributes.get("name", ""))
            own = event["Type"] == name and any(_names(value, names) for value in values)
            fits = own or (name == "image" and attributes.get("image", "") in values)
        if not fits:
            return False
    return True


def _names(value: str, names: tuple[str, str]) -> bool:
    return value in names or (len(value) >= 4 and names[0].startswith(value))


def _has_label(attributes: Mapping[str, str], wanted: str) -> bool:
    key, equals, value = wanted.partition("=")
    return key in attributes and (not equals or attributes[key] == value)

"""What a pull or a push reports while it goes on: one event a step and layer, in Docker's words.

See: docker-pull(1), docker-push(1).
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from labkit.image.descriptor import Descriptor, short_id
from labkit.image.registry.transport import Exchanged

__all__ = ["Event", "Moved", "Progress", "Reporter", "Transfer"]

Status = Literal[
    "Pulling fs layer", "Downloading", "Download complete", "Pull complete", "Already exists",
    "Preparing", "Pushing", "Pushed", "Layer already exists", "Mounted from",
]  # fmt: skip
How = Literal["moved", "shared", "mounted"]


@dataclass(frozen=True, slots=True)
class Event:
    """One step: which blob, what happens to it, and how far it is. ``detail`` is the repository it was mounted from."""

    descriptor: Descriptor
    status: Status
    current: int = 0
    detail: str = ""

    @property
    def id(self) -> str:
        """The twelve digits by which people call a layer."""
        return short_id(self.descriptor.digest)

    @property
    def total(self) -> int:
        """How many bytes the blob has."""
        return self.descriptor.size

    @property
    def text(self) -> str:
        """The step in words: ``Mounted from alice/base``."""
        return f"{self.status} {self.detail}" if self.detail else self.status


Progress = Callable[[Event], object]


@dataclass(frozen=True, slots=True)
class Moved:
    """How one blob got there: it travelled, it was there already ("shared"), or the registry took it from another repository."""

    descriptor: Descriptor
    how: How


@dataclass(frozen=True, slots=True)
class Transfer:
    """What a pull or a push did: the image's root, each blob, and the bytes that really travelled, both ways."""

    root: Descriptor
    blobs: tuple[Moved, ...]
    received_bytes: int
    sent_bytes: int
    requests: int

    @classmethod
    def since(cls, before: Exchanged, now: Exchanged, root: Descriptor, blobs: tuple[Moved, ...]) -> Transfer:
        """Return the transfer of ``blobs``, with what has travelled between two counts."""
        received, sent = now.received - before.received, now.sent - before.sent
        return cls(root, blobs, received, sent, now.requests - before.requests)

    def bytes_of(self, *hows: How) -> int:
        """Return the bytes of the blobs that got there in one of these ways."""
        return sum(moved.descriptor.size for moved in self.blobs if moved.how in hows)


class Reporter:
    """Passes events on one at a time, whatever number of threads they come from; without a listener, to nobody."""

    def __init__(self, listener: Progress | None) -> None:
        self._listener = listener
        self._lock = threading.Lock()

    def tell(self, descriptor: Descriptor, status: Status, current: int = 0, detail: str = "") -> None:
        """Report a step."""
        if self._listener is not None:
            with self._lock:
                self._listener(Event(descriptor, status, current, detail))

"""What travels when an image is pulled or pushed, and what need not: bytes moved against bytes shared.

A transfer asks for each blob whether the other side has it. What it has is *shared*: it costs one question. What another repository of the
same registry has is *mounted*: one question, too. The rest is *moved*, byte by byte. Beside the blobs there are the questions themselves
and the manifests; what really went through the socket is counted apart from what the manifests say.

Leaves out: speed. On one machine a network is as fast as memory; on a real one, time follows the bytes that are moved.
See: `labkit.image.registry`, tcp(7).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from labkit.image.reference import Reference
from labkit.image.registry.client import RegistryClient
from labkit.image.registry.credentials import Credentials
from labkit.image.registry.progress import Progress, Transfer
from labkit.image.registry.pull import pull
from labkit.image.registry.push import push
from labkit.image.store import ImageStore
from labkit.measure.record import Result

__all__ = ["Journey", "Ledger", "measure_pull", "measure_push"]


@dataclass(frozen=True, slots=True)
class Journey(Result):
    """One pull or push of an image. ``wire_bytes``: everything that went through the socket, both ways."""

    name: str
    way: str
    moved_bytes: int
    shared_bytes: int
    mounted_bytes: int
    wire_bytes: int
    requests: int
    elapsed_ms: float

    @property
    def total_bytes(self) -> int:
        """The size of the image: all its blobs."""
        return self.moved_bytes + self.shared_bytes + self.mounted_bytes

    @property
    def spared_bytes(self) -> int:
        """What did not have to travel."""
        return self.shared_bytes + self.mounted_bytes


@dataclass(frozen=True, slots=True)
class Ledger(Result):
    """Journeys, one after the other."""

    journeys: tuple[Journey, ...] = ()

    def with_journey(self, journey: Journey) -> Ledger:
        """Return the ledger with one journey more."""
        return Ledger((*self.journeys, journey))

    @property
    def moved_bytes(self) -> int:
        """What has travelled in all."""
        return sum(journey.moved_bytes for journey in self.journeys)

    @property
    def spared_bytes(self) -> int:
        """What has not had to travel in all."""
        return sum(journey.spared_bytes for journey in self.journeys)


def measure_pull(
    name: str, store: ImageStore, *, credentials: Credentials | None = None, progress: Progress | None = None
) -> Journey:
    """Pull ``name`` into ``store`` and return what travelled. Raises: RegistryError, ImageError, DeadlineExceeded, InvalidSpec."""
    reference = Reference.parse(name)
    with RegistryClient(reference.registry, credentials=credentials) as client:
        return _measure(reference, "pull", lambda: pull(reference, store, client=client, progress=progress))


def measure_push(
    name: str,
    store: ImageStore,
    *,
    source: str | None = None,
    credentials: Credentials | None = None,
    progress: Progress | None = None,
) -> Journey:
    """Push the image ``source`` (default: ``name``) of ``store`` as ``name``; see `measure_pull`."""
    reference = Reference.parse(name)
    with RegistryClient(reference.registry, credentials=credentials) as client:
        return _measure(
            reference, "push", lambda: push(reference, store, source=source, client=client, progress=progress)
        )


def _measure(reference: Reference, way: str, work: Callable[[], Transfer]) -> Journey:
    begun_s = time.perf_counter()
    done = work()
    elapsed_ms = 1000 * (time.perf_counter() - begun_s)
    suffix = f":{reference.tag}" if reference.tag else f"@{(reference.digest or '')[:19]}"
    return Journey(
        reference.repository + suffix, way,
        moved_bytes=done.bytes_of("moved"), shared_bytes=done.bytes_of("shared"), mounted_bytes=done.bytes_of("mounted"),
        wire_bytes=done.received_bytes + done.sent_bytes, requests=done.requests, elapsed_ms=elapsed_ms,
    )  # fmt: skip

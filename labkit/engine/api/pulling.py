"""Pull and push over the wire, as streams of progress.

What can be known before the headers go is asked before: whether the registry has the image at all. So a missing image is a 404 and not an
error in the middle of a stream. This module is loaded at the first pull or push: nothing else needs the registry's client.

See: Docker Engine API, "Create an image", "Push an image"; `labkit.image.registry`.
"""

from __future__ import annotations

from typing import Any

from labkit.engine.api.progress import Say, progress_stream
from labkit.engine.api.registry import client_for
from labkit.engine.engine import Engine
from labkit.engine.wire.errors import ApiError, NotFound
from labkit.engine.wire.reply import Reply
from labkit.errors import ImageError, LabkitError
from labkit.image.reference import DEFAULT_REGISTRY, Reference
from labkit.image.registry.client import RegistryClient
from labkit.image.registry.failures import RegistryError
from labkit.image.registry.progress import Event
from labkit.image.registry.pull import pull
from labkit.image.registry.push import push
from labkit.image.registry.repository import Repository

__all__ = ["client_for", "pull_stream", "push_stream"]


def pull_stream(engine: Engine, reference: Reference, client: RegistryClient, *, every: bool) -> Reply:
    """Return the progress of a pull; ``every`` tag of the repository, or the one named. Raises: NotFound, ApiError."""
    if reference.registry == DEFAULT_REGISTRY:
        client.close()
        raise ApiError(
            f"this engine assumes no hub: {reference.familiar} can be pulled only from a registry that is named, as in "
            f"127.0.0.1:5000/{reference.familiar}",
            status=404,
        )
    try:
        names = _tags(client, reference) if every else [reference]
        for one in names:
            _ask(client, one)
    except LabkitError:
        client.close()
        raise

    def work(say: Say) -> None:
        with client:
            for one in names:
                _pull_one(engine, one, client, say)

    return progress_stream(work)


def _tags(client: RegistryClient, reference: Reference) -> list[Reference]:
    try:
        return [reference.with_tag(tag) for tag in Repository(client, reference.repository).tags()]
    except RegistryError as error:
        raise _refusal(error, reference) from error


def _ask(client: RegistryClient, reference: Reference) -> None:
    """Ask for the manifest before the headers go, so that a missing image is a 404 and no 200."""
    try:
        if (
            Repository(client, reference.repository).find_manifest(reference.digest or reference.tag or "latest")
            is None
        ):
            raise NotFound(f"manifest for {reference.familiar} not found: manifest unknown: manifest unknown")
    except RegistryError as error:
        raise _refusal(error, reference) from error


def _refusal(error: RegistryError, reference: Reference) -> ApiError:
    if error.status == 404 or error.code in ("MANIFEST_UNKNOWN", "NAME_UNKNOWN"):
        return NotFound(f"manifest for {reference.familiar} not found: manifest unknown: {error}")
    if error.status in (401, 403):
        return ApiError(
            f"pull access denied for {reference.familiar_name}, repository does not exist or may require 'docker login': {error}",
            status=404,
        )
    return ApiError(str(error))


def _pull_one(engine: Engine, reference: Reference, client: RegistryClient, say: Say) -> None:
    before = _digest_of(engine, reference)
    say(
        {
            "status": f"Pulling from {reference.repository.removeprefix('library/')}",
            "id": reference.tag or (reference.digest or "")[:19],
        }
    )
    transfer = pull(reference, engine.images.store, client=client, progress=lambda event: say(_progress(event)))
    say({"status": f"Digest: {transfer.root.digest}"})
    is_new = before != transfer.root.digest
    say({"status": f"Status: {'Downloaded newer image' if is_new else 'Image is up to date'} for {reference.familiar}"})
    engine.events.say("image", "pull", reference.familiar, {"name": reference.familiar_name})


def _digest_of(engine: Engine, reference: Reference) -> str:
    try:
        return engine.images.store.resolve(reference).digest
    except ImageError:
        return ""


def _progress(event: Event) -> dict[str, Any]:
    message: dict[str, Any] = {"status": event.text, "progressDetail": {}, "id": event.id}
    if event.status in ("Downloading", "Pushing") and event.total:
        message["progressDetail"] = {"current": event.current, "total": event.total}
        message["progress"] = _bar(event.current, event.total)
    return message


def _bar(current: int, total: int) -> str:
    done = min(50, current * 50 // max(1, total))
    shown = "=" * done + (">" if done < 50 else "")
    return f"[{shown:<50}]  {current / 1e6:.1f}MB/{total / 1e6:.1f}MB"


def push_stream(engine: Engine, reference: Reference, client: RegistryClient) -> Reply:
    """Return the progress of a push."""

    def work(say: Say) -> None:
        with client:
            say({"status": f"The push refers to repository [{reference.name}]"})
            try:
                engine.images.store.resolve(reference)
            except ImageError:
                raise NotFound(f"An image does not exist locally with the tag: {reference.familiar_name}") from None
            if reference.registry == DEFAULT_REGISTRY:
                raise ApiError("denied: this engine assumes no hub: tag the image for a registry that is named")
            transfer = push(reference, engine.images.store, client=client, progress=lambda event: say(_progress(event)))
            size = transfer.root.size
            say({"status": f"{reference.tag}: digest: {transfer.root.digest} size: {size}"})
            say({"progressDetail": {}, "aux": {"Tag": reference.tag, "Digest": transfer.root.digest, "Size": size}})
            engine.events.say("image", "push", reference.familiar, {"name": reference.familiar_name})

    return progress_stream(work)

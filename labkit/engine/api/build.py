"""``/build``: a Containerfile and its files, as a tar in the body, become an image; and the cache of builds.

See: Docker Engine API, "Build an image"; `labkit.image.build`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from threading import Event as CancelEvent
from typing import TYPE_CHECKING, Any

from labkit.engine.api.progress import Say, error_message, progress_stream
from labkit.engine.engine import Engine
from labkit.engine.objects.images import reference_of
from labkit.engine.wire.errors import ApiError, BadParameter
from labkit.engine.wire.reply import Json, Reply
from labkit.engine.wire.request import Query, Request
from labkit.engine.wire.routes import Routes
from labkit.errors import LabkitError
from labkit.image.archive import plain_source
from labkit.image.build.errors import BuildError, ContainerfileError

if TYPE_CHECKING:
    from labkit.image.build.progress import Event

__all__ = ["routes"]

routes = Routes()

#: How the classic builder marks what a step wrote to its standard error: red.
_RED = "\x1b[91m{}\x1b[0m"


@dataclass(frozen=True, slots=True)
class _Asked:
    """What the query of a build request says."""

    containerfile: str
    tags: list[str]
    arguments: dict[str, str]
    labels: dict[str, str]
    target: str | None
    no_cache: bool
    quiet: bool
    network: str


def _text_map(query: Query, name: str) -> dict[str, str]:
    text = query.text(name)
    if not text:
        return {}
    try:
        found = json.loads(text)
    except ValueError as error:
        raise BadParameter(f"{name} is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise BadParameter(f"{name} must be a JSON object")
    return {str(key): str(value) for key, value in found.items() if value is not None}


def _asked(query: Query) -> _Asked:
    if query.text("version") == "2":
        raise ApiError("BuildKit is not offered by this engine: set DOCKER_BUILDKIT=0", status=501)
    if query.text("remote"):
        raise ApiError("building from an address is not offered: send the files as the body", status=501)
    return _Asked(
        query.text("dockerfile"), [reference_of(tag).canonical for tag in query.texts("t") if tag], _text_map(query, "buildargs"),
        _text_map(query, "labels"), query.text("target") or None, query.flag("nocache"), query.flag("q"), query.text("networkmode"),
    )  # fmt: skip


def _may_use_cache(engine: Engine, query: Query) -> bool:
    """Tell whether steps may come from the cache: with ``--cache-from`` only if one of those images is there."""
    try:
        names = json.loads(query.text("cachefrom") or "[]")
    except ValueError as error:
        raise BadParameter(f"cachefrom is not JSON: {error}") from error
    if not isinstance(names, list):
        raise BadParameter("cachefrom must be a JSON array")
    return not names or any(_is_known(engine, str(name)) for name in names)


def _is_known(engine: Engine, name: str) -> bool:
    try:
        engine.images.find(name)
    except (ApiError, LabkitError):
        return False
    return True


@routes.post("/build")
def build_image(engine: Engine, request: Request) -> Reply:
    """Build an image. What is wrong with the Containerfile itself is a 400; a step that fails is told on the stream."""
    from labkit.image.build.builder import build  # with all that it needs, as large as the rest of the engine
    from labkit.image.build.progress import classic_text

    asked = _asked(request.query)
    no_cache = asked.no_cache or not _may_use_cache(engine, request.query)
    cancel, failed_early = CancelEvent(), _First()

    def work(say: Say) -> None:
        def tell(event: Event) -> None:
            text = classic_text(event)
            if event.kind == "built" and not event.text:
                say({"aux": {"ID": event.image_id}})
            if asked.quiet:
                text = f"{event.image_id}\n" if event.kind == "built" and not event.text else ""
            if text:
                say({"stream": _RED.format(text) if event.is_error_output else text})

        try:
            result = build(
                plain_source(request.body), containerfile=_file_name(asked), store=engine.images.store, tags=asked.tags,
                build_args=asked.arguments, target=asked.target, progress=tell, cancel=cancel, no_cache=no_cache,
                labels=asked.labels, network="host" if asked.network == "host" else "none",
            )  # fmt: skip
        except BuildError as error:
            say(error_message(error, code=error.code))
            return
        for name in result.references:
            engine.events.say("image", "tag", result.image_id, {"name": name})

    return failed_early.stream_of(work, cancel)


def _file_name(asked: _Asked) -> str | None:
    # The client always says "Dockerfile", also when it is called otherwise in the context by labkit's own rule.
    return None if asked.containerfile in ("", "Dockerfile") else asked.containerfile


class _First:
    """Runs a build up to its first word before the headers go, so that a wrong Containerfile is a 400."""

    def stream_of(self, work: Any, cancel: CancelEvent) -> Reply:
        """Return the stream of the work. Raises: what the work raises before it has said anything."""
        import itertools

        failure: list[LabkitError] = []

        def guarded(say: Say) -> None:
            try:
                work(say)
            except ContainerfileError as error:
                failure.append(error)
                raise

        stream = progress_stream(guarded, on_gone=cancel.set)
        pieces = iter(stream.pieces)
        waiting: list[bytes] = []
        for piece in pieces:
            waiting.append(piece)
            if piece:
                break
        if failure:
            for _ in pieces:
                pass
            raise BadParameter(str(failure[0]))
        return type(stream)(itertools.chain(waiting, pieces), stream.content_type)


@routes.post("/build/prune")
def prune(engine: Engine, request: Request) -> Reply:
    """Forget what builds have kept to be quick the next time."""
    del request
    gone = engine.images.store.prune(build_cache=True)
    return Json({"CachesDeleted": None, "SpaceReclaimed": gone.freed_bytes})


@routes.post("/build/cancel")
def cancel_build(engine: Engine, request: Request) -> Reply:
    """Nothing to do: a build ends when its connection does."""
    del engine, request
    return Json(None, 204)

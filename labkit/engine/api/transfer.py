"""Images on the move: pull, push, import, load, save, commit.

See: Docker Engine API, "Images"; `labkit.image.registry`, `labkit.image.archive`, `labkit.image.commit`.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from labkit.engine.api.progress import Say, progress_stream
from labkit.engine.engine import Engine
from labkit.engine.objects.changed_config import apply_changes
from labkit.engine.objects.images import reference_of
from labkit.engine.spec.config import parse_config
from labkit.engine.wire.errors import ApiError, BadParameter, Conflict
from labkit.engine.wire.reply import Json, Reply, Stream
from labkit.engine.wire.request import Request
from labkit.engine.wire.routes import Routes
from labkit.errors import ImageError, InvalidState, LabkitError
from labkit.image.archive import load_archive, plain_source, save_archive
from labkit.image.commit import add_layer, commit, store_image
from labkit.image.config import RunConfig
from labkit.image.layer import LayerWriter

__all__ = ["piped", "routes"]

routes = Routes()

_PIECE = 256 << 10


@routes.post("/images/create")
def create(engine: Engine, request: Request) -> Reply:
    """Bring an image from a registry (``fromImage``) or make one of a file tree (``fromSrc``)."""
    query = request.query
    if query.text("fromSrc"):
        return _import(engine, request)
    name, tag = query.text("fromImage"), query.text("tag")
    if not name:
        raise BadParameter("neither fromImage nor fromSrc is given")
    separator = "@" if ":" in tag else ":"  # a digest comes as a tag, too
    reference = reference_of(f"{name}{separator}{tag}" if tag else name)
    every = not tag and ":" not in name.rpartition("/")[2] and "@" not in name
    from labkit.engine.api import pulling

    return pulling.pull_stream(engine, reference, pulling.client_for(request, reference.registry), every=every)


@routes.post("/images/{name...}/push")
def push_image(engine: Engine, request: Request) -> Reply:
    """Send an image to the registry that its name begins with."""
    name, tag = request.names["name"], request.query.text("tag")
    reference = reference_of(f"{name}:{tag}" if tag else name)
    from labkit.engine.api import pulling

    return pulling.push_stream(engine, reference, pulling.client_for(request, reference.registry))


def _import(engine: Engine, request: Request) -> Reply:
    """Make an image of one layer from a tar of a file tree."""
    query = request.query
    if query.text("fromSrc") != "-":
        raise ApiError(
            "import from an address is not offered: fetch it and send it as the body (docker import -)", status=501
        )
    config = apply_changes(RunConfig(), query.texts("changes"))
    name = (
        f"{query.text('repo')}:{query.text('tag')}" if query.text("tag") and query.text("repo") else query.text("repo")
    )
    reference = reference_of(name) if name else None
    store = engine.images.store
    with store.lease():
        source = plain_source(request.body)
        with LayerWriter(store.blobs) as writer:
            while data := source.read(_PIECE):
                writer.write(data)
            layer = writer.commit()
        message = query.text("message") or "Imported from -"
        document = add_layer(None, layer, created_by="", comment=message, run_config=config)
        descriptor = store_image(store, document, [layer.descriptor])
        image = store.image(descriptor)
        try:
            store.lowers(image)  # what cannot be unpacked is no image
        except ImageError as error:
            raise BadParameter(f"the archive cannot be imported: {error}") from error
        if reference is not None:
            store.tag(reference, descriptor)
        else:
            store.keep(descriptor)
    engine.events.say("image", "import", image.id, {"name": image.id})
    return progress_stream(lambda say: say({"status": image.id}))


@routes.post("/images/load")
def load(engine: Engine, request: Request) -> Reply:
    """Take in images from a tar that ``save`` made."""

    def work(say: Say) -> None:
        # What is wrong with the archive is told on the stream, as Docker does it: clients look for it there.
        for one in load_archive(engine.images.store, request.body):
            for name in one.names:
                say({"stream": f"Loaded image: {reference_of(name).familiar}\n"})
            if not one.names:
                say({"stream": f"Loaded image ID: {engine.images.store.image(one.descriptor).id}\n"})
            engine.events.say(
                "image", "load", one.descriptor.digest, {"name": (one.names or (one.descriptor.digest,))[0]}
            )

    return progress_stream(work)


@routes.get("/images/get")
def save_many(engine: Engine, request: Request) -> Reply:
    """Return several images as one tar."""
    names = [name for text in request.query.texts("names") for name in text.split(",")]
    if not names:
        raise BadParameter("no image is named")
    return _save(engine, names)


@routes.get("/images/{name...}/get")
def save_one(engine: Engine, request: Request) -> Reply:
    """Return one image as a tar."""
    return _save(engine, [request.names["name"]])


def _save(engine: Engine, names: list[str]) -> Reply:
    from dataclasses import replace

    images = []
    for name in names:
        image = engine.images.find(name)
        by_name = [reference for reference in image.references if _is_named(name, reference)]
        images.append(replace(image, references=tuple(by_name)))
    return Stream(piped(lambda out: save_archive(engine.images.store, images, out)), "application/x-tar")


def _is_named(text: str, reference: str) -> bool:
    with suppress(LabkitError):
        return reference_of(text).canonical == reference
    return False


def piped(write: Any) -> Iterator[bytes]:
    """Yield what ``write(file)`` writes, while it does so in a thread of its own."""
    read_fd, write_fd = os.pipe()
    errors: list[Exception] = []

    def work() -> None:
        try:
            with open(write_fd, "wb") as out:
                write(out)
        except (LabkitError, OSError) as error:
            errors.append(error)

    worker = threading.Thread(target=work, name="tar", daemon=True)
    worker.start()
    with open(read_fd, "rb", buffering=0) as source:
        while data := source.read(_PIECE):
            yield data
    worker.join()
    if errors:
        raise OSError(str(errors[0]))


@routes.post("/commit")
def commit_container(engine: Engine, request: Request) -> Reply:
    """Make an image of a container's changes."""
    query = request.query
    container = engine.containers.find(query.text("container"))
    repo, tag = query.text("repo"), query.text("tag")
    reference = reference_of(f"{repo}:{tag}" if tag else repo) if repo else None
    body = request.json()
    base = engine.images.find(container.image_id)
    given = parse_config(body) if body else container.config
    config = apply_changes(
        RunConfig.from_dict(_image_fields(given), "The container's configuration"), query.texts("changes")
    )
    pause = query.flag("pause", default=True) and container.state.status == "running"
    if pause:
        try:
            engine.lives.pause(container)
        except (Conflict, InvalidState):
            pause = False  # its program has just ended: what it left is committed
    try:
        image = commit(
            engine.images.store, f"{container.folder}/rw/upper", base, tag=reference, created_by=" ".join(container.config["Cmd"] or []),
            comment=query.text("comment"), author=query.text("author"), run_config=config,
        )  # fmt: skip
    finally:
        if pause:
            with suppress(Conflict):  # its program ended, or somebody else let it go on
                engine.lives.unpause(container)
    if reference is None:
        engine.images.store.keep(image.root)
    engine.events.say("container", "commit", container.id, {**container.attributes, "imageID": image.id})
    return Json({"Id": image.id}, 201)


def _image_fields(config: dict[str, Any]) -> dict[str, Any]:
    wanted = (
        "User", "Env", "Entrypoint", "Cmd", "WorkingDir", "ExposedPorts", "Volumes", "Labels", "StopSignal", "Shell", "Healthcheck",
    )  # fmt: skip
    return {name: config[name] for name in wanted if config.get(name)}

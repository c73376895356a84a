"""Images over the wire: list, inspect, history, tag, remove, prune, search.

See: Docker Engine API, "Images".
"""

from __future__ import annotations

import fnmatch
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from labkit.engine.api.shown import image_summary, image_unix_time, names_of
from labkit.engine.engine import Engine
from labkit.engine.objects.images import reference_of
from labkit.engine.wire.errors import ApiError, BadParameter, Conflict, NotFound
from labkit.engine.wire.reply import Empty, Json, Reply
from labkit.engine.wire.request import Request
from labkit.engine.wire.routes import Routes
from labkit.errors import ImageError, InvalidSpec
from labkit.image.collect import Collected
from labkit.image.config import History
from labkit.image.store import Image

__all__ = ["routes"]

routes = Routes()

_FILTERS = {"before", "dangling", "label", "reference", "since", "until"}


@routes.get("/images/json")
def listing(engine: Engine, request: Request) -> Reply:
    """Return every image that passes the filters."""
    filters = request.query.filters()
    for name in filters:
        if name not in _FILTERS:
            raise BadParameter(f"invalid filter '{name}'")
    if request.query.text("filter"):
        filters.setdefault("reference", []).append(request.query.text("filter"))
    users = Counter(container.image_id for container in engine.containers.all())
    found = [
        image_summary(engine, image, containers=users)
        for image in engine.images.store.images()
        if _passes(engine, image, filters)
    ]
    patterns = filters.get("reference")
    if patterns:
        found = [kept for shown in found if (kept := _only_matching(shown, patterns))]
    return Json(found)


def _passes(engine: Engine, image: Image, filters: Mapping[str, Sequence[str]]) -> bool:
    if "dangling" in filters:
        wanted = filters["dangling"][0].lower() in ("true", "1") if filters["dangling"] else True
        if bool(image.references) == wanted:
            return False
    for name in ("before", "since"):
        for value in filters.get(name, ()):
            other = image_unix_time(engine.images.find(value))
            own = image_unix_time(image)
            if (name == "before" and own >= other) or (name == "since" and own <= other):
                return False
    labels = image.config.config.labels
    for value in filters.get("label", ()):
        key, equals, text = value.partition("=")
        if key not in labels or (equals and labels[key] != text):
            return False
    return True


def _only_matching(shown: dict[str, Any], patterns: Sequence[str]) -> dict[str, Any] | None:
    """Return the entry with those of its names that match any of the patterns, None if none does."""

    def fits(name: str) -> bool:
        bare = name.rpartition(":")[0] if "@" not in name else name.partition("@")[0]
        return any(
            fnmatch.fnmatchcase(text, _familiar(p))
            for p in patterns
            for text in (name, bare, bare.rpartition("/")[2] if "/" not in p else bare)
        )

    tags = [name for name in shown["RepoTags"] if fits(name)]
    return {**shown, "RepoTags": tags} if tags else None


def _familiar(pattern: str) -> str:
    return pattern.removeprefix("docker.io/library/").removeprefix("docker.io/")


@routes.get("/images/search")
def search(engine: Engine, request: Request) -> Reply:
    """Say that there is no hub to search."""
    del engine, request
    raise ApiError(
        "this engine assumes no hub, so there is nothing to search: ask a registry for its catalog instead", status=501
    )


@routes.post("/images/prune")
def prune(engine: Engine, request: Request) -> Reply:
    """Remove images without a name, or with the filter ``dangling=false`` all that no container uses."""
    filters = request.query.filters()
    for name in filters:
        if name not in ("dangling", "label", "label!", "until"):
            raise BadParameter(f"invalid filter '{name}'")
    every = any(value.lower() in ("false", "0") for value in filters.get("dangling", ()))
    used = {container.image_id for container in engine.containers.all()}
    deleted: list[dict[str, str]] = []
    freed = 0
    for image in engine.images.store.images():
        if image.id in used or (image.references and not every):
            continue
        gone = engine.images.store.remove(image.root.digest, force=True)
        deleted += _removed(engine, image, gone)
        freed += gone.freed_bytes
    swept = engine.images.store.prune()
    return Json({"ImagesDeleted": deleted or None, "SpaceReclaimed": freed + swept.freed_bytes})


@routes.get("/images/{name...}/json")
def inspect(engine: Engine, request: Request) -> Reply:
    """Return everything about an image."""
    image = engine.images.find(request.names["name"])
    tags, digests = names_of(image)
    config = image.config
    return Json(
        {
            "Id": image.id, "RepoTags": tags, "RepoDigests": digests, "Parent": "", "Comment": _comment(config.history),
            "Created": config.created, "Container": "", "ContainerConfig": None, "DockerVersion": "", "Author": config.author,
            "Config": _config_shown(config.config.to_dict()), "Architecture": config.platform.architecture, "Os": config.platform.os,
            "Size": image.size, "VirtualSize": image.size, "GraphDriver": {"Name": "overlay", "Data": {}},
            "RootFS": {"Type": "layers", "Layers": list(config.diff_ids)}, "Metadata": {"LastTagTime": "0001-01-01T00:00:00Z"},
        }
    )  # fmt: skip


def _comment(history: Sequence[History]) -> str:
    return history[-1].comment if history else ""


def _config_shown(config: Mapping[str, Any]) -> dict[str, Any]:
    empty: dict[str, Any] = {
        "Hostname": "", "Domainname": "", "User": "", "AttachStdin": False, "AttachStdout": False, "AttachStderr": False, "Tty": False,
        "OpenStdin": False, "StdinOnce": False, "Env": [], "Cmd": None, "Image": "", "Volumes": None, "WorkingDir": "",
        "Entrypoint": None, "OnBuild": None, "Labels": None,
    }  # fmt: skip
    return empty | dict(config)


@routes.get("/images/{name...}/history")
def history(engine: Engine, request: Request) -> Reply:
    """Return how an image came about, the newest step first."""
    image = engine.images.find(request.names["name"])
    tags, _ = names_of(image)
    layers, found = image.config.layers_of_history(), []
    for step, layer in zip(image.config.history, layers, strict=True):
        size = image.manifest.layers[layer].size if layer is not None else 0
        created = image_unix_time_of(step.created)
        found.append(
            {
                "Id": "<missing>",
                "Created": created,
                "CreatedBy": step.created_by,
                "Tags": None,
                "Size": size,
                "Comment": step.comment,
            }
        )
    if found:
        found[-1] |= {"Id": image.id, "Tags": tags or None}
    return Json(list(reversed(found)))


def image_unix_time_of(text: str) -> int:
    """Return a time of an image's history as seconds since 1970; 0 if it says none."""
    from datetime import UTC, datetime

    try:
        moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        return 0
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())


@routes.post("/images/{name...}/tag")
def tag(engine: Engine, request: Request) -> Reply:
    """Give an image one more name."""
    image = engine.images.find(request.names["name"])
    repo, tag_text = request.query.text("repo"), request.query.text("tag")
    reference = reference_of(f"{repo}:{tag_text}" if tag_text else repo)
    if reference.digest:
        raise BadParameter("refusing to create a tag with a digest reference")
    engine.images.store.tag(reference, image.root)
    engine.events.say("image", "tag", image.id, {"name": reference.familiar})
    return Empty(201)


@routes.delete("/images/{name...}")
def remove(engine: Engine, request: Request) -> Reply:
    """Take an image's name away, and the image with its last one."""
    name, force = request.names["name"], request.query.flag("force")
    image = engine.images.find(name)
    by_id = _is_id(name, image)
    last_name = by_id or len(image.references) <= 1
    _check_unused(engine, image, name, force=force, by_id=by_id, last_name=last_name)
    try:
        gone = engine.images.store.remove(image.root.digest if by_id and force else name, force=force)
    except ImageError as error:
        raise Conflict(
            f"conflict: unable to delete {image.id[7:19]} (must be forced) - image is referenced in multiple repositories"
        ) from error
    except InvalidSpec as error:
        raise NotFound(f"No such image: {name}") from error
    return Json(_removed(engine, image, gone))


def _is_id(name: str, image: Image) -> bool:
    digits = name.removeprefix("sha256:")
    return (
        image.id.removeprefix("sha256:").startswith(digits)
        and set(digits) <= set("0123456789abcdef")
        and len(digits) >= 4
    )


def _check_unused(engine: Engine, image: Image, name: str, *, force: bool, by_id: bool, last_name: bool) -> None:
    users = [container for container in engine.containers.all() if container.image_id == image.id]
    if not users or not last_name:
        return
    running = next((c for c in users if c.state.is_running), None)
    shown = image.id[7:19] if by_id else name
    if running is not None and (by_id or not force):
        kind = "cannot be forced" if by_id else "must force"
        raise Conflict(
            f"conflict: unable to {'delete' if by_id else 'remove repository reference'} {shown if by_id else chr(34) + shown + chr(34)} "
            f"({kind}) - {'image is being used by' if by_id else 'container ' + running.short_id + ' is using its referenced image ' + image.id[7:19]}"
            + (f" running container {running.short_id}" if by_id else "")
        )
    if not force:
        raise Conflict(
            f'conflict: unable to remove repository reference "{shown}" (must force) - container {users[0].short_id} is using its '
            f"referenced image {image.id[7:19]}"
            if not by_id
            else f"conflict: unable to delete {shown} (must be forced) - image is being used by stopped container {users[0].short_id}"
        )


def _removed(engine: Engine, image: Image, gone: Collected) -> list[dict[str, str]]:
    found = [{"Untagged": reference_of(name).familiar} for name in gone.untagged if name]
    for item in found:
        engine.events.say("image", "untag", image.id, {"name": item["Untagged"]})
    if image.root.digest in gone.blobs or len(found) >= max(1, len(image.references)):
        found.append({"Deleted": image.id})
        engine.events.say("image", "delete", image.id, {"name": image.id})
    return found

"""``docker cp`` and ``docker export``: parts of a container's file tree as tar, out and in.

What comes in is unpacked by a child that is confined to the target folder (`labkit.image.unpack`): no link, in the archive or in the
container, leads it anywhere else.

See: Docker Engine API, "Extract an archive", "Get an archive"; docker-cp(1).
"""

from __future__ import annotations

import os
import posixpath
from contextlib import ExitStack, contextmanager
from typing import IO, TYPE_CHECKING

from labkit.engine.api.transfer import piped
from labkit.engine.engine import Engine
from labkit.engine.objects.record import Container
from labkit.engine.objects.rootview import Ids
from labkit.engine.objects.tree import Found, locate, stat_header, write_tar
from labkit.engine.spec.mounts import MountPoint
from labkit.engine.wire.errors import ApiError, BadParameter, NotFound
from labkit.engine.wire.reply import Empty, Reply, Stream
from labkit.engine.wire.request import Request
from labkit.engine.wire.routes import Routes
from labkit.errors import ImageError
from labkit.image.archive import plain_source
from labkit.image.unpack import unpack
from labkit.linux.fds import Fd

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["routes"]

routes = Routes()

_TAR = "application/x-tar"


def _root_of(engine: Engine, container: Container) -> Fd:
    """Return the container's file tree: with its mounts while it runs, the layers alone while it does not."""
    if container.state.is_running:
        return engine.views.of_running(container.state)
    lowers = engine.images.to_run(container.image_id).lowers
    return engine.views.of_layers(lowers, f"{container.folder}/rw")


def _mount_at(container: Container, path: str) -> list[MountPoint]:
    """Return the volume or bind of a stopped container in which ``path`` lies; a running one's tree has its mounts in it."""
    clean = posixpath.normpath("/" + path.lstrip("/"))
    points = [p for p in container.mounts if p.kind != "tmpfs" and (clean + "/").startswith(p.target + "/")]
    return [] if container.state.is_running else points[-1:]


@contextmanager
def _root_for(engine: Engine, container: Container, path: str) -> Iterator[tuple[Fd, str]]:
    """Give a file tree and where ``path`` is in it: for a stopped container the volume or bind that it lies in, if any."""
    clean = posixpath.normpath("/" + path.lstrip("/"))  # two slashes at the beginning would stay
    with ExitStack() as held:
        for target, source in engine.storage.open_sources(_mount_at(container, path), held).items():
            if os.path.isdir(source):
                root = held.enter_context(Fd(os.open(source, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)))
                yield root, f"/{clean[len(target) :]}{'/' if path.endswith(('/', '/.')) else ''}"
                return
        yield held.enter_context(_root_of(engine, container)), path


@contextmanager
def _found(engine: Engine, container: Container, path: str) -> Iterator[Found]:
    if not path:
        raise BadParameter("Bad parameter: path cannot be empty")
    if "\0" in path:
        raise BadParameter("Bad parameter: path holds a NUL character")
    with _root_for(engine, container, path) as (root, inner):
        try:
            found = locate(root.number, inner)
        except NotADirectoryError as error:
            raise BadParameter(f"not a directory: {path}") from error
        except OSError as error:
            raise NotFound(f"Could not find the file {path} in container {container.name}") from error
        with found.folder:
            yield found


def _name_of(path: str) -> str:
    # "/etc/." means the content of /etc, and its entries are called "./passwd".
    return "." if path.endswith("/.") else posixpath.basename(posixpath.normpath("/" + path)) or "/"


@routes.get("/containers/{id}/archive")
def get(engine: Engine, request: Request) -> Reply:
    """Return a path of a container as tar, its status in a header; HEAD asks for the status alone."""
    container = engine.containers.find(request.names["id"])
    path = request.query.text("path")
    if request.method == "HEAD":
        with _found(engine, container, path) as found:
            return Empty(
                200, {"X-Docker-Container-Path-Stat": stat_header(found, _name_of(path)), "Content-Type": _TAR}
            )
    with _found(engine, container, path) as found:
        header = stat_header(found, _name_of(path))
        # The stream outlives this function, so it gets a descriptor of its own.
        kept = Found(Fd(os.dup(found.folder.number)), found.name, found.status, found.link)
    name = _name_of(path)
    pieces = piped(lambda out: _write(engine, kept, "" if name == "/" else name, out))
    return Stream(pieces, _TAR, headers={"X-Docker-Container-Path-Stat": header})


def _write(engine: Engine, found: Found, name: str, out: IO[bytes], *, one_system: bool = False) -> None:
    with found.folder:
        write_tar(found, name, out, owner=engine.views.ids.inside, one_system=one_system)


@routes.get("/containers/{id}/export")
def export(engine: Engine, request: Request) -> Reply:
    """Return the whole file tree of a container as tar, without what is mounted in it."""
    container = engine.containers.find(request.names["id"])
    root = _root_of(engine, container)
    found = Found(root, "", os.fstat(root.number))
    return Stream(piped(lambda out: _write(engine, found, "", out, one_system=True)), _TAR)


@routes.on("PUT", "/containers/{id}/archive")
def put(engine: Engine, request: Request) -> Reply:
    """Unpack a tar into a folder of a container."""
    container = engine.containers.find(request.names["id"])
    path = request.query.text("path")
    if container.host["ReadonlyRootfs"] and not any(path.startswith(point.target) for point in container.mounts):
        raise BadParameter("container rootfs is marked read-only")
    with _found(engine, container, path.rstrip("/") + "/") as found:
        if not found.is_folder:
            raise BadParameter("extraction point is not a directory")
        with found.open_folder() as folder:
            _unpack(request, folder)
            if _mount_at(container, path):
                _as_inside(folder, engine.views.ids)
    return Empty(200)


def _as_inside(folder: Fd, ids: Ids) -> None:
    """Give what was unpacked as a container's the owners that volumes have on the disk: those that the container sees."""
    for _, folders, files, folder_fd in os.fwalk(".", dir_fd=folder.number):
        for name in [*folders, *files]:
            status = os.stat(name, dir_fd=folder_fd, follow_symlinks=False)
            owners = ids.inside(status.st_uid), ids.inside(status.st_gid)
            if owners != (status.st_uid, status.st_gid):
                os.chown(name, *owners, dir_fd=folder_fd, follow_symlinks=False)


def _unpack(request: Request, folder: Fd) -> None:
    before = os.fstat(folder.number)
    try:
        unpack(plain_source(request.body), folder.number, is_layer=False)
    except ImageError as error:
        raise ApiError(f"the archive cannot be unpacked: {error}", status=400) from error
    finally:
        # The one who unpacks owns the folder meanwhile.
        os.fchown(folder.number, before.st_uid, before.st_gid)

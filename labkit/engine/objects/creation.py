"""The beginning and the end of a container's entry: create, rename, remove, prune.

A container is made in a folder of its own; it exists from the moment in which its ``container.json`` is there. It is removed by taking that
file away first and the rest afterwards, in the background. So a crash leaves either a container or a folder that the next start
sweeps up.

See: Docker Engine API, "Create a container", "Remove a container".
"""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import signal
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from typing import Any

from labkit.engine.keeper.logfile import timestamp
from labkit.engine.network.manager import Networks
from labkit.engine.objects.events import Events
from labkit.engine.objects.files import remove_tree
from labkit.engine.objects.images import Images
from labkit.engine.objects.launch import capabilities_of, init_program, security_of
from labkit.engine.objects.lifecycle import Lives
from labkit.engine.objects.record import Container, State
from labkit.engine.objects.registry import Registry
from labkit.engine.objects.storage import Storage
from labkit.engine.spec.config import command_of, parse_config, with_image
from labkit.engine.spec.hostconfig import parse_host_config
from labkit.engine.spec.mounts import MountPoint, parse_mounts
from labkit.engine.spec.ports import parse_ports
from labkit.engine.wire.errors import BadParameter, Conflict, NotModified
from labkit.errors import LabkitError

__all__ = ["Creator"]

log = logging.getLogger(__name__)


class Creator:
    """Makes and removes containers; safe to use from several threads."""

    def __init__(
        self, containers: Registry, images: Images, storage: Storage, networks: Networks, lives: Lives, events: Events
    ) -> None:  # fmt: skip
        self.containers, self._images, self._storage = containers, images, storage
        self._networks, self._lives, self._events = networks, lives, events
        self._trash = f"{containers.folder}/.trash"
        remove_tree(self._trash)
        os.makedirs(self._trash, 0o700, exist_ok=True)
        lives.remove = self._remove_ended

    def create(self, name: str, body: Mapping[str, Any]) -> Container:
        """Make a container from a create request. Raises: BadParameter, NotFound for its image, Conflict for its name."""
        config = parse_config(body)
        host = parse_host_config(_object(body, "HostConfig"))
        capabilities_of(host)
        if host.get("Init"):
            init_program()
        security_of(host)
        image = self._images.to_run(config["Image"])
        config = with_image(config, image.config)
        command_of(config)
        parse_ports(config, host)
        endpoints = self._networks.parse_endpoints(_object(body, "NetworkingConfig"), host["NetworkMode"])
        points = self._with_others(parse_mounts(config, host), host["VolumesFrom"] or [])
        identity = secrets.token_hex(32)
        name = self.containers.reserve(name, identity)
        folder = f"{self.containers.folder}/{identity}"
        now_ns = time.time_ns()
        try:
            os.mkdir(folder, 0o710)
            points = self._storage.make_volumes(points, image.lowers)
            _make_writable(folder, self._storage.views.ids.shift)
            document = {
                "id": identity, "name": name, "created": timestamp(now_ns), "created_ns": now_ns, "image": config["Image"],
                "image_id": image.id, "config": config, "host": host, "mounts": [point.to_dict() for point in points],
                "endpoints": endpoints, "state": asdict(State()),
            }  # fmt: skip
            container = Container(folder, document)
            container.save()
        except BaseException:
            self.containers.release(name)
            shutil.rmtree(folder, ignore_errors=True)
            raise
        self.containers.add(container)
        self._events.say("container", "create", identity, container.attributes)
        return container

    def _with_others(self, points: list[MountPoint], others: Sequence[str]) -> list[MountPoint]:
        """Return ``points`` with what is mounted in ``others`` (``NAME[:ro]``), too, where nothing else is. Raises: NotFound."""
        found = {point.target: point for point in points if not (point.kind == "volume" and not point.name)}
        for text in others:
            name, _, mode = text.partition(":")
            if mode not in ("", "ro", "rw", "z", "Z"):
                raise BadParameter(f"invalid mode: {mode}")
            for point in self.containers.find(name).mounts:
                if point.kind != "tmpfs" and point.target not in found:
                    found[point.target] = replace(point, read_only=point.read_only or mode == "ro")
        kept = {point.target: point for point in points} | found
        return sorted(kept.values(), key=lambda point: (point.target.count("/"), point.target))

    def rename(self, container: Container, name: str) -> None:
        """Give a container another name. Raises: BadParameter, Conflict."""
        if not name.strip():
            raise BadParameter("Neither old nor new names may be empty")
        with container.lock:
            old = container.name
            if name.lstrip("/") == old:
                raise BadParameter("Renaming a container with the same name as its current name")
            container.name = self.containers.reserve(name, container.id)
            for endpoint in container.endpoints.values():
                names = endpoint["DNSNames"]
                endpoint["DNSNames"] = names and [container.name if name == old else name for name in names]
            container.save()
            self.containers.release(old)
        self._events.say("container", "rename", container.id, {**container.attributes, "oldName": f"/{old}"})

    def remove(self, container: Container, *, force: bool = False, volumes: bool = False) -> None:
        """Remove a container, with ``volumes`` its anonymous volumes, too. Raises: Conflict while it runs, unless forced."""
        if (container.state.is_running or container.state.status == "restarting") and not force:
            state = container.state.status
            hint = "Unpause and then stop the container" if state == "paused" else "Stop the container"
            raise Conflict(
                f"You cannot remove a {state} container {container.id}. {hint} before attempting removal or force remove"
            )
        with suppress(NotModified):
            if container.state.is_running or container.state.status == "restarting":
                container.was_stopped = True
                container.host["AutoRemove"] = False
                self._kill(container)
        with container.lock:
            if container.state.status == "removing":
                return
            self._take_away(container, volumes=volumes)

    def _kill(self, container: Container) -> None:
        if container.state.pid:
            with suppress(Conflict):
                self._lives.kill(container, signal.SIGKILL)
        else:
            self._lives.stop(container)

    def _take_away(self, container: Container, *, volumes: bool) -> None:
        container.state.status = "removing"
        os.unlink(f"{container.folder}/container.json")
        self._networks.forget(container)
        self.containers.remove(container)
        if volumes:
            self._remove_anonymous(container)
        gone = f"{self._trash}/{container.id}"
        os.rename(container.folder, gone)
        threading.Thread(target=_sweep, args=(gone,), name="sweep", daemon=True).start()
        self._events.say("container", "destroy", container.id, container.attributes)
        # Only now may those go on who wait for it: it is in no list any more.
        container.is_removed = True
        container.announce()

    def _remove_anonymous(self, container: Container) -> None:
        for point in container.mounts:
            if point.kind == "volume" and self._storage.volumes.is_anonymous(point.name):
                with suppress(LabkitError):  # another container uses it
                    self._storage.volumes.remove(point.name)

    def _remove_ended(self, container: Container) -> None:
        """Remove a container that was made with ``--rm``, which takes its anonymous volumes along."""
        try:
            self.remove(container, volumes=True)
        except (LabkitError, OSError) as error:
            log.warning("%s was not removed: %s", container.name, error)


def _sweep(path: str) -> None:
    try:
        remove_tree(path)
    except OSError as error:
        log.warning("%s: %s; the next start of the engine tries again", path, error)


def _object(body: Mapping[str, Any], name: str) -> dict[str, Any]:
    value = body.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise BadParameter(f"invalid JSON: {name} must be an object")
    return value


def _make_writable(folder: str, shift: int) -> None:
    """Make the writable layer, which belongs to the container's root, with the mark that a program is in a container."""
    for path in (f"{folder}/rw", f"{folder}/rw/upper", f"{folder}/rw/work"):
        os.mkdir(path, 0o755)
        if path != f"{folder}/rw":
            os.chown(path, shift, shift)
    marker = os.open(f"{folder}/rw/upper/.dockerenv", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o755)
    os.fchown(marker, shift, shift)
    os.close(marker)

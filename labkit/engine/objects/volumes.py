"""Volumes: folders that outlive containers, ``volumes/NAME/_data``, with a note of who made them beside.

A volume belongs to nobody's layers: it is bound into containers, ID-mapped, so that root's files inside are root's on the disk.
One that is used for the first time and is empty is filled with what the image has at that place, as Docker does it.

See: Docker Engine API, "Volumes"; docker-volume-create(1).
"""

from __future__ import annotations

import os
import secrets
import threading
import time
from collections.abc import Mapping
from typing import Any

from labkit.engine.keeper.logfile import timestamp
from labkit.engine.objects.events import Events
from labkit.engine.objects.files import read_json, remove_tree, write_json
from labkit.engine.objects.registry import Registry
from labkit.engine.spec.mounts import VOLUME_NAME
from labkit.engine.wire.errors import ApiError, BadParameter, Conflict, NotFound

__all__ = ["Volumes", "keep_passes"]


class Volumes:
    """Every volume below ``folder``; safe to use from several threads."""

    def __init__(self, folder: str, containers: Registry, events: Events) -> None:
        self._folder, self._containers, self._events = folder, containers, events
        self._lock = threading.RLock()
        os.makedirs(folder, 0o711, exist_ok=True)

    def data_path(self, name: str) -> str:
        """Return the folder with the volume's files."""
        return f"{self._folder}/{name}/_data"

    def all(self) -> list[dict[str, Any]]:
        """Return every volume as the API shows it, by name."""
        with self._lock:
            names = sorted(os.listdir(self._folder))
            found = [read_json(f"{self._folder}/{name}/volume.json") for name in names]
        return [self._shown(document) for document in found if document]

    def find(self, name: str) -> dict[str, Any]:
        """Return one volume. Raises: NotFound."""
        document = read_json(f"{self._folder}/{name}/volume.json") if VOLUME_NAME.match(name) else None
        if document is None:
            raise NotFound(f"get {name}: no such volume")
        return self._shown(document)

    def create(
        self, name: str, *, labels: Mapping[str, str] | None = None, driver: str = "local", options: Mapping[str, str] | None = None
    ) -> dict[str, Any]:  # fmt: skip
        """Return the volume ``name`` (empty: a new anonymous one), making it if need be. Raises: BadParameter, ApiError."""
        if driver not in ("", "local"):
            raise ApiError(
                f'create {name}: error looking up volume plugin {driver}: plugin "{driver}" not found', status=404
            )
        if options:
            raise BadParameter(
                f"create {name}: this engine's local driver takes no options, but {', '.join(options)} were given"
            )
        anonymous = not name
        name = name or secrets.token_hex(32)
        if not VOLUME_NAME.match(name):
            raise BadParameter(
                f'create {name}: "{name}" includes invalid characters for a local volume name, only '
                '"[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. If you intended to pass a host directory, use absolute path'
            )
        with self._lock:
            folder = f"{self._folder}/{name}"
            if os.path.exists(f"{folder}/volume.json"):
                return self.find(name)
            os.makedirs(f"{folder}/_data", 0o755, exist_ok=True)
            document = {
                "Name": name, "CreatedAt": timestamp(time.time_ns())[:19] + "Z", "Anonymous": anonymous,
                "Labels": dict(labels or {}) | ({"com.docker.volume.anonymous": ""} if anonymous else {}),
            }  # fmt: skip
            write_json(f"{folder}/volume.json", document)
        self._events.say("volume", "create", name, {"driver": "local"})
        return self._shown(document)

    def remove(self, name: str, *, force: bool = False) -> None:
        """Remove a volume and its files. Raises: NotFound, Conflict while a container uses it."""
        with self._lock:
            try:
                self.find(name)
            except NotFound:
                if force:
                    return
                raise
            users = self.users(name)
            if users:
                raise Conflict(f"remove {name}: volume is in use - [{', '.join(users)}]")
            # First the note, then the files: one that is half removed is nobody's any more.
            os.unlink(f"{self._folder}/{name}/volume.json")
            remove_tree(f"{self._folder}/{name}")
        self._events.say("volume", "destroy", name, {"driver": "local"})

    def users(self, name: str) -> list[str]:
        """Return the ids of the containers, running or not, that have the volume mounted."""
        return [c.id for c in self._containers.all() if any(p.kind == "volume" and p.name == name for p in c.mounts)]

    def is_empty(self, name: str) -> bool:
        """Tell whether nothing has been written to the volume yet."""
        with os.scandir(self.data_path(name)) as entries:
            return next(entries, None) is None

    def is_anonymous(self, name: str) -> bool:
        """Tell whether nobody gave the volume its name."""
        document = read_json(f"{self._folder}/{name}/volume.json") or {}
        return bool(document.get("Anonymous"))

    def size_bytes(self, name: str) -> int:
        """Return the bytes that the volume's files take on the disk."""
        total = 0
        for _, _, files, fd in os.fwalk(self.data_path(name)):
            total += sum(os.stat(file, dir_fd=fd, follow_symlinks=False).st_blocks * 512 for file in files)
        return total

    def prune(self, *, every: bool, keep: Mapping[str, Any]) -> tuple[list[str], int]:
        """Remove volumes that no container uses (``every``: named ones, too); return their names and their bytes."""
        gone, freed = [], 0
        for volume in self.all():
            name = volume["Name"]
            if self.users(name) or not (every or self.is_anonymous(name)) or not keep_passes(volume, keep):
                continue
            size = self.size_bytes(name)
            self.remove(name)
            gone.append(name)
            freed += size
        return gone, freed

    def collect(self) -> list[str]:
        """Remove what a killed engine left half made or half removed; return a sentence each."""
        notes = []
        for name in sorted(os.listdir(self._folder)):
            path = f"{self._folder}/{name}"
            if not os.path.exists(f"{path}/volume.json"):
                if os.path.isdir(f"{path}/_data") and os.listdir(f"{path}/_data"):
                    notes.append(f"{path} has files but no volume.json; it is left alone.")
                    continue
                remove_tree(path)
        return notes

    def _shown(self, document: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "CreatedAt": document["CreatedAt"], "Driver": "local", "Labels": document["Labels"] or None,
            "Mountpoint": self.data_path(document["Name"]), "Name": document["Name"], "Options": None, "Scope": "local",
        }  # fmt: skip


def keep_passes(item: Mapping[str, Any], filters: Mapping[str, Any]) -> bool:
    """Tell whether an object with ``Labels`` passes the filters ``label`` and ``label!`` of a prune request."""
    labels = item.get("Labels") or {}

    def has(text: str) -> bool:
        key, equals, value = text.partition("=")
        return key in labels and (not equals or labels[key] == value)

    return all(has(text) for text in filters.get("label", ())) and not any(
        has(text) for text in filters.get("label!", ())
    )

"""What is mounted into a container: ``-v``, ``--mount``, ``--tmpfs`` and the image's volumes as one list of mount points.

``-v SOURCE:TARGET[:OPTIONS]``: a source with a slash is a folder of the machine (a bind), one without is the name of a volume; with no
source at all an anonymous volume is made. Later targets win over the image's own volumes.

See: Docker Engine API, "Mount", "MountPoint"; docker-run(1).
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from labkit.engine.spec.fields import FLAG, OBJECT, TEXT, checked
from labkit.engine.wire.errors import BadParameter

__all__ = ["VOLUME_NAME", "MountPoint", "parse_mounts"]

VOLUME_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+\Z")
_OPTIONS = {"ro", "rw", "z", "Z", "nocopy", "cached", "delegated", "consistent"}
_PROPAGATIONS = {"private", "rprivate", "shared", "rshared", "slave", "rslave"}
_TABLE = {
    "Type": TEXT, "Source": TEXT, "Target": TEXT, "ReadOnly": FLAG, "Consistency": TEXT, "BindOptions": OBJECT,
    "VolumeOptions": OBJECT, "TmpfsOptions": OBJECT,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class MountPoint:
    """One mount: a ``bind`` of ``source``, the volume ``name`` ("" until it is made), or a ``tmpfs``."""

    kind: str
    target: str
    source: str = ""
    name: str = ""
    read_only: bool = False
    no_copy: bool = False
    options: str = ""
    driver_labels: tuple[tuple[str, str], ...] = ()
    create_source: bool = False
    propagation: str = "rprivate"
    subpath: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON has it in the state folder."""
        return asdict(self)

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> MountPoint:
        """Return what `to_dict` made."""
        labels = tuple((str(key), str(value)) for key, value in document.get("driver_labels", ()))
        return cls(**{**document, "driver_labels": labels})


def parse_mounts(config: Mapping[str, Any], host: Mapping[str, Any]) -> list[MountPoint]:
    """Return every mount that the two halves of a description ask for. Raises: BadParameter."""
    points: dict[str, MountPoint] = {}

    def add(point: MountPoint) -> None:
        if point.target in points:
            raise BadParameter(f"Duplicate mount point: {point.target}")
        points[point.target] = point

    for text in host["Binds"] or []:
        add(_parse_bind(text))
    for entry in host.get("Mounts") or []:
        add(_parse_mount(entry))
    for target, options in (host.get("Tmpfs") or {}).items():
        add(MountPoint("tmpfs", _target(target), options=options))
    for target in config.get("Volumes") or {}:
        clean = _target(target)
        if clean not in points:
            points[clean] = MountPoint("volume", clean)
    # A mount inside another one comes after it.
    return sorted(points.values(), key=lambda point: (point.target.count("/"), point.target))


def _target(text: str) -> str:
    if not text.startswith("/"):
        raise BadParameter(f"invalid mount path: '{text}' mount path must be absolute")
    clean = posixpath.normpath("/" + text.strip("/"))
    if clean == "/":
        raise BadParameter("invalid specification: destination can't be '/'")
    return clean


def _parse_bind(text: str) -> MountPoint:
    parts = text.split(":")
    if len(parts) > 3 or not all(parts):
        raise BadParameter(f"invalid volume specification: '{text}'")
    if len(parts) == 1:
        return MountPoint("volume", _target(parts[0]))
    source, target, options = parts[0], parts[1], set((parts[2] if len(parts) == 3 else "").split(",")) - {""}
    if options - _OPTIONS - _PROPAGATIONS:
        raise BadParameter(f"invalid mode: {parts[2]}")
    if {"ro", "rw"} <= options:
        raise BadParameter(f"invalid mode: {parts[2]}")
    read_only, no_copy = "ro" in options, "nocopy" in options
    if target.strip("/") == "":
        kind = "bind" if source.startswith("/") else "volume"
        raise BadParameter(
            f"invalid volume specification: '{text}': invalid mount config for type \"{kind}\": invalid specification: destination can't be '/'"
        )
    if source.startswith("/"):
        clean = posixpath.normpath(source)
        asked = next(iter(options & _PROPAGATIONS), "rprivate")
        return MountPoint(
            "bind", _target(target), source=clean, read_only=read_only, create_source=True, propagation=asked
        )
    if not VOLUME_NAME.match(source):
        raise BadParameter(
            f'create {source}: "{source}" includes invalid characters for a local volume name, only '
            '"[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. If you intended to pass a host directory, use absolute path'
        )
    return MountPoint("volume", _target(target), name=source, read_only=read_only, no_copy=no_copy)


def _parse_mount(entry: Mapping[str, Any]) -> MountPoint:
    mount = checked(entry, _TABLE, "Mount")
    kind, source, target = mount.get("Type", ""), mount.get("Source", ""), mount.get("Target", "")
    if not target:
        raise BadParameter('invalid mount config for type "' + kind + '": field Target must not be empty')
    read_only = bool(mount.get("ReadOnly"))
    if kind == "bind":
        if not source.startswith("/"):
            raise BadParameter(
                f"invalid mount config for type \"bind\": invalid mount path: '{source}' mount path must be absolute"
            )
        create = bool((mount.get("BindOptions") or {}).get("CreateMountpoint"))
        return MountPoint(
            "bind", _target(target), source=posixpath.normpath(source), read_only=read_only, create_source=create
        )
    if kind == "volume":
        if source and not VOLUME_NAME.match(source):
            raise BadParameter(f'create {source}: "{source}" includes invalid characters for a local volume name')
        options = mount.get("VolumeOptions") or {}
        labels = tuple((str(k), str(v)) for k, v in (options.get("Labels") or {}).items())
        return MountPoint(
            "volume", _target(target), name=source, read_only=read_only, no_copy=bool(options.get("NoCopy")),
            driver_labels=labels, subpath=str(options.get("Subpath") or ""),
        )  # fmt: skip
    if kind == "tmpfs":
        if source:
            raise BadParameter('invalid mount config for type "tmpfs": field Source must not be specified')
        options = mount.get("TmpfsOptions") or {}
        size, mode = options.get("SizeBytes"), options.get("Mode")
        words = [f"size={int(size)}" if size else "", f"mode={int(mode):o}" if mode else "", "ro" if read_only else ""]
        return MountPoint("tmpfs", _target(target), options=",".join(filter(None, words)))
    raise BadParameter(f'invalid mount config: mount type unknown: "{kind}"')

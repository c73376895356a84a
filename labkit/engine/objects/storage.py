"""What a container's start needs from the disk: its volumes, its bind sources, its own /etc/hosts.

A bind source is looked up once. The descriptor that comes out is what gets mounted (through ``/proc/PID/fd``), so nobody can swap the folder
for a link between the look and the mount.

See: open(2) (O_PATH), hosts(5), resolv.conf(5); Docker Engine API, "MountPoint".
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace

from labkit.engine.objects.copying import copy_tree
from labkit.engine.objects.launch import hostname_of
from labkit.engine.objects.record import Container
from labkit.engine.objects.rootview import RootViews
from labkit.engine.objects.volumes import Volumes
from labkit.engine.spec.mounts import MountPoint
from labkit.engine.wire.errors import BadParameter
from labkit.linux.fds import Fd
from labkit.linux.syscalls import open_in_root

__all__ = ["Storage"]

_HOSTS = (
    "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::0\tip6-localnet\n"
    "ff00::0\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n"
)


class Storage:
    """Prepares what is mounted into containers."""

    def __init__(self, volumes: Volumes, views: RootViews) -> None:
        self.volumes, self.views = volumes, views

    def make_volumes(self, points: Sequence[MountPoint], lowers: Sequence[str]) -> list[MountPoint]:
        """Return ``points`` with every volume made, named, and filled from the image. Raises: BadParameter, OSError."""
        return [self._make_volume(point, lowers) if point.kind == "volume" else point for point in points]

    def _make_volume(self, point: MountPoint, lowers: Sequence[str]) -> MountPoint:
        volume = self.volumes.create(point.name, labels=dict(point.driver_labels))
        name = volume["Name"]
        if not point.no_copy and self.volumes.is_empty(name) and _has(lowers, point.target):
            with self.views.of_layers(lowers, None) as root, suppress(OSError):
                source = open_in_root(root.number, point.target, os.O_RDONLY | os.O_DIRECTORY)
                with Fd(source), Fd(os.open(self.volumes.data_path(name), os.O_RDONLY | os.O_DIRECTORY)) as target:
                    copy_tree(source, target.number, owner=self.views.ids.inside)
        return replace(point, name=name)

    def open_sources(self, points: Sequence[MountPoint], held: ExitStack) -> dict[str, str]:
        """Return, by target, paths that the launcher can mount from; their descriptors live as long as ``held``.

        Raises: BadParameter for a bind source that is not there.
        """
        sources: dict[str, str] = {}
        for point in points:
            if point.kind == "tmpfs":
                continue
            path = self.volumes.data_path(point.name) if point.kind == "volume" else point.source
            if point.kind == "bind" and point.create_source:
                with suppress(FileExistsError, NotADirectoryError):
                    os.makedirs(path, 0o755, exist_ok=True)
            try:
                fd = held.enter_context(Fd(os.open(path, os.O_PATH | os.O_CLOEXEC)))
            except OSError as error:
                raise BadParameter(
                    f'invalid mount config for type "{point.kind}": bind source path does not exist: {path}'
                ) from error
            if point.subpath:
                fd = held.enter_context(Fd(open_in_root(fd.number, point.subpath, os.O_PATH)))
            kind = os.fstat(fd.number).st_mode
            if not (stat.S_ISDIR(kind) or stat.S_ISREG(kind) or stat.S_ISSOCK(kind)):
                raise BadParameter(f"{path} is neither a folder nor a file: it cannot be mounted")
            sources[point.target] = f"/proc/{os.getpid()}/fd/{fd.number}"
        return sources

    def write_files(
        self, container: Container, *, addresses: Mapping[str, Sequence[str]], dns: str, linked: Sequence[str] = ()
    ) -> dict[str, str]:
        """Write the container's own /etc/hosts, /etc/hostname and /etc/resolv.conf; return their places by target.

        ``addresses`` are its own, each with the names it has there; ``linked`` are lines about other containers; ``dns`` is the server of user-defined networks, if it is in one.
        """
        name, domain = hostname_of(container), container.config["Domainname"]
        full = f"{name}.{domain} {name}" if domain else name
        hosts = _HOSTS + "".join(f"{_host_entry(text)}\n" for text in container.host["ExtraHosts"] or [])
        hosts += "".join(f"{line}\n" for line in linked)
        hosts += "".join(f"{address}\t{' '.join([full, *names])}\n" for address, names in addresses.items())
        contents = {"hosts": hosts, "hostname": f"{name}\n", "resolv.conf": _resolv_conf(container, dns)}
        for file_name, text in contents.items():
            with open(f"{container.folder}/{file_name}", "w") as file:
                file.write(text)
        return {f"/etc/{file_name}": f"{container.folder}/{file_name}" for file_name in contents}


def _has(lowers: Sequence[str], target: str) -> bool:
    """Tell whether any layer may hold something at ``target``; a look that follows no link."""
    return any(os.path.lexists(lower + target) or os.path.islink(lower + os.path.dirname(target)) for lower in lowers)


def _host_entry(text: str) -> str:
    name, separator, address = text.partition(":")
    if not separator or not address:
        raise BadParameter(f'bad format for add-host: "{text}"')
    if address == "host-gateway":
        address = "172.17.0.1"
    return f"{address}\t{name}"


def _resolv_conf(container: Container, dns: str) -> str:
    host = container.host
    own = _machine_resolv() if not (host["Dns"] or dns) or host["NetworkMode"] == "host" else []
    lines = [f"nameserver {server}" for server in ([dns] if dns else host["Dns"])] or [
        line for line in own if line.startswith("nameserver") and not line.split()[-1].startswith("127.")
    ]
    if host["NetworkMode"] == "host" and not host["Dns"]:
        lines = own
    search = host["DnsSearch"] or [word for line in own if line.startswith("search") for word in line.split()[1:]]
    if search and search != ["."]:
        lines.insert(0, f"search {' '.join(search)}")
    options = [*host["DnsOptions"], *(["ndots:0"] if dns else [])]
    if options:
        lines.append(f"options {' '.join(options)}")
    return "".join(f"{line}\n" for line in lines)


def _machine_resolv() -> list[str]:
    try:
        with open("/etc/resolv.conf") as file:
            return [line.strip() for line in file if line.strip() and not line.startswith(("#", ";"))]
    except OSError:
        return []

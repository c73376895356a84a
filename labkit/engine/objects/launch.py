"""From a container's description to a `Spec`: what Docker's words mean in labkit's.

Where labkit is stricter than Docker on purpose, a program inside may notice:

* a container has a user namespace of its own: root inside is nobody outside; device nodes cannot be made;
* ``--privileged`` gives every capability over that user namespace, no filter and no masks, and nothing of the machine.
* ``no_new_privs`` is always set: set-uid programs gain nothing. The seccomp filter is loaded after the capabilities are gone, which
  the kernel allows only so.

See: OCI Runtime Specification; `labkit.container.spec`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from labkit.container.spec import ALL_NAMESPACES, MountSpec, Rootfs, Spec
from labkit.engine.objects.record import Container
from labkit.engine.spec.config import command_of
from labkit.engine.spec.mounts import MountPoint
from labkit.engine.wire.errors import BadParameter
from labkit.errors import FeatureMissing
from labkit.isolation.capabilities import DOCKER_DEFAULT, names_of, parse_capabilities
from labkit.isolation.mounts import MASKED_PATHS, READONLY_PATHS
from labkit.linux.constants import NS
from labkit.setup.parts import find_program, is_static

__all__ = ["capabilities_of", "hostname_of", "init_program", "make_spec", "seccomp_hex", "security_of"]

_FIRST = (MountSpec("proc", "/proc"), MountSpec("dev", "/dev"), MountSpec("mqueue", "/dev/mqueue"))
_DEFAULT_SHM = 64 << 20
#: Where Docker puts it, too.
_INIT_PATH = "/sbin/docker-init"
#: Words of fstab(5) that say the default and are no option of tmpfs.
_IDLE_WORDS = {"rw", "exec", "suid", "dev", "async", "private", "rprivate", "shared", "rshared", "slave", "rslave", ""}


def hostname_of(container: Container) -> str:
    """Return the container's host name; the machine's own with ``--network host``."""
    if container.host["NetworkMode"] == "host" and not container.config["Hostname"]:
        return os.uname().nodename
    return str(container.config["Hostname"] or container.short_id)


def make_spec(
    container: Container, *, lowers: Sequence[str], sources: Mapping[str, str], files: Mapping[str, str]
) -> Spec:  # fmt: skip
    """Return the spec. ``sources`` are host paths by target for binds and volumes, ``files`` those of /etc/hosts and so on."""
    config, host = container.config, container.host
    namespaces = ALL_NAMESPACES & ~NS.NET if host["NetworkMode"] == "host" else ALL_NAMESPACES
    capabilities = capabilities_of(host)
    security = security_of(host)
    size = host["ConsoleSize"]
    return Spec(
        command=(*_init_words(host), *command_of(config)), env=_environment(config["Env"]), cwd=config["WorkingDir"] or "/",
        user=config["User"] or "0:0", hostname=hostname_of(container), namespaces=int(namespaces),
        rootfs=Rootfs("overlay", tuple(lowers), writable=f"{container.folder}/rw", readonly=host["ReadonlyRootfs"], lowers_owned=True),
        mounts=_mounts(container, sources, files), capabilities=capabilities, no_new_privs=True,
        masked_paths=() if host["Privileged"] else _paths(host.get("MaskedPaths"), MASKED_PATHS), readonly_paths=() if host["Privileged"] else _paths(host.get("ReadonlyPaths"), READONLY_PATHS),
        seccomp_hex="" if host["Privileged"] or security.get("seccomp") == "unconfined" else seccomp_hex(capabilities),
        rlimits=_rlimits(host["Ulimits"] or []), terminal=config["Tty"],
        terminal_size=(size[0], size[1]) if any(size) else (24, 80),
        oom_score_adj=host["OomScoreAdj"] or None, groups=tuple(host["GroupAdd"] or ()),
    )  # fmt: skip


def _init_words(host: Mapping[str, Any]) -> tuple[str, ...]:
    return (_INIT_PATH, "--") if host.get("Init") else ()


def init_program() -> str:
    """Return the machine's program that is PID 1 with ``--init``: it passes signals on and collects orphans.

    Raises: FeatureMissing; it must be static, since the image has nobody's libraries.
    """
    for name in ("docker-init", "tini-static", "tini", "catatonit"):
        found = find_program(name)
        if found is not None and is_static(found):
            return str(found.resolve())
    raise FeatureMissing(
        "--init needs a static init program, and none is installed.",
        remedy="Install tini (Debian and Ubuntu: apt-get install tini).",
    )


def _environment(entries: Sequence[str]) -> tuple[tuple[str, str], ...]:
    # "NAME" without "=" takes a variable away that would be there by itself; the last of several wins.
    pairs = dict(entry.partition("=")[::2] for entry in entries if "=" in entry)
    return tuple(pairs.items())


def _paths(given: Sequence[str] | None, default: tuple[str, ...]) -> tuple[str, ...]:
    return default if given is None else tuple(given)


def _mounts(container: Container, sources: Mapping[str, str], files: Mapping[str, str]) -> tuple[MountSpec, ...]:
    host = container.host
    is_host_net = host["NetworkMode"] == "host"
    system = [*_FIRST, MountSpec("bind", "/sys", "/sys", ("ro",)) if is_host_net else MountSpec("sysfs", "/sys")]
    if not is_host_net:
        system.append(MountSpec("cgroup", "/sys/fs/cgroup"))
    taken = {point.target for point in container.mounts}
    if host["ShmSize"] != _DEFAULT_SHM and "/dev/shm" not in taken:
        system.append(MountSpec("tmpfs", "/dev/shm", options=(f"size={host['ShmSize']}", "mode=1777", "noexec")))
    own = [MountSpec("bind", target, source, ("idmap",)) for target, source in files.items() if target not in taken]
    if host.get("Init"):
        system.append(MountSpec("bind", _INIT_PATH, init_program(), ("ro", "idmap")))
    return (*system, *own, *(_mount(point, sources) for point in container.mounts))


def _mount(point: MountPoint, sources: Mapping[str, str]) -> MountSpec:
    if point.kind == "tmpfs":
        words = point.options.split(",")
        options = [word for word in words if word not in _IDLE_WORDS]
        if "exec" not in words and "noexec" not in options:
            options.append("noexec")
        return MountSpec("tmpfs", point.target, options=tuple(options))
    options = ["idmap", *(["ro"] if point.read_only else [])]
    return MountSpec("bind", point.target, sources[point.target], tuple(options))


def capabilities_of(host: Mapping[str, Any]) -> tuple[str, ...]:
    """Return what remains of the default capabilities after ``--cap-add`` and ``--cap-drop``. Raises: InvalidSpec."""
    add, drop = host["CapAdd"] or [], host["CapDrop"] or []
    if host["Privileged"]:
        return names_of(parse_capabilities(("ALL",)))
    held = parse_capabilities(DOCKER_DEFAULT)
    if any(name.upper() in ("ALL", "CAP_ALL") for name in drop):
        held = 0
    else:
        held &= ~parse_capabilities(drop)
    everything = any(name.upper() in ("ALL", "CAP_ALL") for name in add)
    held |= parse_capabilities(add)
    if everything and drop:
        held &= ~parse_capabilities([name for name in drop if name.upper() not in ("ALL", "CAP_ALL")])
    return names_of(held)


def security_of(host: Mapping[str, Any]) -> dict[str, str]:
    """Return ``--security-opt`` as names and values. Raises: BadParameter for one that cannot be honoured."""
    found: dict[str, str] = {}
    for option in host["SecurityOpt"] or []:
        name, separator, value = option.partition("=")
        if not separator:
            name, _, value = option.partition(":")
        if name == "no-new-privileges":
            continue  # always so
        if (name == "seccomp" and value in ("unconfined", "builtin", "default")) or (
            name in ("apparmor", "label", "systempaths") and value in ("unconfined", "disable")
        ):
            found[name] = value
        elif name == "seccomp":
            raise BadParameter("seccomp profiles of one's own are not offered: give seccomp=unconfined or none")
        else:
            raise BadParameter(f'invalid --security-opt 2: "{option}"')
    return found


@lru_cache(maxsize=32)
def seccomp_hex(capabilities: tuple[str, ...]) -> str:
    """Return the compiled default filter for a container with these capabilities."""
    from labkit.isolation.seccomp import compile_filter, default_profile

    return compile_filter(default_profile(capabilities)).hex()


def _rlimits(entries: Sequence[Mapping[str, Any]]) -> tuple[tuple[str, int, int], ...]:
    limits = []
    for entry in entries:
        name, soft, hard = entry.get("Name"), entry.get("Soft"), entry.get("Hard")
        if not isinstance(name, str) or not isinstance(soft, int) or not isinstance(hard, int):
            raise BadParameter("invalid ulimit: Name, Soft and Hard are needed")
        limits.append((f"RLIMIT_{name.upper()}", soft, hard))
    return tuple(limits)

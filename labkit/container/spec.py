"""What a container shall be: a small part of the OCI runtime specification, as plain data.

A `Spec` is made and checked in the student's process, travels to the launcher as it is, and is carried out between ``clone3`` and
``execve``. It holds no open file and no object, so it can be printed, compared and kept.

Leaves out: hooks, devices beyond the standard ones, AppArmor and SELinux labels, cgroup device rules, sharing of
another container's namespaces.
See: OCI Runtime Specification, config.md and config-linux.md.
"""

from __future__ import annotations

import os
import resource
from dataclasses import dataclass, field
from typing import Literal

from labkit.errors import InvalidSpec
from labkit.isolation.capabilities import DOCKER_DEFAULT, parse_capabilities
from labkit.isolation.mounts import MASKED_PATHS, READONLY_PATHS
from labkit.linux.constants import NS

__all__ = ["ALL_NAMESPACES", "DEFAULT_PATH", "Inner", "MountSpec", "Rootfs", "Security", "Spec", "check_spec"]

#: Every namespace of a full container; the time namespace joins only when offsets are asked for.
ALL_NAMESPACES = NS.USER | NS.MNT | NS.PID | NS.NET | NS.IPC | NS.UTS | NS.CGROUP
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

_MOST_CELLS = 0xFFFF  # struct winsize, asm-generic/termios.h

RootfsKind = Literal["overlay", "bind", "tmpfs", "host"]
MountKind = Literal["bind", "overlay", "tmpfs", "proc", "sysfs", "dev", "mqueue", "cgroup"]


class _Plain:
    """Pickles as a call with the fields in order: a tenth of what frozen dataclasses with slots cost by themselves."""

    __slots__ = ()
    __match_args__: tuple[str, ...] = ()

    def __reduce__(self) -> tuple[type, tuple[object, ...]]:
        return type(self), tuple(getattr(self, name) for name in self.__match_args__)


@dataclass(frozen=True, slots=True)
class Rootfs(_Plain):
    """Where ``/`` comes from.

    ``overlay``: ``lowers`` (topmost first) under a writable layer: ``upper`` and ``work`` inside the folder ``writable``, or, by
    default, memory that is gone at the end. ``bind``: the one folder itself, changes stay. ``tmpfs``: empty memory, filled
    by mounts and by ``links`` (link, target). ``host``: no change. With ``lowers_owned`` the files of ``lowers`` belong to the
    container's ids already (unpacked layers of images), so nothing has to be shifted. ``most_files`` limits, as ``size_bytes`` does,
    what is written to overlays that keep their changes in memory; 0 leaves it to the kernel.
    """

    kind: RootfsKind = "host"
    lowers: tuple[str, ...] = ()
    writable: str | None = None
    readonly: bool = False
    size_bytes: int = 256 * 1024 * 1024
    links: tuple[tuple[str, str], ...] = ()
    lowers_owned: bool = False
    most_files: int = 0


@dataclass(frozen=True, slots=True)
class MountSpec(_Plain):
    """One mount below the new root. ``source`` is a host path (bind, overlay); ``options`` as in fstab(5).

    Besides, ``idmap`` shows the files of the machine's root as root's, and ``kept=FOLDER`` keeps what an overlay's programs write.
    """

    kind: MountKind
    target: str
    source: str = ""
    options: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Inner(_Plain):
    """A second set of namespaces inside the first, for the program alone (`labkit.container.inner`).

    ``init`` runs as PID 1 in the first set and waits; the program is process 2 and root of the second set. ``settings`` are files
    to write (path, text) and ``rlimits`` limits to set before: who is inside may not lift either. ``shows_unified``: on a
    hybrid machine its tree of v2 is shown too.
    """

    init: tuple[str, ...]
    settings: tuple[tuple[str, str], ...] = ()
    rlimits: tuple[tuple[str, int, int], ...] = ()
    oom_score_adj: int = 0
    shows_unified: bool = False


@dataclass(frozen=True, slots=True)
class Spec(_Plain):
    """A whole container, or, with ``rootfs.kind == "host"`` and few namespaces, a lesson's single step."""

    command: tuple[str, ...]
    env: tuple[tuple[str, str], ...] = ()
    cwd: str = "/"
    user: str = "0:0"
    hostname: str = ""
    namespaces: int = int(ALL_NAMESPACES)
    rootfs: Rootfs = field(default_factory=Rootfs)
    mounts: tuple[MountSpec, ...] = ()
    masked_paths: tuple[str, ...] = MASKED_PATHS
    readonly_paths: tuple[str, ...] = READONLY_PATHS
    capabilities: tuple[str, ...] | None = DOCKER_DEFAULT
    no_new_privs: bool = True
    seccomp_hex: str = ""
    rlimits: tuple[tuple[str, int, int], ...] = ()
    terminal: bool = False
    terminal_size: tuple[int, int] = (24, 80)
    loopback_up: bool = True
    time_offset_s: int = 0
    oom_score_adj: int | None = None
    time_limit_s: float | None = None
    #: Small files to write into the finished tree: path, content.
    files: tuple[tuple[str, bytes], ...] = ()
    inner: Inner | None = None
    #: Further groups of the program, by number or name, besides those that the container's /etc/group gives its user.
    groups: tuple[str, ...] = ()

    def has(self, kind: NS) -> bool:
        """Tell whether ``kind`` is among the namespaces."""
        return self.namespaces & int(kind) != 0


@dataclass(frozen=True, slots=True)
class Security:
    """The defences of a container, each of which can be taken away to see what it was for.

    ``namespaces`` None means all (of a container); ``capabilities`` None keeps every one. The masked paths are Docker's.
    """

    namespaces: NS | None = None
    capabilities: tuple[str, ...] | None = DOCKER_DEFAULT
    no_new_privs: bool = True
    seccomp: bool = True
    mask_paths: bool = True
    rlimits: tuple[tuple[str, int, int], ...] = ()


def check_spec(spec: Spec) -> None:
    """Refuse what cannot work before anything is started.

    Raises: InvalidSpec, in one sentence with what to write instead.
    """
    if not spec.command or not all(isinstance(word, str) for word in spec.command) or not spec.command[0]:
        raise InvalidSpec("There is no command to run: give at least one word, as in ['/bin/true'].")
    _check_strings(spec)
    _check_rootfs(spec.rootfs)
    for mount in spec.mounts:
        if not mount.target.startswith("/") or ".." in mount.target.split("/"):
            raise InvalidSpec(f"A mount's target must be an absolute path without '..', not {mount.target!r}.")
    if spec.capabilities is not None:
        parse_capabilities(spec.capabilities)
    for name, soft, hard in spec.rlimits:
        _check_rlimit(name, soft, hard)
    if spec.time_limit_s is not None and spec.time_limit_s <= 0:
        raise InvalidSpec(f"A time limit of {spec.time_limit_s} s cannot be met: it must be above 0.")
    if not all(isinstance(cells, int) and 0 <= cells <= _MOST_CELLS for cells in spec.terminal_size):
        raise InvalidSpec(
            f"A terminal cannot have {spec.terminal_size} rows and columns: each is from 0 to {_MOST_CELLS}."
        )
    _check_namespaces(spec)


def _check_strings(spec: Spec) -> None:
    texts = [*spec.command, spec.cwd, spec.hostname, spec.user, *(text for pair in spec.env for text in pair)]
    if any("\0" in text for text in texts):
        raise InvalidSpec(
            "A command, an environment entry or a path holds a NUL character, which the kernel cannot pass on."
        )
    bad = [name for name, _ in spec.env if not name or "=" in name]
    if bad:
        raise InvalidSpec(f"{bad[0]!r} is no name of an environment variable: it must not be empty or hold '='.")
    if len(spec.hostname.encode()) > 64:
        raise InvalidSpec(f"The host name has {len(spec.hostname.encode())} bytes; Linux takes at most 64 (uname(2)).")
    if not spec.cwd.startswith("/"):
        raise InvalidSpec(f"The working directory {spec.cwd!r} must be an absolute path inside the container.")


def _check_rootfs(rootfs: Rootfs) -> None:
    for path in (*rootfs.lowers, *filter(None, (rootfs.writable,))):
        if not os.path.isdir(path):
            what = "does not exist" if not os.path.lexists(path) else "is no folder"
            raise InvalidSpec(f"The root filesystem {path!r} {what}: give the path of a folder with a file tree in it.")
    if rootfs.kind in ("overlay", "bind") and not rootfs.lowers:
        raise InvalidSpec(f"A root filesystem of kind {rootfs.kind!r} needs at least one folder.")
    if rootfs.size_bytes <= 0:
        raise InvalidSpec(f"A writable layer of {rootfs.size_bytes} bytes holds nothing: give a size above 0.")


def _check_rlimit(name: str, soft: int, hard: int) -> None:
    if not name.startswith("RLIMIT_") or not hasattr(resource, name):
        raise InvalidSpec(f"{name!r} is no resource limit: see getrlimit(2) for the names, as in RLIMIT_NOFILE.")
    if hard != -1 and (soft == -1 or soft > hard):
        raise InvalidSpec(f"{name}: the soft limit {soft} must not be above the hard limit {hard}.")


def _check_namespaces(spec: Spec) -> None:
    wanted = NS(spec.namespaces)
    if spec.rootfs.kind != "host" and NS.MNT not in wanted:
        raise InvalidSpec("A root filesystem of its own needs a mount namespace: add NS.MNT.")
    if spec.mounts and NS.MNT not in wanted:
        raise InvalidSpec("Mounts need a mount namespace, or they would land on the host: add NS.MNT.")
    if spec.hostname and NS.UTS not in wanted:
        raise InvalidSpec("A host name of its own needs a UTS namespace, or it would rename the host: add NS.UTS.")
    if spec.time_offset_s and NS.TIME not in wanted:
        raise InvalidSpec("A time offset needs a time namespace: add NS.TIME.")

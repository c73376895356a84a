"""The child's side of a container: every step between ``clone3`` and ``execve``.

The process begins as a copy of the launcher, already in its new namespaces. It waits until the launcher has written its
id maps, then builds its own cage and finally becomes the program::

    die with the launcher -> wait for "go" -> join v1 cgroups, cgroup namespace -> become uid 0 inside
    -> private mounts -> root filesystem -> /proc, /dev, ... -> hostname, loopback -> pivot_root -> mask paths
    -> terminal, standard streams -> limits -> capabilities, user -> no_new_privs -> seccomp -> execve

The order matters: each step needs a power that a later one gives away. A step that the kernel refuses is reported by name
and errno through the status socket, which execve closes: an end of file there means the program runs.

Leaves out: a reaping init (PID 1 is the program itself, as with ``docker run`` without ``--init``).
See: namespaces(7), capabilities(7), OCI Runtime Specification, runtime.md ("Lifecycle").
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import resource
import select
import signal
import socket
import termios
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import NoReturn

from labkit.container import filesystem
from labkit.container.spec import DEFAULT_PATH, Spec
from labkit.container.users import Identity, resolve_user
from labkit.isolation import mounts, network
from labkit.isolation.capabilities import drop_to, limit_bounding_set, parse_capabilities
from labkit.linux.constants import NS, CloneFlag, Prctl
from labkit.linux.syscalls import clone3, prctl, seccomp_set_filter, setns, unshare

__all__ = ["GO", "READY", "ChildFds", "enter_and_exec", "run_child"]

#: What the launcher says once the id maps are written.
GO = b"go"

#: What the child says just before execve, so that a death during set-up is told from a program that ended at once.
READY = b"exec"


@dataclass(frozen=True, slots=True)
class ChildFds:
    """Descriptors that the child inherits. Host paths are opened before the clone, with the launcher's rights.

    ``trees`` are detached mounts by name: ``lower:0`` ..., ``writable``, ``mount:0`` ...
    """

    status: socket.socket
    stdio: tuple[int, int, int]
    tasks: tuple[int, ...] = ()
    trees: Mapping[str, int] = field(default_factory=dict)


class _Step:
    """Name of the step under way, for the report of a failure."""

    name = "start"


def run_child(spec: Spec, fds: ChildFds, *, stage: str, last_capability: int) -> NoReturn:
    """Carry out ``spec`` in the calling (cloned) process: it becomes the program, or reports and exits.

    ``stage`` is an existing empty folder on which the child mounts its scratch space, seen by nobody else.
    """
    with _reporting(fds.status):
        _wait_for_go(fds)
        _enter_late_namespaces(spec)
        _build_filesystem(spec, fds.trees, stage)
        os.setsid()
        _become_program(spec, fds, last_capability)
    os._exit(127)


def enter_and_exec(spec: Spec, fds: ChildFds, *, pidfd: int, last_capability: int) -> NoReturn:
    """Join the namespaces of the running container ``pidfd`` and become ``spec.command`` there, as nsenter(1) does.

    Joining a PID namespace holds for children only, so a second child, adopted by the launcher
    (CLONE_PARENT), runs the command; its pid goes through the status socket.
    """
    with _reporting(fds.status):
        _Step.name = "join the container's cgroup and namespaces"
        for fd in fds.tasks:
            os.write(fd, b"0")
        setns(pidfd, NS(spec.namespaces))
        pid, _ = clone3(CloneFlag.PARENT, exit_signal=0)
        if pid:
            fds.status.send(b"pid %d" % pid)
            os._exit(0)
        _die_with_launcher(fds.status)
        if NS.USER in NS(spec.namespaces):
            _become_root()
        os.setsid()
        _become_program(spec, fds, last_capability)
    os._exit(127)


@contextmanager
def _reporting(status: socket.socket) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        report = {"step": _Step.name, "errno": error.errno or 0, "message": str(error.strerror or error)}
    except (LookupError, ValueError) as error:
        report = {"step": _Step.name, "errno": errno.EINVAL, "message": str(error.args[0])}
    except BaseException as error:
        # This process is a copy of the launcher: no error may travel up into the launcher's loop.
        report = {"step": _Step.name, "errno": 0, "message": repr(error)}
    status.send(json.dumps(report).encode())
    os._exit(127)


def _wait_for_go(fds: ChildFds) -> None:
    _Step.name = "join the cgroup"
    prctl(Prctl.SET_PDEATHSIG, signal.SIGKILL)
    # Python ignores these two, and execve would pass that on to a program that expects the default.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    for fd in fds.tasks:
        # "0" is the writer itself: the one form that cgroup v1 carries out without waiting for an RCU grace period.
        os.write(fd, b"0")
    _Step.name = "wait for the id maps"
    if fds.status.recv(16) != GO:
        os._exit(127)


def _enter_late_namespaces(spec: Spec) -> None:
    wanted = NS(spec.namespaces)
    if NS.CGROUP in wanted:
        # Not by clone3: the new namespace's root is the cgroup at that moment, and it must be the container's.
        _Step.name = "make a cgroup namespace"
        unshare(NS.CGROUP)
    if spec.time_offset_s:
        # Offsets can be written only before the first process enters; this one enters at execve (Linux 6.1).
        _Step.name = "set the time namespace's clock offsets"
        unshare(NS.TIME)
        with open("/proc/self/timens_offsets", "w") as file:
            file.write(f"monotonic {spec.time_offset_s} 0\nboottime {spec.time_offset_s} 0\n")
    if spec.oom_score_adj is not None:
        _Step.name = "set oom_score_adj"
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write(str(spec.oom_score_adj))
    if NS.USER in wanted:
        _become_root()
    if NS.UTS in wanted and spec.hostname:
        _Step.name = "set the host name"
        socket.sethostname(spec.hostname)
    if NS.NET in wanted and spec.loopback_up:
        _Step.name = "bring the loopback interface up"
        network.set_loopback_up()


def _become_root() -> None:
    _Step.name = "become root inside the user namespace"
    with suppress(PermissionError):
        # Refused where the namespace's maps are single ids (user_namespaces(7), "setgroups").
        os.setgroups([])
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)


def _build_filesystem(spec: Spec, trees: Mapping[str, int], stage: str) -> None:
    if NS.MNT not in NS(spec.namespaces):
        return
    _Step.name = "make the mounts private"
    mounts.make_private()
    for step in filesystem.build(spec, trees, stage):
        _Step.name = step


def _become_program(spec: Spec, fds: ChildFds, last_capability: int) -> NoReturn:
    _Step.name = "find the user"
    identity = resolve_user(spec.user) if NS.USER in NS(spec.namespaces) or spec.user != "0:0" else None
    environment = _environment(spec, identity)
    _Step.name = "connect the standard streams"
    _connect_streams(spec, fds)
    _Step.name = "set the resource limits"
    for name, soft, hard in spec.rlimits:
        resource.setrlimit(getattr(resource, name), (soft, hard))
    os.umask(0o022)
    _Step.name = f"change to the working directory {spec.cwd}"
    os.chdir(spec.cwd)
    _drop_privileges(spec, identity, last_capability)
    _die_with_launcher(fds.status)
    _Step.name = f"run {spec.command[0]}"
    fds.status.send(READY)
    os.execvpe(spec.command[0], spec.command, environment)


def _environment(spec: Spec, identity: Identity | None) -> dict[str, str]:
    environment = {"PATH": DEFAULT_PATH}
    if spec.hostname:
        environment["HOSTNAME"] = spec.hostname
    if spec.terminal:
        environment["TERM"] = "xterm"
    if identity is not None:
        environment["HOME"] = identity.home
    return environment | dict(spec.env)


def _connect_streams(spec: Spec, fds: ChildFds) -> None:
    stdio = fds.stdio
    if spec.terminal:
        master_fd, slave_fd = os.openpty()
        socket.send_fds(fds.status, [b"tty"], [master_fd])
        fcntl.ioctl(slave_fd, termios.TIOCSCTTY, 0)
        stdio = (slave_fd, slave_fd, slave_fd)
    # First out of the way of 0, 1 and 2, or the second dup2 could overwrite what the third one needs.
    high = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 10) for fd in stdio]
    for target, fd in enumerate(high):
        os.dup2(fd, target, inheritable=True)


def _drop_privileges(spec: Spec, identity: Identity | None, last_capability: int) -> None:
    _Step.name = "drop capabilities"
    mask = None if spec.capabilities is None else parse_capabilities(spec.capabilities)
    if mask is not None:
        limit_bounding_set(mask, last=last_capability)
    if identity is not None and (identity.uid, identity.gid, identity.groups) != (0, 0, ()):
        _Step.name = f"become user {spec.user}"
        if identity.groups:
            os.setgroups(identity.groups)
        os.setresgid(identity.gid, identity.gid, identity.gid)
        os.setresuid(identity.uid, identity.uid, identity.uid)
    if mask is not None:
        drop_to(mask, ambient=False)
    if spec.no_new_privs:
        prctl(Prctl.SET_NO_NEW_PRIVS, 1)
    if spec.seccomp_hex:
        _Step.name = "load the seccomp filter"
        seccomp_set_filter(bytes.fromhex(spec.seccomp_hex))


def _die_with_launcher(status: socket.socket) -> None:
    """Be killed when the launcher ends; a change of user has cleared the wish, so it is made again (prctl(2))."""
    prctl(Prctl.SET_PDEATHSIG, signal.SIGKILL)
    poll = select.poll()
    poll.register(status, 0)
    if any(event & (select.POLLHUP | select.POLLERR) for _, event in poll.poll(0)):
        os._exit(127)

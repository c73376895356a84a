"""The plan of a container: every system call between ``clone3`` and ``execve``, in order.

`container_steps` turns a `Spec` into a list of steps before anything is started. The child carries them out::

    die with the launcher -> wait for "go" (id maps, streams and cgroup are there) -> join v1 cgroups, standard streams
    -> cgroup namespace -> become uid 0 inside -> hostname, loopback -> private mounts -> root filesystem
    -> /proc, /dev, ... -> mask paths -> let go of the old root -> terminal -> limits -> capabilities, user
    -> no_new_privs -> seccomp -> execve

The order matters: each step needs a power that a later one gives away. The file tree is in `labkit.container.tree`.

Leaves out: a reaping init (PID 1 is the program itself, as with ``docker run`` without ``--init``).
See: namespaces(7), capabilities(7), OCI Runtime Specification, runtime.md ("Lifecycle").
"""

from __future__ import annotations

import errno
import os
import resource
import signal
import socket
import struct
import termios
from collections.abc import Mapping
from dataclasses import dataclass, field

from labkit.container import tree
from labkit.container.inner import inner_steps
from labkit.container.spec import DEFAULT_PATH, Spec
from labkit.container.users import Identity
from labkit.isolation import capabilities
from labkit.isolation.idmap import IdMaps
from labkit.isolation.loopback import loopback_up
from labkit.linux.constants import NS, CloneFlag, Prctl
from labkit.linux.fds import Place
from labkit.linux.steps import Step, Struct, kept
from labkit.linux.syscalls import AT_FDCWD

__all__ = [
    "GATE", "GO", "MOST_LATE_STEPS", "OWN", "SECOND_CHILD", "ChildFds", "Facts", "container_steps", "enter_steps",
    "environment_of", "first_steps", "late_steps", "run_steps",
]  # fmt: skip

#: What the launcher says once the id maps are written, and the streams and the cgroup are there.
GO = b"go"
#: The step of `container_steps` in which the child waits for that.
GATE = 1
#: The most `late_steps` there can be: three, six for the standard streams, one for each v1 hierarchy.
MOST_LATE_STEPS = 32
#: What the child says once its descriptors are its own.
OWN = b"own"
#: The step of `enter_steps` whose answer is the program's pid.
SECOND_CHILD = "start the second child"
_CLOSE_RANGE_CLOEXEC = 4  # linux/close_range.h
_TIOCSPTLCK, _TIOCGPTPEER = 0x4004_5431, 0x5441  # asm-generic/ioctls.h
_NOT_HERE = (errno.ENOENT, errno.ENOTDIR, errno.EACCES)


@dataclass(frozen=True, slots=True)
class ChildFds:
    """Descriptors that the child inherits. Host paths are opened before the clone, with the launcher's rights.

    ``status`` is the child's end of the socket pair, ``other_status`` the launcher's, which the child must not hold open.
    ``trees`` are detached mounts by name: ``lower:0`` ..., ``writable``, ``mount:0`` ...
    """

    status: int
    other_status: int
    trees: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Facts:
    """What the plan must know of the launcher and of the image: ids, capabilities, v1 hierarchies."""

    identity: Identity | None
    last_capability: int
    permitted: int
    v1_hierarchies: tuple[str, ...] = ()
    marks: Mapping[str, str] = field(default_factory=dict)
    maps: IdMaps | None = None
    share_memory: bool = True


def late_steps(fds: ChildFds, stdio: tuple[int, int, int], tasks: tuple[int, ...], *, hostname: str = "") -> list[Step]:
    """Return what the child of a new container does first once its streams and its cgroup are there: after `GATE`.

    Until then it shares the launcher's descriptors (CLONE_FILES), so what arrives there has the same number here. Now it
    takes a copy of the table, and says so: from here on each side may close what it likes.
    """
    return [
        *_own_descriptors(fds.status, fds.other_status),
        *first_steps(stdio, tasks),
        *([Step("sethostname", (name, len(name)), "set the host name")] if (name := os.fsencode(hostname)) else []),
    ]


@kept
def _own_descriptors(status_fd: int, other_status_fd: int) -> list[Step]:
    return [
        Step("unshare", (CloneFlag.FILES,), "take a copy of the descriptors"),
        Step("sendto", (status_fd, OWN, len(OWN), 0, None, 0), "say that the descriptors are its own"),
        Step("close", (other_status_fd,), "let go of the launcher's end"),
    ]


@kept
def first_steps(stdio: tuple[int, int, int], tasks: tuple[int, ...]) -> list[Step]:
    """Return the steps that come before all others: join the v1 cgroups, connect the standard streams."""
    # "0" is the writer itself: the one form that cgroup v1 carries out without waiting for an RCU grace period.
    joins = [Step("write", (fd, b"0", 1), "join the cgroup") for fd in tasks]
    why = "connect the standard streams"
    # First out of the way of 0, 1 and 2, or the second dup3 could overwrite what the third one needs.
    high = [Step("dup3", (fd, Place.STREAM_0 + n, os.O_CLOEXEC), why) for n, fd in enumerate(stdio)]
    return joins + high + [Step("dup3", (Place.STREAM_0 + n, n, 0), why) for n in range(3)]


def container_steps(spec: Spec, fds: ChildFds, facts: Facts, *, stage: str) -> list[Step]:
    """Return the steps that make a new container: those that do not name this very one, so that they can be kept.

    `late_steps` come in between, after `GATE`, and `run_steps` at the end. ``stage`` is an empty folder that the container's
    scratch tmpfs covers.
    """
    wanted = NS(spec.namespaces)
    wait = Step("recvfrom", (fds.status, bytes(16), 16, 0, None, None), "wait for the launcher", least=len(GO))
    steps = [*_pdeathsig(), wait, *_see_that_launcher_lives(fds)]
    if NS.CGROUP in wanted:
        # Not by clone3: the new namespace's root is the cgroup at that moment, and it must be the container's.
        steps.append(Step("unshare", (NS.CGROUP,), "make a cgroup namespace"))
    if NS.USER in wanted:
        steps += _become_root()
    if spec.loopback_up and NS.NET in wanted:
        steps += loopback_up()
    if NS.MNT in wanted:
        steps += tree.tree_steps(
            spec, fds.trees, stage=stage, v1_hierarchies=facts.v1_hierarchies, status_fd=fds.status
        )
    program = _program_steps(spec, fds, facts)
    if spec.inner is None or facts.maps is None:
        return steps + program
    return steps + inner_steps(
        spec.inner, _become_root(), _die_with_launcher(fds), program + _execute(spec, facts), maps=facts.maps,
        v1_hierarchies=facts.v1_hierarchies,
        share_memory=facts.share_memory, last_capability=facts.last_capability,
    )  # fmt: skip


def run_steps(spec: Spec, facts: Facts) -> list[Step]:
    """Return the last steps of `container_steps`: run the program. With an inner set of namespaces they are in between."""
    return _execute(spec, facts) if spec.inner is None else []


def enter_steps(spec: Spec, fds: ChildFds, facts: Facts, *, pidfd: int, share_memory: bool) -> list[Step]:
    """Return the steps that run ``spec.command`` inside a running container, as nsenter(1) does, after `first_steps`.

    Joining a PID namespace holds for children only, so the child that joins clones a second one, which is adopted by
    the launcher (CLONE_PARENT) and becomes the program. The first waits for that (CLONE_VFORK), then exits; the
    answer to its clone3 is the pid. See: setns(2).
    """
    wanted = NS(spec.namespaces)
    second = [*_die_with_launcher_from_the_start(fds)]
    if NS.USER in wanted:
        second += _become_root()
    second += _program_steps(spec, fds, facts) + _execute(spec, facts)
    flags = CloneFlag.PARENT | CloneFlag.VFORK | (CloneFlag.VM if share_memory else 0)
    # ABI: struct clone_args, linux/sched.h: flags first, then ten more words.
    args = struct.pack("<11Q", int(flags), *[0] * 10)
    # The second child gets the answer 0, which is below `least` and tolerated as errno 0: it takes the next step. The
    # first one gets a pid and skips to the end.
    clone = Step("clone3", (args, len(args)), SECOND_CHILD, tolerate=(0,), least=1, skip_on_success=len(second))
    joins = [Step("setns", (pidfd, wanted), "join the container's namespaces")] if wanted else []
    last = Step("exit_group", (0,), "end the first child")
    return [*joins, clone, *second, last]


def _program_steps(spec: Spec, fds: ChildFds, facts: Facts) -> list[Step]:
    steps = [Step("setsid", (), "start a session", tolerate=(errno.EPERM,))]
    if spec.terminal:
        steps += _terminal(fds, spec.terminal_size)
    for name, soft, hard in spec.rlimits:
        steps.append(_rlimit(name, soft, hard))
    steps += _no_other_descriptors()
    steps.append(Step("umask", (0o022,), "set the umask"))
    steps += _privileges(spec, facts)
    steps += _die_with_launcher(fds)
    steps.append(Step("chdir", (spec.cwd,), f"change to the working directory {spec.cwd}"))
    if spec.seccomp_hex:
        steps.append(_load_filter(bytes.fromhex(spec.seccomp_hex)))
    return steps


def _die_with_launcher_from_the_start(fds: ChildFds) -> list[Step]:
    return [Step("close", (fds.other_status,), "let go of the launcher's end"), *_die_with_launcher(fds)]


def _die_with_launcher(fds: ChildFds) -> list[Step]:
    """Be killed when the launcher ends; a change of user clears the wish (prctl(2)), so it is made again after one.

    The launcher may have died just before: then the socket answers with an end of file, otherwise with "nothing there yet".
    """
    return [*_pdeathsig(), *_see_that_launcher_lives(fds)]


@kept
def _pdeathsig() -> list[Step]:
    return [Step("prctl", (Prctl.SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "die with the launcher")]


def _see_that_launcher_lives(fds: ChildFds) -> list[Step]:
    look = (fds.status, bytes(8), 1, int(socket.MSG_PEEK | socket.MSG_DONTWAIT), None, None)
    return [Step("recvfrom", look, "see that the launcher lives", tolerate=(errno.EAGAIN,), least=1)]


@kept
def _become_root() -> list[Step]:
    why = "become root inside the user namespace"
    return [
        # Refused where the namespace's maps are single ids (user_namespaces(7), "setgroups").
        Step("setgroups", (0, None), why, tolerate=(errno.EPERM,)),
        Step("setresgid", (0, 0, 0), why),
        Step("setresuid", (0, 0, 0), why),
    ]


def _terminal(fds: ChildFds, size: tuple[int, int]) -> list[Step]:
    """Make a terminal in the container's own devpts, and send its master side to the launcher. See: pty(7)."""
    why = "make a terminal"
    flags = os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC
    return [
        Step("openat", (AT_FDCWD, "/dev/ptmx", flags, 0), why, result_to_next=True),
        Step("dup3", (0, Place.TERMINAL, os.O_CLOEXEC), why),
        Step("ioctl", (Place.TERMINAL, _TIOCSPTLCK, bytes(4)), "unlock the terminal"),
        # ABI: struct winsize, asm-generic/termios.h: rows, columns, and two that nobody uses.
        Step(
            "ioctl", (Place.TERMINAL, termios.TIOCSWINSZ, struct.pack("<4H", *size, 0, 0)), "give the terminal a size"
        ),
        Step("ioctl", (Place.TERMINAL, _TIOCGPTPEER, flags), why, result_to_next=True),
        Step("dup3", (0, Place.STREAM_0, os.O_CLOEXEC), why),
        *(Step("dup3", (Place.STREAM_0, n, 0), "connect the standard streams") for n in range(3)),
        Step("ioctl", (0, termios.TIOCSCTTY, 0), "take the terminal as the controlling one"),
        Step("sendmsg", (fds.status, _message_with_fd(Place.TERMINAL), 0), "send the terminal's master side"),
    ]


def _message_with_fd(fd: int) -> Struct:
    # ABI: struct msghdr and cmsghdr, sys/socket.h: one byte of data, one descriptor (SCM_RIGHTS).
    control = struct.pack("<QiiIxxxx", 20, socket.SOL_SOCKET, socket.SCM_RIGHTS, fd)
    vector = Struct(struct.pack("<QQ", 0, 3), ((0, b"tty"),))
    header = struct.pack("<QIxxxxQQQQIxxxx", 0, 0, 0, 1, 0, len(control), 0)
    return Struct(header, ((16, vector), (32, control)))


@kept
def _no_other_descriptors() -> list[Step]:
    # Each one is closed by execve by itself; this is for the one that somebody forgets to mark so. Before Linux 5.11 there is
    # no such flag (EINVAL), before 5.9 no such call.
    args = (3, 0xFFFF_FFFF, _CLOSE_RANGE_CLOEXEC)
    return [Step("close_range", args, "close all other descriptors", tolerate=(errno.ENOSYS, errno.EINVAL))]


def _rlimit(name: str, soft: int, hard: int) -> Step:
    # ABI: struct rlimit64, two unsigned words; -1 is RLIM_INFINITY.
    limit = struct.pack("<qq", soft, hard)
    return Step("prlimit64", (0, int(getattr(resource, name)), limit, None), f"set {name}")


def _privileges(spec: Spec, facts: Facts) -> list[Step]:
    steps: list[Step] = []
    mask = None if spec.capabilities is None else capabilities.parse_capabilities(spec.capabilities)
    if mask is not None:
        steps += capabilities.limit_bounding_set(mask, last=facts.last_capability)
    identity = facts.identity
    if identity is not None and (identity.uid, identity.gid, identity.groups) != (0, 0, ()):
        why = f"become user {spec.user}"
        if identity.groups:
            data = struct.pack(f"<{len(identity.groups)}I", *identity.groups)
            steps.append(Step("setgroups", (len(identity.groups), data), why))
        steps.append(Step("setresgid", (identity.gid,) * 3, why))
        steps.append(Step("setresuid", (identity.uid,) * 3, why))
    if mask is not None:
        # A user other than root has just lost every capability (capabilities(7)); none may come back.
        keep = mask & facts.permitted if identity is None or identity.uid == 0 else 0
        steps += capabilities.set_capabilities(keep)
    if spec.no_new_privs:
        steps.append(Step("prctl", (Prctl.SET_NO_NEW_PRIVS, 1, 0, 0, 0), "set no_new_privs"))
    return steps


def _load_filter(program: bytes) -> Step:
    # ABI: struct sock_fprog, linux/filter.h: a 16-bit length, padding, a pointer. SECCOMP_SET_MODE_FILTER is 1.
    fprog = Struct(struct.pack("<HxxxxxxQ", len(program) // 8, 0), ((8, program),))
    return Step("seccomp", (1, 0, fprog), "load the seccomp filter")


def environment_of(spec: Spec, identity: Identity | None) -> dict[str, str]:
    """Return the program's environment: the few variables that a container has by itself, then the spec's own."""
    environment = {"PATH": DEFAULT_PATH}
    if spec.hostname:
        environment["HOSTNAME"] = spec.hostname
    if spec.terminal:
        environment["TERM"] = "xterm"
    if identity is not None:
        environment["HOME"] = identity.home
    return environment | dict(spec.env)


def _execute(spec: Spec, facts: Facts) -> list[Step]:
    """Try the command in each folder of PATH, as execvp(3) does; a name with a slash is taken as it is."""
    environment = environment_of(spec, facts.identity) | dict(facts.marks)
    name = spec.command[0]
    folders = [""] if "/" in name else environment.get("PATH", DEFAULT_PATH).split(":")
    paths = [f"{folder}/{name}" if folder else name for folder in folders]
    variables = tuple(f"{key}={value}" for key, value in environment.items())
    tries = [Step("execve", (path, spec.command, variables), f"run {name}", tolerate=_NOT_HERE) for path in paths]
    return [*tries[:-1], Step("execve", (paths[-1], spec.command, variables), f"run {name}")]

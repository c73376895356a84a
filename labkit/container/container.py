"""Containers and namespaced processes: the life cycle that a lesson drives.

``created -> running -> ended -> deleted``, in the words of the OCI runtime specification. A `Container` has a root
filesystem, limits and all namespaces; a `Namespaced` process has just the namespaces that it asks for and keeps the host's
files. Both come from the same launcher, and both are context managers: leaving the block kills what still runs
and removes its cgroup.

Leaves out: restart, checkpoint, containers that outlive the program.
See: OCI Runtime Specification, runtime.md.
"""

from __future__ import annotations

import os
import secrets
import signal
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import IO, Literal, Self

from labkit.container import hostlike
from labkit.container.process import Completed, Exit, Process, Streams
from labkit.container.spec import ALL_NAMESPACES, MountSpec, Rootfs, Security, Spec, check_spec
from labkit.errors import InvalidSpec, InvalidState
from labkit.isolation.cgroups import Cgroup, JoinFds, Limits, LimitsMet, default_parent, limits_met
from labkit.linux.constants import NS

__all__ = ["Container", "Namespaced", "run"]

#: What every container with a root filesystem of its own finds mounted.
DEFAULT_MOUNTS = (MountSpec("proc", "/proc"), MountSpec("dev", "/dev"), MountSpec("mqueue", "/dev/mqueue"))


class _Life:
    """The life cycle that `Container` and `Namespaced` share."""

    def __init__(self, name: str | None, spec: Spec, *, limits: Limits | None, streams: Streams) -> None:
        check_spec(spec)
        self.name = name or f"labkit-{secrets.token_hex(6)}"
        self.spec = spec
        self.limits = limits
        self.cgroup: Cgroup | None = None
        self._execs: list[Process] = []
        self._exit: Exit | None = None
        self._process = Process("spawn", self.name, spec, streams=streams)

    def start(self) -> None:
        """Make the cgroup, then have the launcher make the rest; return when the program runs.

        Raises: SetupError naming the step that the kernel refused, FeatureMissing; nothing half-made is left.
        """
        if self._process.pid != -1:
            raise InvalidState(f"{self.name} was started before: make a new one for another run.")
        self._process.prepare()
        try:
            self._start_in_cgroup(self.limits)
        except BaseException:
            self._process.forget()
            raise

    def _start_in_cgroup(self, limits: Limits | None) -> None:
        cgroup = None if limits is None else self._make_cgroup(limits)
        try:
            with cgroup.join_fds() if cgroup else JoinFds() as join:
                self._process.start(join=join)
        except BaseException:
            if cgroup is not None:
                cgroup.delete()
            raise
        self.cgroup = cgroup

    def _make_cgroup(self, limits: Limits) -> Cgroup | None:
        # Without a limit to keep, the group would only count; a user may have no place for one.
        if limits == Limits() and not default_parent().places.bases:
            return None
        return Cgroup.create(None, limits, name=self.name, lean=True)

    @property
    def pid(self) -> int:
        """The program's pid as the host sees it; -1 before `start`. Inside a PID namespace it is 1."""
        return self._process.pid

    @property
    def pidfd(self) -> int:
        """A descriptor that refers to the program, whatever becomes of its pid. See: pidfd_open(2)."""
        return self._process.pidfd

    @property
    def stdin(self) -> IO[bytes] | None:
        """The program's standard input, if it is a pipe."""
        return self._process.stdin

    @property
    def stdout(self) -> IO[bytes] | None:
        """The program's standard output, if it is a pipe."""
        return self._process.stdout

    @property
    def stderr(self) -> IO[bytes] | None:
        """The program's standard error, if it is a pipe."""
        return self._process.stderr

    @property
    def terminal(self) -> IO[bytes] | None:
        """The master side of the program's terminal, if it has one. See: pty(7)."""
        return self._process.terminal

    @property
    def notes(self) -> tuple[str, ...]:
        """What this machine did not allow and what was done instead, one sentence each; empty before `start`."""
        return self._process.notes

    @property
    def status(self) -> Literal["created", "running", "ended"]:
        """Where in its life it is."""
        if self._process.pid == -1:
            return "created"
        return "running" if self._process.running else "ended"

    def wait(self, timeout_s: float | None = None) -> Exit:
        """Wait for the program's end and say what it was, limits included. Raises: DeadlineExceeded, InvalidState."""
        met = None
        # Read while the launcher collects the program. Without a PID namespace some of it may still run by then.
        if self._exit is None and self.spec.has(NS.PID) and self._process.has_ended(timeout_s):
            met = self._limits_met()
        return self._with_limits(self._process.wait(timeout_s), met)

    def communicate(self, data: bytes = b"", *, timeout_s: float | None = None) -> Completed:
        """Feed ``data`` to standard input, collect both outputs, and wait. Raises: DeadlineExceeded, InvalidState."""
        done = self._process.communicate(data, timeout_s=timeout_s)
        return replace(done, exit=self._with_limits(done.exit))

    def _limits_met(self) -> LimitsMet | None:
        return None if self.cgroup is None else limits_met(self.cgroup)

    def _with_limits(self, exit_: Exit, met: LimitsMet | None = None) -> Exit:
        """Add what the cgroup saw: which limits the program met."""
        met = met or (self._limits_met() if self._exit is None else None)
        if met is not None:
            exit_ = replace(
                exit_,
                oom_killed=met.oom_kills > 0,
                pids_limit_hits=met.pids_limit_hits,
                throttled_usec=met.throttled_usec,
            )
        self._exit = self._exit or exit_
        return self._exit

    def kill(self, signal_number: int = signal.SIGKILL) -> None:
        """Send a signal to the program. PID 1 of a PID namespace ignores what it has no handler for, SIGKILL excepted."""
        self._process.kill(signal_number)

    def exec(
        self, command: Sequence[str], *, user: str | None = None, cwd: str | None = None, terminal: bool = False,
        env: Mapping[str, str] | None = None, streams: Streams = ("null", "pipe", "pipe"), time_limit_s: float | None = None,
    ) -> Process:  # fmt: skip
        """Start a further program in the same namespaces, cgroup and rules, as nsenter(1) and ``docker exec`` do.

        Raises: InvalidState unless the container runs, SetupError.
        """
        if self.status != "running":
            raise InvalidState(f"{self.name} is {self.status}: only a running container can be entered.")
        spec = replace(
            self.spec, command=_words(command), user=user or self.spec.user, cwd=cwd or self.spec.cwd, terminal=terminal,
            env=tuple((dict(self.spec.env) | dict(env or {})).items()), time_limit_s=time_limit_s,
        )  # fmt: skip
        check_spec(spec)
        process = Process("exec", f"{self.name}-{len(self._execs)}", spec, streams=streams)
        join = self.cgroup.join_fds() if self.cgroup is not None else JoinFds(-1, ())
        with join:
            process.start(join=join, target=(self.pid, self.pidfd))
        self._execs.append(process)
        return process

    def close(self) -> None:
        """Kill what still runs, collect it, remove the cgroup; safe to call twice."""
        if self.cgroup is not None and self._process.running and self.cgroup.is_frozen:
            self._process.kill()  # on v1 a frozen process dies only when it thaws; killed first, it does nothing more
            self.cgroup.thaw()
        self._process.close()
        for process in self._execs:
            process.close()
        if self.cgroup is not None:
            self.cgroup.delete()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name} {self.status}>"


class Namespaced(_Life):
    """A program in the namespaces that it asks for, with the host's files, no limits and no defences.

    ``Namespaced(["hostname"], namespaces=NS.UTS | NS.USER, hostname="moon")``. The new namespaces belong to the launcher's user
    namespace unless NS.USER is among them. Without NS.PID, what the program leaves behind is ended with it.
    """

    def __init__(
        self, command: Sequence[str], *, namespaces: NS, hostname: str = "", cwd: str | None = None,
        env: Mapping[str, str] | None = None, mounts: Iterable[MountSpec] = (), time_offset_s: int = 0,
        time_limit_s: float | None = None, streams: Streams = ("null", "pipe", "pipe"), name: str | None = None,
    ) -> None:  # fmt: skip
        spec = Spec(
            command=_words(command), env=tuple((os.environ if env is None else env).items()), cwd=cwd or os.getcwd(),
            hostname=hostname, namespaces=int(namespaces), mounts=tuple(mounts), capabilities=None, no_new_privs=False,
            time_offset_s=time_offset_s, time_limit_s=time_limit_s,
        )  # fmt: skip
        super().__init__(name, spec, limits=None, streams=streams)


class Container(_Life):
    """A program with namespaces, limits and a root filesystem of its own.

    ``rootfs`` is a folder with a file tree (or several, topmost first), used read-only below a writable layer: memory of
    ``writable_bytes``, or the folder ``writable``; or it is a whole `Rootfs`. ``image_like_host`` needs no folder: the machine's own programs, copy on
    write. ``net`` is "none" (loopback only) or "host". ``security`` holds the defences.

    Raises: InvalidSpec for a request that cannot work, before anything is started.
    """

    def __init__(
        self, command: Sequence[str], *, rootfs: Rootfs | Path | str | Sequence[Path | str] | None = None,
        image_like_host: bool = False, writable: Path | str | None = None, writable_bytes: int = 256 << 20,
        readonly: bool = False, limits: Limits | None = None, security: Security | None = None, hostname: str | None = None,
        net: Literal["none", "host"] = "none", user: str = "0:0", cwd: str = "/", env: Mapping[str, str] | None = None,
        mounts: Iterable[MountSpec] = (), terminal: bool = False, terminal_size: tuple[int, int] = (24, 80),
        time_offset_s: int = 0, time_limit_s: float | None = None, streams: Streams = ("null", "pipe", "pipe"),
        name: str | None = None,
    ) -> None:  # fmt: skip
        name = name or f"labkit-{secrets.token_hex(6)}"
        security = security or Security()
        wanted = _namespaces(security, net=net, time_offset_s=time_offset_s)
        root = _root(rootfs, image_like_host=image_like_host, writable=writable)
        spec = Spec(
            command=_words(command), env=tuple((env or {}).items()), cwd=cwd, user=user, terminal=terminal,
            hostname=hostname if hostname is not None else name[-12:] if NS.UTS in wanted else "",
            terminal_size=terminal_size, namespaces=int(wanted),
            rootfs=replace(root, readonly=readonly, size_bytes=writable_bytes),
            mounts=(*(hostlike.mounts() if image_like_host else ()), *_default_mounts(net), *mounts),
            capabilities=security.capabilities, no_new_privs=security.no_new_privs, rlimits=security.rlimits,
            seccomp_hex=_default_filter_hex() if security.seccomp else "", time_offset_s=time_offset_s, time_limit_s=time_limit_s,
        )  # fmt: skip
        if not security.mask_paths:
            spec = replace(spec, masked_paths=(), readonly_paths=())
        super().__init__(name, spec, limits=limits or Limits(), streams=streams)


def run(container: _Life, data: bytes = b"", *, timeout_s: float | None = None) -> Completed:
    """Start ``container``, collect its outputs, wait, and delete it. Raises: SetupError, DeadlineExceeded."""
    with container:
        container.start()
        return container.communicate(data, timeout_s=timeout_s)


def _words(command: Sequence[str]) -> tuple[str, ...]:
    if isinstance(command, str):
        raise InvalidSpec(f"The command must be a list of words: write {command.split()!r} instead of {command!r}.")
    return tuple(command)


def _root(
    rootfs: Rootfs | Path | str | Sequence[Path | str] | None, *, image_like_host: bool, writable: Path | str | None
) -> Rootfs:
    if image_like_host == (rootfs is not None):
        raise InvalidSpec("A container needs one root filesystem: give either rootfs=FOLDER or image_like_host=True.")
    if image_like_host:
        return Rootfs("tmpfs", links=hostlike.links())
    writable = None if writable is None else os.path.abspath(writable)
    if isinstance(rootfs, Rootfs):
        return replace(rootfs, writable=writable or rootfs.writable)
    folders = [rootfs] if isinstance(rootfs, (str, Path)) else list(rootfs or ())
    return Rootfs("overlay", tuple(os.path.abspath(folder) for folder in folders), writable=writable)


def _default_mounts(net: str) -> tuple[MountSpec, ...]:
    # A new /sys shows the network namespace; the kernel refuses it to whoever does not own one.
    sys_mount = MountSpec("bind", "/sys", "/sys", ("ro",)) if net == "host" else MountSpec("sysfs", "/sys")
    return (*DEFAULT_MOUNTS, sys_mount)


def _namespaces(security: Security, *, net: str, time_offset_s: int) -> NS:
    wanted = ALL_NAMESPACES if security.namespaces is None else security.namespaces
    if net == "host":
        wanted &= ~NS.NET
    return wanted | NS.TIME if time_offset_s else wanted


@lru_cache(maxsize=1)
def _default_filter_hex() -> str:
    from labkit.isolation.seccomp import compile_filter, default_profile

    return compile_filter(default_profile()).hex()

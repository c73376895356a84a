"""A sandbox: a container with a second one in it, in which one program runs for a student.

It is what lesson 06 builds by hand: namespaces, a file tree, cgroups, a seccomp filter, put together by the same launcher. What is
special is in `labkit.container.inner` (the student is root of a second user namespace and cannot undo the first),
`view` (the tree), `subtree` (the cgroups), `filter` and `policy`.

Leaves out: the Jupyter side, which is `provisioner`.
See: user_namespaces(7), cgroups(7).
"""

from __future__ import annotations

import fcntl
import os
import resource
import select
import signal
import stat
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from labkit.container.inner import INNER_PID
from labkit.container.process import Exit, Process, Streams
from labkit.container.spec import ALL_NAMESPACES, Inner, MountSpec, Rootfs, Spec, check_spec
from labkit.errors import DeadlineExceeded, InvalidState
from labkit.isolation import idmap
from labkit.isolation.cgroups import JoinFds, Limits, default_parent
from labkit.linux.fds import Fd
from labkit.sandbox import init, view
from labkit.sandbox.filter import sandbox_filter
from labkit.sandbox.inside import BUSY_FILE
from labkit.sandbox.level import Level
from labkit.sandbox.outgoing import NAME_SERVER, Outgoing
from labkit.sandbox.policy import Policy
from labkit.sandbox.subtree import Subtree
from labkit.sandbox.usage import DiskWatch

__all__ = ["Sandbox", "SandboxEnd", "make_work", "owner"]

#: With memory short, a student's programs go first and PID 1 last.
_OOM_SCORE = 500
_MOST_REQUEST_BYTES = 4096
#: How often, and for how long each, the end of a killed sandbox is waited for: nearly always it comes with the first.
_THAWS, _THAW_PAUSE_MS = 50, 40
#: Files and folders that the sandbox's own making takes on the file system of the changes.
_STAGE_FILES = 500
#: Limits of each user in a user namespace; the file belongs to the first one, so root of the second cannot lift them.
_USER_LIMITS = {
    "max_inotify_instances": 64,
    "max_inotify_watches": 8192,
    "max_fanotify_groups": 8,
    "max_fanotify_marks": 1024,
}
_NAMESPACE_KINDS = ("cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts")


@dataclass(frozen=True, slots=True)
class SandboxEnd:
    """How a sandbox ended: the kernel's exit code as a shell shows it, and the limit that was the cause, if one was."""

    code: int
    limit: Literal["", "memory", "disk"] = ""


class Sandbox:
    """One sandbox: made by `start`, ended by `kill`, released by `close`; safe to close twice."""

    def __init__(self, name: str, policy: Policy, level: Level) -> None:
        self.name = name
        self.policy = policy
        self.level = level
        self.pid = self.kernel_pid = -1
        self._process: Process | None = None
        self._subtree: Subtree | None = None
        self._kernel_pidfd = Fd(-1)
        self._busy = Fd(-1)
        self._exit: Exit | None = None
        self._end: SandboxEnd | None = None
        self._changes: Fd | None = None
        self._disk: DiskWatch | None = None
        self._is_too_full = False
        self._outgoing = Outgoing()

    def start(
        self, command: Sequence[str], *, env: Mapping[str, str], cwd: str, files: Mapping[str, str], streams: Streams
    ) -> None:
        """Start ``command`` inside; return when it runs. ``files`` are written into the sandbox's own folders.

        Raises: SetupError naming the step that the kernel refused, FeatureMissing; nothing is left of it then.
        """
        work = make_work(view.work_folder(self.policy))
        self._changes = hold_changes() if self.policy.notebooks == "keep" else None
        changes = str(view.changes_folder()) if self._changes is not None else ""
        most = {"most_bytes": self.policy.work_bytes, "most_files": self.policy.work_files}
        self._disk = DiskWatch([folder for folder in (work, changes) if folder], **most)
        changes = "" if changes in self._disk.full else changes
        tree = view.mounts(self.policy, cwd=cwd, work=work, changes=changes, work_readonly=work in self._disk.full)
        spec = self._spec(tuple(command), env=env, cwd=view.inner_cwd(cwd, tree), files=files, tree=tree)
        check_spec(spec)
        process = Process("spawn", self.name, spec, streams=streams)
        process.prepare()  # the launcher opens mounts and plans while the cgroups are made here
        with ExitStack() as on_failure:
            join = JoinFds()
            # Also without the controllers that limit: the sandbox must not see, nor own, the group that the server is in.
            if default_parent().places.bases:
                self._subtree = Subtree.create(self.name, self._limits(), owner=owner())
                on_failure.callback(self._subtree.delete)
                join = self._subtree.join_fds()
            with join:
                process.start(join=join)
            self._process, self.pid = process, process.pid
            on_failure.callback(process.close)
            self._find_kernel()
            self._open_busy_file()
            on_failure.pop_all()

    def connect(self) -> None:
        """Give the sandbox the network that the policy says. Raises: FeatureMissing, SetupError; it has ended then."""
        if self.policy.network == "outgoing":
            try:
                self._outgoing.start(self.pid, self.kernel_pid)
            except BaseException:
                self.close()
                raise

    def _limits(self) -> Limits:
        most = os.cpu_count() or 1
        cpus = self.policy.cpus if self.policy.cpus < most else None
        has = self.level.controllers
        return Limits(
            memory_bytes=self.policy.memory_bytes if "memory" in has else None,
            pids=self.policy.pids if "pids" in has else None,
            cpus=cpus if "cpu" in has else None,
        )

    def _spec(
        self,
        command: tuple[str, ...],
        *,
        env: Mapping[str, str],
        cwd: str,
        files: Mapping[str, str],
        tree: tuple[MountSpec, ...],
    ) -> Spec:
        hostname = self.name[-16:]
        return Spec(
            command=command, env=tuple(env.items()), cwd=cwd, hostname=hostname,
            namespaces=int(ALL_NAMESPACES),
            rootfs=Rootfs(
                "tmpfs", readonly=True, size_bytes=self.policy.temporary_bytes, links=view.links(),
                most_files=self.policy.temporary_files + _STAGE_FILES,
            ),
            mounts=tree, masked_paths=(), readonly_paths=(), capabilities=None, no_new_privs=self.policy.no_new_privs,
            seccomp_hex=sandbox_filter().hex(), rlimits=self._rlimits(), files=(*view.files(hostname=hostname, name_server=NAME_SERVER if self.policy.network == "outgoing" else ""), *((path, text.encode()) for path, text in files.items())),
            inner=self._inner(),
        )  # fmt: skip

    def _rlimits(self) -> tuple[tuple[str, int, int], ...]:
        policy = self.policy
        wanted = {"RLIMIT_NOFILE": policy.open_files, "RLIMIT_FSIZE": policy.file_size_bytes, "RLIMIT_CORE": 0}
        if "memory" not in self.level.controllers:
            wanted["RLIMIT_DATA"] = policy.memory_bytes
        # Nobody may ask for more than the server has itself.
        most = {name: resource.getrlimit(getattr(resource, name))[1] for name in wanted}
        fitting = {name: min(value, most[name]) if most[name] != -1 else value for name, value in wanted.items()}
        return tuple((name, value, value) for name, value in fitting.items())

    def _inner(self) -> Inner:
        limits = {f"max_{kind}_namespaces": self.policy.namespaces for kind in _NAMESPACE_KINDS} | _USER_LIMITS
        base = "/proc/sys/user"
        settings = tuple(
            (f"{base}/{name}", str(value)) for name, value in limits.items() if os.path.exists(f"{base}/{name}")
        )
        pids = min(self.policy.pids, resource.getrlimit(resource.RLIMIT_NPROC)[1] & (1 << 62) - 1)
        layout = default_parent().layout
        return Inner(
            (os.path.realpath(sys.executable), "-I", "-S", str(Path(init.__file__).resolve())),
            settings=settings,
            rlimits=() if "pids" in self.level.controllers else (("RLIMIT_NPROC", pids, pids),),
            oom_score_adj=_OOM_SCORE,
            shows_unified=layout.version == "hybrid",
        )

    def _find_kernel(self) -> None:
        """Hold the kernel's process by a descriptor; it is the first child of PID 1."""
        with open(f"/proc/{self.pid}/task/{self.pid}/children") as file:
            children = [int(word) for word in file.read().split()]
        for pid in children:
            try:
                pidfd = Fd(os.pidfd_open(pid))
                with open(f"/proc/{pid}/status") as file:
                    inner = next(line for line in file if line.startswith("NSpid:")).split()[-1]
            except (ProcessLookupError, FileNotFoundError):
                continue
            if int(inner) == INNER_PID:
                self._kernel_pidfd, self.kernel_pid = pidfd, pid
                return
            pidfd.close()

    def _open_busy_file(self) -> None:
        """Hold the file in which the kernel notes what it works on, to read it when nothing else of the sandbox is left."""
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        with suppress(FileNotFoundError):
            self._busy = Fd(os.open(f"/proc/{self.pid}/root{BUSY_FILE}", flags))

    def last_request(self) -> bytes:
        """Return what the kernel noted of the request that it was working on; whoever is inside can write it."""
        if self._busy.number < 0 or not stat.S_ISREG(os.fstat(self._busy.number).st_mode):
            return b""
        return os.pread(self._busy.number, _MOST_REQUEST_BYTES, 0)

    @property
    def pidfd(self) -> int:
        """A descriptor that becomes readable when the sandbox has ended; -1 when there is none."""
        return -1 if self._process is None else self._process.pidfd

    @property
    def running(self) -> bool:
        """True from `start` until the sandbox has ended."""
        return self._process is not None and self._process.running

    def signal(self, number: int) -> None:
        """Send a signal to the kernel and the programs in its process group, as Ctrl-C in a terminal does."""
        if not self.running or self._kernel_pidfd.number < 0:
            return
        try:
            # Looked at through the pidfd first: the number could be somebody else's by now.
            signal.pidfd_send_signal(self._kernel_pidfd.number, 0)
            os.killpg(self.kernel_pid, number)
        except ProcessLookupError:
            pass

    def watch_disk(self) -> float | None:
        """End the sandbox if it has filled its folders on the machine's disk; return when to look again, in seconds."""
        if self._disk is None:
            return None
        if self._disk.passed():
            self._is_too_full = True
            self.kill()
        return self._disk.wait_s

    def kill(self) -> None:
        """End the sandbox at once: without its PID 1, Linux kills every process in it."""
        if self._process is None or not self.running:
            return
        self._process.kill()
        poll = select.poll()
        poll.register(self.pidfd, select.POLLIN)
        for _ in range(_THAWS):
            # A program may freeze others, itself or PID 1, and again until its own end comes.
            if self._subtree is not None:
                self._subtree.thaw()
            if poll.poll(_THAW_PAUSE_MS):
                return

    def wait(self, timeout_s: float | None = None) -> SandboxEnd:
        """Return how it ended. Raises: DeadlineExceeded if it still runs after ``timeout_s``, InvalidState before `start`."""
        if self._end is None:
            if self._process is None:
                raise InvalidState(f"{self.name} has not been started.")
            try:
                code = self._process.wait(timeout_s).code
            except DeadlineExceeded:
                raise
            except InvalidState:
                code = 128 + signal.SIGKILL  # the launcher was killed, and everything with it
            kills = self._subtree.memory_kills() if self._subtree is not None else 0
            limit: Literal["", "memory", "disk"] = "disk" if self._is_too_full else ""
            if code == 128 + signal.SIGKILL and kills > 0:
                limit = "memory"
            self._end = SandboxEnd(code, limit)
        return self._end

    def close(self) -> None:
        """End it, collect it, and remove its cgroups; safe to call twice."""
        if self._process is not None:
            self._process.close()
        self._kernel_pidfd.close()
        self._busy.close()
        self._outgoing.close()
        if self._changes is not None:
            self._changes.close()
        subtree, self._subtree = self._subtree, None
        if subtree is not None:
            subtree.delete()


def owner() -> tuple[int, int]:
    """Return uid and gid, outside, of the student's root. See: `labkit.isolation.idmap.container_maps`."""
    if os.geteuid() != 0:
        return os.geteuid(), os.getegid()
    maps = idmap.container_maps(idmap.own_maps())
    return maps.uids[0].outside, maps.gids[0].outside


def make_work(folder: Path) -> str:
    """Make the folder that persists and give it to the student's root; "" where this user cannot."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if os.geteuid() == 0:
            os.chown(folder, *owner())
    except OSError:
        return ""
    return str(folder)


def hold_changes() -> Fd | None:
    """Take the lock on the kept changes; None if another sandbox has them, as two overlays must not write to one folder."""
    folder = view.changes_folder()
    folder.mkdir(parents=True, exist_ok=True)
    lock = Fd(os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        return None
    return lock

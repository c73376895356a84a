"""The resident launcher: one small process that makes every container of one Python program.

A Jupyter process has a dozen threads. It cannot unshare a user namespace (EINVAL), and a fork of it copies locks whose
holders do not exist in the child. So labkit starts this helper once (``python -I -S``, standard library only, one thread) and asks
it, over a socket pair that keeps message boundaries, for one container a message::

    program                          launcher                               child
      |-- spawn: spec + descriptors --->|                                      |
      |                                 |-- clone3 (all namespaces, pidfd) --->|
      |                                 |                                      | joins its v1 cgroups
      |                                 |-- writes uid_map, gid_map; "go" ---->|
      |                                 |                                      | mounts, pivots, drops, filters
      |                                 |<---------- "exec" (or a step, errno) |
      |                                 |<---- end of file: execve closed it --| now the program
      |<--- pid, pidfd (or the error) --|                                      |
      |                                 |   ... pidfd becomes readable ...     v
      |<= exit pipe: status, times =====|   wait4

The program's end is an end of file here: every container is killed, its cgroups are removed, and the launcher ends. The
launcher's own end kills its children too (PR_SET_PDEATHSIG). So ``kill -9`` of either leaves nothing running.

Leaves out: a supervisor a container (as conmon or containerd-shim), which would outlive the program.
See: clone(2), unix(7), prctl(2), user_namespaces(7).
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import time
from dataclasses import dataclass
from typing import Any

from labkit.container import runfolder
from labkit.container.init import GO, READY, ChildFds, enter_and_exec, run_child
from labkit.container.spec import Spec, from_wire
from labkit.isolation import idmap, mounts
from labkit.isolation.capabilities import last_capability
from labkit.linux.constants import NS, CloneFlag, MountAttr
from labkit.linux.syscalls import clone3, mount_setattr

__all__ = ["MESSAGE_BYTES", "Launcher"]

#: The longest message that the program may send: a spec with its environment, its seccomp filter in hexadecimal.
MESSAGE_BYTES = 128 * 1024
SETUP_TIMEOUT_S = 10.0
_MOST_FDS = 64


@dataclass(slots=True)
class Job:
    """A child that runs: where its end is reported and when it must be over."""

    pid: int
    pidfd: int
    exit_fd: int
    deadline_s: float | None
    has_pid_namespace: bool
    name: str
    timed_out: bool = False


class SetupFailed(Exception):
    """A step of the child was refused; carries what the program is told."""

    def __init__(self, report: dict[str, Any]) -> None:
        super().__init__(report["message"])
        self.report = report


class Launcher:
    """Serves one program over ``control``; made and run by `labkit.container.resident`."""

    def __init__(self, control: socket.socket, folder: runfolder.RunFolder) -> None:
        self.control = control
        self.folder = folder
        self.jobs: dict[int, Job] = {}
        self.unwritten: list[tuple[str, dict[str, Any]]] = []
        self.poll = select.epoll()
        self.poll.register(control, select.EPOLLIN)
        self.last_capability = last_capability()
        self.own_maps = idmap.own_maps()
        self.maps = idmap.container_maps(self.own_maps)
        # A user namespace that no process lives in, kept by its descriptor: ID-mapped mounts are made through it.
        self.userns_fd = self._make_userns() if self.maps.shifted else -1

    def _make_userns(self) -> int:
        pid, pidfd = clone3(NS.USER, exit_signal=signal.SIGCHLD)
        if pid == 0:
            signal.pause()
            os._exit(0)
        try:
            idmap.write_maps(pid, self.maps)
            return os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
        finally:
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            os.waitpid(pid, 0)
            os.close(pidfd)

    def serve(self) -> None:
        """Answer requests and report ends until the program closes its side."""
        while True:
            for fd, _ in self.poll.poll(self._timeout_s()):
                if fd != self.control.fileno():
                    self._reap(self.jobs[fd])
                elif not self._answer():
                    return
            self._enforce_deadlines()

    def _timeout_s(self) -> float | None:
        deadlines = [job.deadline_s for job in self.jobs.values() if job.deadline_s is not None and not job.timed_out]
        return max(0.0, min(deadlines) - time.monotonic()) if deadlines else None

    def _enforce_deadlines(self) -> None:
        now = time.monotonic()
        for job in self.jobs.values():
            if job.deadline_s is not None and now >= job.deadline_s and not job.timed_out:
                job.timed_out = True
                signal.pidfd_send_signal(job.pidfd, signal.SIGKILL)

    def _answer(self) -> bool:
        """Carry out one request; return False when the program is gone."""
        message, fds, _, _ = socket.recv_fds(self.control, MESSAGE_BYTES, _MOST_FDS)
        if not message:
            return False
        request = json.loads(message)
        send_back: list[int] = []
        try:
            answer, send_back = getattr(self, f"_op_{request['op']}")(request, fds)
        except SetupFailed as failure:
            answer = {"error": failure.report}
        except OSError as error:
            text = str(error.strerror or error)
            answer = {"error": {"step": request["op"], "errno": error.errno or 0, "message": text}}
        finally:
            for fd in fds:
                os.close(fd)
        socket.send_fds(self.control, [json.dumps(answer).encode()], send_back)
        for fd in send_back[1:]:
            os.close(fd)
        # After the answer, because the program waits for that and not for this.
        while self.unwritten:
            self.folder.write_entry(*self.unwritten.pop())
        return True

    def _op_spawn(self, request: dict[str, Any], fds: list[int]) -> tuple[dict[str, Any], list[int]]:
        spec = from_wire(request["spec"])
        stdio, exit_fd, cgroup_fd, tasks = _split_fds(request, fds)
        trees = self._open_trees(spec)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            # The cgroup namespace comes later, in the child; a time namespace with offsets too.
            late = NS.CGROUP | (NS.TIME if spec.time_offset_s else NS(0))
            flags = (NS(spec.namespaces) & ~late) | CloneFlag.CLEAR_SIGHAND
            pid, pidfd = clone3(flags, exit_signal=signal.SIGCHLD, cgroup_fd=cgroup_fd)
            if pid == 0:
                ours.close()
                child_fds = ChildFds(theirs, stdio, tasks, trees)
                run_child(spec, child_fds, stage=self.folder.stage, last_capability=self.last_capability)
            theirs.close()
            tty_fd = self._finish_spawn(spec, ours, pid, pidfd)
        finally:
            ours.close()
            theirs.close()
            for fd in trees.values():
                os.close(fd)
        self._register(request["name"], spec, pid, pidfd, exit_fd)
        return {"pid": pid}, [pidfd] + ([tty_fd] if tty_fd is not None else [])

    def _finish_spawn(self, spec: Spec, ours: socket.socket, pid: int, pidfd: int) -> int | None:
        try:
            if NS.USER in NS(spec.namespaces):
                idmap.write_maps(pid, self.maps)
            ours.send(GO)
            return _wait_for_exec(ours)
        except (SetupFailed, OSError):
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            os.waitpid(pid, 0)
            os.close(pidfd)
            raise

    def _op_exec(self, request: dict[str, Any], fds: list[int]) -> tuple[dict[str, Any], list[int]]:
        """Run a command inside a running container: a first child joins, a second one, adopted by us, runs."""
        spec = from_wire(request["spec"])
        target_pidfd, *rest = fds
        stdio, exit_fd, cgroup_fd, tasks = _split_fds(request, rest)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            first_pid, first_pidfd = clone3(CloneFlag.CLEAR_SIGHAND, exit_signal=signal.SIGCHLD, cgroup_fd=cgroup_fd)
            if first_pid == 0:
                ours.close()
                child_fds = ChildFds(theirs, stdio, tasks)
                enter_and_exec(spec, child_fds, pidfd=target_pidfd, last_capability=self.last_capability)
            theirs.close()
            os.waitpid(first_pid, 0)
            os.close(first_pidfd)
            pid = _second_pid(ours)
            pidfd = os.pidfd_open(pid)
            try:
                tty_fd = _wait_for_exec(ours)
            except (SetupFailed, OSError):
                os.waitpid(pid, 0)
                os.close(pidfd)
                raise
        finally:
            ours.close()
            theirs.close()
        self._register(request["name"], spec, pid, pidfd, exit_fd)
        return {"pid": pid}, [pidfd] + ([tty_fd] if tty_fd is not None else [])

    def _open_trees(self, spec: Spec) -> dict[str, int]:
        """Open, with the launcher's rights, every host folder that the child will mount."""
        sources = {f"lower:{i}": (path, False) for i, path in enumerate(spec.rootfs.lowers)}
        for i, mount in enumerate(spec.mounts):
            if mount.kind in ("bind", "overlay"):
                sources[f"mount:{i}"] = (mount.source, mount.kind == "bind")
        trees: dict[str, int] = {}
        try:
            for name, (path, recursive) in sources.items():
                userns_fd = self.userns_fd if name.startswith("lower:") else -1
                trees[name] = mounts.detached_copy(path, userns_fd=userns_fd, recursive=recursive)
            for i, mount in enumerate(spec.mounts):
                if mount.kind == "bind" and "ro" in mount.options:
                    mount_setattr(trees[f"mount:{i}"], "", set_attrs=MountAttr.RDONLY, recursive=True)
            if spec.rootfs.writable is not None:
                trees["writable"] = self._open_writable(spec.rootfs.writable)
        except OSError:
            for fd in trees.values():
                os.close(fd)
            raise
        return trees

    def _open_writable(self, path: str) -> int:
        """Open the folder of an overlay's upper layer, which belongs to the container's root, not to the machine's."""
        uid, gid = (maps[0].outside if maps[0].inside == 0 else 0 for maps in (self.maps.uids, self.maps.gids))
        for folder in (f"{path}/upper", f"{path}/work"):
            os.makedirs(folder, 0o755, exist_ok=True)
            os.chown(folder, uid, gid, follow_symlinks=False)
        return mounts.detached_copy(path)

    def _register(self, name: str, spec: Spec, pid: int, pidfd: int, exit_fd: int) -> None:
        deadline_s = None if spec.time_limit_s is None else time.monotonic() + spec.time_limit_s
        self.jobs[pidfd] = Job(pid, pidfd, os.dup(exit_fd), deadline_s, NS.PID in NS(spec.namespaces), name)
        self.poll.register(pidfd, select.EPOLLIN)
        entry = {"name": name, "pid": pid, "command": spec.command, "hostname": spec.hostname, "started_s": time.time()}
        self.unwritten.append((name, entry))

    def _reap(self, job: Job) -> None:
        """Collect a child that has ended and write how it ended into its exit pipe."""
        _, status, usage = os.wait4(job.pid, 0)
        self.poll.unregister(job.pidfd)
        del self.jobs[job.pidfd]
        if not job.has_pid_namespace:
            self._end_orphans()
        report = {
            "status": os.waitstatus_to_exitcode(status),
            "timed_out": job.timed_out,
            "user_s": usage.ru_utime,
            "system_s": usage.ru_stime,
            "max_rss_kib": usage.ru_maxrss,
        }
        try:
            os.write(job.exit_fd, json.dumps(report).encode())
        except BrokenPipeError:
            pass  # nobody waits any more
        os.close(job.exit_fd)
        os.close(job.pidfd)
        self.folder.remove_entry(job.name)

    def _end_orphans(self) -> None:
        """Kill what a program without a PID namespace left behind: its orphans became ours (child subreaper)."""
        known = {job.pid for job in self.jobs.values()}
        if any(not job.has_pid_namespace for job in self.jobs.values()):
            return  # they may belong to one that still runs; the last one to end takes them along
        while orphans := [pid for pid in _children() if pid not in known]:
            for pid in orphans:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)

    def end_all(self) -> None:
        """Kill and collect every child."""
        for job in list(self.jobs.values()):
            signal.pidfd_send_signal(job.pidfd, signal.SIGKILL)
        for job in list(self.jobs.values()):
            self._reap(job)
        self._end_orphans()


def _children() -> list[int]:
    with open(f"/proc/self/task/{os.getpid()}/children") as file:
        return [int(pid) for pid in file.read().split()]


def _split_fds(request: dict[str, Any], fds: list[int]) -> tuple[tuple[int, int, int], int, int, tuple[int, ...]]:
    """Return standard streams, exit pipe, v2 cgroup folder (-1: none) and v1 ``tasks`` files, in the order they came."""
    stdin, stdout, stderr, exit_fd, *rest = fds
    cgroup_fd = rest.pop(0) if request["has_cgroup2"] else -1
    return (stdin, stdout, stderr), exit_fd, cgroup_fd, tuple(rest)


def _second_pid(status: socket.socket) -> int:
    status.settimeout(SETUP_TIMEOUT_S)
    message = status.recv(4096)
    if not message.startswith(b"pid "):
        raise SetupFailed(json.loads(message) if message else _died("join the container"))
    return int(message.split()[1])


def _wait_for_exec(status: socket.socket) -> int | None:
    """Wait until the child has become the program; return its terminal's master side if it made one.

    Raises: SetupFailed with the child's report, or when the child died or took longer than the set-up time limit.
    """
    status.settimeout(SETUP_TIMEOUT_S)
    ready, tty_fd = False, None
    try:
        while True:
            message, fds, _, _ = socket.recv_fds(status, 4096, 1)
            tty_fd = fds[0] if fds else tty_fd
            if message == READY:
                ready = True
            elif message not in (b"", b"tty"):
                raise SetupFailed(json.loads(message))
            elif not message:
                break
    except TimeoutError:
        raise SetupFailed(_died(f"finish its set-up within {SETUP_TIMEOUT_S:.0f} s")) from None
    if not ready:
        raise SetupFailed(_died("finish its set-up"))
    return tty_fd


def _died(what: str) -> dict[str, Any]:
    return {"step": what, "errno": 0, "message": "the process was killed (is its memory limit too small?)"}

"""The resident launcher: one small process that makes every container of one Python program.

A Jupyter process has a dozen threads. It cannot unshare a user namespace (EINVAL), and a fork of it copies locks whose
holders do not exist in the child. So labkit starts this helper once (``python -I -S``, standard library only, one thread) and asks
it, over a socket pair that keeps message boundaries, for one container after another::

    program                          launcher                               child
      |-- prepare: spec --------------->| opens mounts, plans the steps        |
      |   (makes the cgroup meanwhile)  |-- clone3 (all namespaces, pidfd) --->|
      |                                 |-- writes uid_map, gid_map            | waits
      |-- spawn: descriptors ---------->|-- "go" ----------------------------->|
      |                                 |                                      | joins its v1 cgroups
      |                                 |                                      | mounts, pivots, drops, filters
      |                                 |<---- end of file: execve closed it --| now the program
      |<--- pid, pidfd (or the error) --|                                      |
      |                                 |   ... pidfd becomes readable ...     v
      |<= exit pipe: status, times =====|   wait4

On cgroup v2 the clone itself enters the cgroup (CLONE_INTO_CGROUP), so there it comes after "spawn", as it does for a child that is a
copy of the launcher and could not be told later what to do.

The program's end is an end of file here: every container is killed, its cgroups are removed, and the launcher ends. The
launcher's own end kills its children too (PR_SET_PDEATHSIG). So ``kill -9`` of either leaves nothing running.

Leaves out: a supervisor a container (as conmon or containerd-shim), which would outlive the program.
See: clone(2), unix(7), prctl(2), user_namespaces(7).
"""

from __future__ import annotations

import array
import errno
import os
import pickle
import select
import signal
import socket
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from labkit.container import runfolder
from labkit.container.jobs import Jobs
from labkit.container.messages import MESSAGE_BYTES
from labkit.container.outcome import SetupFailed, wait_for_exec, wait_for_own_descriptors
from labkit.container.plan import (
    GO,
    SECOND_CHILD,
    ChildFds,
    enter_steps,
    first_steps,
    late_steps,
)  # fmt: skip
from labkit.container.prepare import Child, Prepared, Preparer
from labkit.container.spec import Spec
from labkit.errors import LabkitError
from labkit.isolation.idmap import write_maps
from labkit.linux.constants import NS, CloneFlag, Prctl
from labkit.linux.spawn import shares_memory, spawn_in_time, spawn_program
from labkit.linux.steps import Arena, Program, Step
from labkit.linux.syscalls import prctl

__all__ = ["Launcher"]

_ANCILLARY_BYTES = socket.CMSG_LEN(64 * 4)  # so many descriptors at most


class Launcher:
    """Serves one program over ``control``; made and run by `labkit.container.resident`."""

    def __init__(self, control: socket.socket, folder: runfolder.RunFolder, program_pidfd: int, bell: int) -> None:
        self.control = control
        #: Readable at the program's end, even if a forked child of it still holds the socket open.
        self.program_pidfd = program_pidfd
        self.name = os.path.basename(folder.path)
        self.folder = folder
        self.prepared: Prepared | None = None
        #: The program said goodbye; otherwise it was killed, and its cgroups are ours to remove.
        self.was_dismissed = False
        #: This kernel enters a time namespace at fork only, not at execve (before Linux 6.3, or with children that are copies).
        self.needs_fork_for_time = False
        self.poll = select.epoll()
        self.jobs = Jobs(self.poll, folder)
        # Rung after each message. The socket itself tells only of its end: see `labkit.container.client` for why.
        self.bell = bell
        self.poll.register(bell, select.EPOLLIN | select.EPOLLET)
        self.poll.register(control, select.EPOLLHUP)
        self.poll.register(program_pidfd, select.EPOLLIN)
        self.arena = Arena()
        self.buffer = bytearray(MESSAGE_BYTES)
        self.preparer = Preparer(self.name, folder.stage)

    def serve(self) -> None:
        """Answer requests and report ends until the program closes its side."""
        while True:
            events = self.poll.poll(self.jobs.timeout_s())
            for fd, _ in events:
                if (job := self.jobs.running.get(fd)) is not None:
                    self.jobs.reap(job)
                elif fd == self.program_pidfd or not self._answer_all() or fd != self.bell:
                    return
            self.jobs.enforce_deadlines()
            if not events:
                self.jobs.write_entries()

    def _answer_all(self) -> bool:
        """Carry out every request that has come; return False when the program is gone."""
        while True:
            try:
                message, fds = self._receive(socket.MSG_DONTWAIT)
            except BlockingIOError:
                return True
            if not self._answer(message, fds):
                return False

    def _answer(self, message: memoryview, fds: list[int]) -> bool:
        if not message:
            return False
        # The program at the other end runs as the same user, from the same files: its pickles are as good as its word.
        request = pickle.loads(message)
        if request["op"] == "end":
            self.was_dismissed = True
            return False
        if request["op"] in ("prepare", "forget"):
            self._forget_prepared()
            if request["op"] == "prepare":
                self._op_prepare(request)
            return True
        operation = self._op_spawn if request["op"] == "spawn" else self._op_exec
        send_back: list[int] = []
        try:
            answer, send_back = operation(request, fds)
        except SetupFailed as failure:
            answer = {"error": failure.report}
        except LabkitError as error:
            answer = {"refused": error}
        except LookupError as error:
            answer = {"error": {"step": "find the user", "errno": errno.EINVAL, "message": str(error.args[0])}}
        except OSError as error:
            text = str(error.strerror or error)
            answer = {"error": {"step": request["op"], "errno": error.errno or 0, "message": text}}
        try:
            socket.send_fds(self.control, [pickle.dumps(answer)], send_back)
        except BrokenPipeError:
            return False  # killed while it waited
        for fd in (*fds, *send_back[1:]):
            os.close(fd)
        return True

    def _receive(self, flags: int = 0) -> tuple[memoryview, list[int]]:
        # Into one buffer that stays: a fresh one of this size would be mapped and unmapped for each message.
        flags |= socket.MSG_CMSG_CLOEXEC
        length, ancillary, _, _ = self.control.recvmsg_into([self.buffer], _ANCILLARY_BYTES, flags)
        fds = array.array("i")
        for _, _, data in ancillary:
            fds.frombytes(data)
        return memoryview(self.buffer)[:length], list(fds)

    def _op_prepare(self, request: dict[str, Any]) -> None:
        """Begin with all that needs only the spec; the program makes the cgroup meanwhile. There is no answer."""
        prepared = self.prepared = self.preparer.prepare(request["name"], request["spec"], hostname=request["hostname"])
        if prepared.error is None and request.get("clone_now") and shares_memory():
            try:
                prepared.child = self._clone(prepared)
            except (OSError, SetupFailed) as error:
                prepared.error = error

    def _clone(self, prepared: Prepared, cgroup_fd: int = -1, late: Sequence[Step] = ()) -> Child | None:
        """Start the child and write its id maps; it waits for "go" and, where ``late`` is not known yet, for those steps.

        Return None if it can be made only once they are known.
        """
        program, spec = Program(prepared.last_steps, self.arena, after=prepared.plan), prepared.spec
        # The cgroup namespace comes later, in the child.
        flags = _clone_flags(spec.namespaces, early=not late)
        if late:
            program.fill(late)
        # A process that changed its ids hides its /proc/PID; the child inherits or shares that mark, and its id maps
        # are files there.
        prctl(Prctl.SET_DUMPABLE, 1)
        if spec.time_offset_s and self.needs_fork_for_time:
            if not late:
                return None
            made = spawn_in_time(program, flags, offset_s=spec.time_offset_s, cgroup_fd=cgroup_fd)
        else:
            made = spawn_program(program, flags, exit_signal=signal.SIGCHLD, cgroup_fd=cgroup_fd)
        child = Child(program, *made)
        try:
            self._write_outside_files(spec, child.pid)
        except OSError as error:
            child.end()
            # EACCES: the child is in its time namespace already, and only an empty one takes offsets (time_namespaces(7)).
            if not spec.time_offset_s or self.needs_fork_for_time or error.errno != errno.EACCES:
                raise
            self.needs_fork_for_time = True
            return self._clone(prepared, cgroup_fd, late)
        return child

    def _forget_prepared(self) -> None:
        if self.prepared is not None:
            self.prepared.close()
        self.prepared = None

    def _op_spawn(self, request: dict[str, Any], fds: list[int]) -> tuple[dict[str, Any], list[int]]:
        if self.prepared is None or self.prepared.name != request["name"]:
            return {"again": True}, []  # another thread of the program came in between
        try:
            return self._spawn(request, fds)
        finally:
            self._forget_prepared()

    def _spawn(self, request: dict[str, Any], fds: list[int]) -> tuple[dict[str, Any], list[int]]:
        prepared = self.prepared
        if prepared is None:
            raise SetupFailed("spawn", 0, "nothing was prepared")
        if prepared.error is not None:
            raise prepared.error
        spec, fds_of_child = prepared.spec, prepared.fds
        if fds_of_child is None:
            raise SetupFailed("spawn", 0, "nothing was prepared")
        stdio, exit_fd, cgroup_fd, tasks = _split_fds(request, fds)
        late = late_steps(fds_of_child, stdio, tasks, hostname=prepared.hostname)
        if prepared.child is not None and cgroup_fd >= 0:
            prepared.child.end()  # it cannot be born into its cgroup any more
            prepared.child = None
        if prepared.child is None:
            prepared.child = self._clone(prepared, cgroup_fd, late)
        else:
            prepared.child.program.fill(late)
        child = prepared.child
        if child is None:
            raise SetupFailed("spawn", 0, "no child was made")
        tty_fd = self._let_go(prepared, child, hold=request.get("hold", False))
        prepared.child = None
        self.jobs.register(request["name"], spec, child.pid, child.pidfd, exit_fd=exit_fd, hostname=prepared.hostname)
        return {"pid": child.pid, "notes": tuple(prepared.notes)}, [child.pidfd] + (
            [tty_fd] if tty_fd is not None else []
        )

    def _let_go(self, prepared: Prepared, child: Child, *, hold: bool) -> int | None:
        """Say "go", and wait until the child has become its program; return its terminal's master side, if any."""
        ours = prepared.pair[0]
        if hold:
            self._hold(child.pid)
        try:
            ours.send(GO)
        except BrokenPipeError:
            pass  # it has ended already; why is found next
        wait_for_own_descriptors(ours, child.pidfd)
        prepared.close_status()
        return wait_for_exec(child.program, ours)

    def _hold(self, pid: int) -> None:
        """Give the program the child's network namespace to put interfaces in, and wait for its word to go on."""
        prctl(Prctl.SET_DUMPABLE, 1)
        try:
            net_fd = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        finally:
            prctl(Prctl.SET_DUMPABLE, 0)
        socket.send_fds(self.control, [pickle.dumps({"held": pid})], [net_fd])
        os.close(net_fd)
        message, _ = self._receive()
        word = pickle.loads(message) if message else {}
        if word.get("op") != "go":
            raise SetupFailed("set up the network", int(word.get("errno", 0)), str(word.get("message", "cancelled")))

    def _write_outside_files(self, spec: Spec, pid: int) -> None:
        """Write what only somebody outside the child may: its id maps, its clock offsets, its OOM score."""
        try:
            if spec.has(NS.USER):
                write_maps(pid, self.preparer.maps)
            if spec.time_offset_s and not self.needs_fork_for_time:
                text = f"monotonic {spec.time_offset_s} 0\nboottime {spec.time_offset_s} 0\n"
                _write(f"/proc/{pid}/timens_offsets", text)
            if spec.oom_score_adj is not None:
                _write(f"/proc/{pid}/oom_score_adj", str(spec.oom_score_adj))
        finally:
            # Hidden again: or a process inside a container could trace a child that is on its way in, and so reach us.
            prctl(Prctl.SET_DUMPABLE, 0)

    def _op_exec(self, request: dict[str, Any], fds: list[int]) -> tuple[dict[str, Any], list[int]]:
        """Run a command inside a running container: a first child joins, a second one, adopted by us, runs."""
        self._forget_prepared()  # its child waits for steps in the arena, which is needed now
        spec = request["spec"]
        target_pidfd, *rest = fds
        stdio, exit_fd, cgroup_fd, tasks = _split_fds(request, rest)
        facts = self.preparer.facts(spec, (f"/proc/{request['target_pid']}/root",))
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ours, theirs:
            child_fds = ChildFds(theirs.fileno(), ours.fileno())
            enter = enter_steps(spec, child_fds, facts, pidfd=target_pidfd, share_memory=shares_memory())
            steps = [*first_steps(stdio, tasks), *enter]
            program = Program(steps, self.arena)
            first_pid, first_pidfd = spawn_program(
                program, CloneFlag.CLEAR_SIGHAND, exit_signal=signal.SIGCHLD, cgroup_fd=cgroup_fd
            )
            theirs.close()
            try:
                tty_fd = wait_for_exec(program, ours)
            finally:
                os.waitpid(first_pid, 0)
                os.close(first_pidfd)
                pid = program.result_of([step.why for step in steps].index(SECOND_CHILD))
                if program.refused is not None and pid > 0:
                    os.waitpid(pid, 0)
        pidfd = os.pidfd_open(pid)
        self.jobs.register(request["name"], spec, pid, pidfd, exit_fd=exit_fd, hostname=spec.hostname)
        return {"pid": pid}, [pidfd] + ([tty_fd] if tty_fd is not None else [])

    def end_all(self) -> None:
        """Kill and collect every child."""
        self._forget_prepared()
        self.jobs.end_all()


@lru_cache(maxsize=64)
def _clone_flags(namespaces: int, *, early: bool) -> int:
    """Return the flags for clone3: with ``early`` the child shares the descriptors until those of its streams have arrived."""
    return int(NS(namespaces) & ~NS.CGROUP | CloneFlag.CLEAR_SIGHAND | (CloneFlag.FILES if early else 0))


def _split_fds(request: dict[str, Any], fds: list[int]) -> tuple[tuple[int, int, int], int, int, tuple[int, ...]]:
    """Return standard streams, exit pipe, v2 cgroup folder (-1: none) and v1 ``tasks`` files, in the order they came."""
    stdin, stdout, stderr, exit_fd, *rest = fds
    cgroup_fd = rest.pop(0) if request["has_cgroup2"] else -1
    return (stdin, stdout, stderr), exit_fd, cgroup_fd, tuple(rest)


def _write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)

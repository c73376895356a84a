"""The launcher as a process: becomes able to make namespaces, serves, and takes everything along when it ends.

Started by `labkit.container.client` as ``python -I -S -c ... FD PIDFD BELL BASE NAME CGROUP_PARENT``. The first message it sends is a
greeting, or the reason why this machine does not let it work.

See: user_namespaces(7), newuidmap(1), prctl(2) (PR_SET_CHILD_SUBREAPER).
"""

from __future__ import annotations

import gc
import os
import pickle
import select
import signal
import socket
from contextlib import suppress

from labkit.container import runfolder
from labkit.container.launcher import Launcher
from labkit.container.messages import MESSAGE_BYTES
from labkit.isolation import idmap
from labkit.isolation.capabilities import parse_capabilities
from labkit.linux.constants import NS, Prctl
from labkit.linux.syscalls import capget, prctl, unshare

__all__ = ["become_namespace_root", "main"]

#: How long a killed program may take from closing its socket to its end.
_LAST_BREATH_MS = 5000
#: How often, and how long each, the end of killed containers is waited for: nearly always it comes with the first.
_THAWS, _THAW_PAUSE_MS = 50, 40


def main(control_fd: str, program_pidfd_text: str, bell_text: str, base: str, name: str, cgroup_parent: str) -> None:
    """Serve the program at the other end of ``control_fd`` until it goes away; then remove what is left of both."""
    control, program_pidfd = socket.socket(fileno=int(control_fd)), int(program_pidfd_text)
    bell = int(bell_text)
    # They were inherited on purpose, by this process; a container that held them could speak for us.
    control.set_inheritable(False)
    for fd in (program_pidfd, bell):
        os.set_inheritable(fd, False)  # noqa: FBT003 - the function takes it only so
    control.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, MESSAGE_BYTES)
    os.setsid()  # Ctrl-C in the program's terminal is for the program
    prctl(Prctl.SET_CHILD_SUBREAPER, 1)
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        # Python ignores these two, and a child would inherit that; what has a handler is reset to the default for it.
        signal.signal(number, lambda _number, _frame: None)
    try:
        _collect(base)
        folder = runfolder.RunFolder.create(base, name)
    except OSError as error:
        _greet(control, {"error": _report(error)})
        return
    launcher = None
    try:
        if not _has_power():
            become_namespace_root()
        launcher = Launcher(control, folder, program_pidfd, bell)
        # Nothing allocated so far will be collected: children share these pages instead of copying them.
        gc.collect()
        gc.freeze()
        gc.disable()
        _greet(control, {"folder": folder.path})
        launcher.serve()
    except OSError as error:
        _greet(control, {"error": _report(error)})
    finally:
        if launcher is not None:
            if not launcher.was_dismissed:
                _kill_frozen(launcher, cgroup_parent)
            launcher.end_all()
            if not launcher.was_dismissed:
                _remove_cgroups(cgroup_parent, program_pidfd)
                _collect(base)
        folder.remove()


def _greet(control: socket.socket, greeting: dict[str, object]) -> None:
    with suppress(BrokenPipeError):  # killed before it could listen; `serve` sees the end of file
        control.send(pickle.dumps(greeting))


def _report(error: OSError) -> dict[str, object]:
    return {"step": "start the launcher", "errno": error.errno or 0, "message": str(error.strerror)}


def _collect(base: str) -> None:
    """Remove what killed programs left. Looking costs little when there is no dead folder, which is nearly always."""
    if any(runfolder.dead_folders(base)):
        from labkit.container import leftovers

        leftovers.remove(leftovers.find(base))


def _has_power() -> bool:
    effective, _, _ = capget()
    needed = parse_capabilities(["SYS_ADMIN", "SETUID", "SETGID"])
    return effective & needed == needed


def become_namespace_root() -> None:
    """As an ordinary user: enter a user namespace in which this process has all capabilities.

    newuidmap and newgidmap work only from outside the new namespace, so a child that stays outside runs them. The mount
    namespace goes along: without one of its own this process could not copy a single mount.
    Raises: OSError with EPERM or ENOSPC where the machine forbids user namespaces or their maps.
    """
    maps, with_helpers = idmap.user_maps()
    unshared_r, unshared_w = os.pipe()
    parent_pid = os.getpid()
    mapper_pid = os.fork()
    if mapper_pid == 0:
        os.close(unshared_w)
        os.read(unshared_r, 1)
        os._exit(_write_maps(parent_pid, maps, with_helpers=with_helpers))
    try:
        unshare(NS.USER | NS.MNT)
    finally:
        os.close(unshared_r)
        os.close(unshared_w)  # end of file tells the child to go on
        _, status = os.waitpid(mapper_pid, 0)
    number = os.waitstatus_to_exitcode(status)
    if number:
        raise OSError(number, f"writing the id maps of a user namespace: {os.strerror(number)}")
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)


def _write_maps(pid: int, maps: idmap.IdMaps, *, with_helpers: bool) -> int:
    try:
        idmap.write_maps(pid, maps, with_helpers=with_helpers)
    except OSError as error:
        return error.errno or 1
    return 0


def _kill_frozen(launcher: Launcher, parent: str) -> None:
    """Kill what runs in the groups of a program that was killed, and thaw it: on cgroup v1 a frozen process does not even die.

    A program with a freezer group of its own can freeze itself, and others again until it is dead; so again until all have ended.
    """
    from labkit.isolation.cgroups import find_leftovers
    from labkit.isolation.cgroups.tree import kill_members

    poll, waiting = select.poll(), {job.pidfd for job in launcher.jobs.running.values()}
    for pidfd in waiting:
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        poll.register(pidfd, select.POLLIN)
    for _ in range(_THAWS if waiting else 0):
        for folder in find_leftovers(lambda other: other != parent and not other.startswith(f"{parent}-")):
            kill_members(str(folder))
        for pidfd, _events in poll.poll(_THAW_PAUSE_MS):
            poll.unregister(pidfd)
            waiting.discard(pidfd)
        if not waiting:
            return


def _remove_cgroups(parent: str, program_pidfd: int) -> None:
    """Remove the cgroups of a program that was killed, once it is quite gone: until then it holds their lock."""
    # Imported here: no start of a container needs it in this process.
    from labkit.isolation import cgroups

    poll = select.poll()
    poll.register(program_pidfd, select.POLLIN)
    poll.poll(_LAST_BREATH_MS)
    cgroups.remove_leftovers(is_alive=lambda other: other != parent and not other.startswith(f"{parent}-"))

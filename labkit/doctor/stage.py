"""The stage for a probe: new namespaces, entered as labkit's containers enter them, in a child that is thrown away.

The probe's process makes a user namespace, becomes root in it, and makes the other namespaces from there; so it needs no power
outside. Where the machine refuses user namespaces, but the process has CAP_SYS_ADMIN, it goes without, and the answer is
"limited": labkit's own containers always have one.

Leaves out: ranges of ids (a probe of its own).
See: user_namespaces(7).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

from labkit.doctor.answers import Answer, limited
from labkit.doctor.rules import Facts, why_mapping, why_namespace, why_user_namespace
from labkit.isolation.idmap import container_maps, own_maps, write_maps
from labkit.linux.constants import NS, NS_FILES, Capability, MountFlag
from labkit.linux.syscalls import mount, unshare

__all__ = ["WaitingChild", "enter_user_namespace", "in_namespaces", "run_child", "scratch_folder"]


def in_namespaces(kinds: NS, facts: Facts, act: Callable[[], Answer]) -> Answer:
    """Return what ``act`` answers inside new namespaces of ``kinds``, or why they cannot be had."""
    refusal = enter_user_namespace(facts)
    if refusal is not None and not facts.has(Capability.CAP_SYS_ADMIN):
        return replace(refusal, detail=f"it needs a user namespace; {refusal.detail}")
    for kind in NS_FILES:
        if kind & kinds:
            try:
                unshare(kind)
            except OSError as error:
                return why_namespace(kind, error, facts, powerful=True)
    if NS.MNT & kinds:
        # Nothing that a probe mounts may be seen outside.
        mount(None, "/", None, MountFlag.REC | MountFlag.PRIVATE)
    answer = act()
    if refusal is not None and answer.state == "yes":
        return limited(
            "only as root and without a user namespace, which is dangerous", rule=refusal.rule, remedy=refusal.remedy
        )
    return answer


def enter_user_namespace(facts: Facts) -> Answer | None:
    """Make a user namespace and become root in it; return why not if that is refused."""
    euid, egid = os.geteuid(), os.getegid()
    told, tell = os.pipe2(os.O_CLOEXEC)
    mapper = _start_mapper(told, tell, os.getpid()) if facts.has(Capability.CAP_SETUID) else None
    try:
        unshare(NS.USER)
        try:
            _map_own_id(euid, egid)
        except OSError as error:
            # Root that may not map uid 0 can still map other ids, from outside, as labkit does for its containers.
            os.write(tell, b"map")
            if mapper is None or os.waitstatus_to_exitcode(os.waitpid(mapper, 0)[1]) != 0:
                return why_mapping(error, facts)
            mapper = None
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)
    except OSError as error:
        return why_user_namespace(error, facts)
    finally:
        os.close(told)
        os.close(tell)
        if mapper is not None:
            os.waitpid(mapper, 0)
    return None


def _start_mapper(told: int, tell: int, pid: int) -> int:
    """Start a process outside that writes the maps when told, and ends when nobody will tell it any more."""
    mapper = os.fork()
    if mapper:
        return mapper
    status = 1
    with suppress(OSError):
        os.close(tell)
        if os.read(told, 3):
            write_maps(pid, container_maps(own_maps()))
            status = 0
    os._exit(status)


def _map_own_id(euid: int, egid: int) -> None:
    for name, text in (("setgroups", "deny"), ("uid_map", f"0 {euid} 1"), ("gid_map", f"0 {egid} 1")):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)


class WaitingChild:
    """A child in a user namespace of its own that waits, without maps, until it is released; then it tries to be uid 1.

    ``pid`` is -1 if the namespace was refused. A context manager that ends the child.
    """

    def __init__(self) -> None:
        ready, started = os.pipe2(os.O_CLOEXEC)
        go, self._release = os.pipe2(os.O_CLOEXEC)
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self._release)
            status = 1
            with suppress(OSError):
                unshare(NS.USER)
                os.write(started, b"u")
                os.read(go, 1)
                os.setresuid(1, 1, 1)
                status = 0
            os._exit(status)
        os.close(started)
        os.close(go)
        if not os.read(ready, 1):
            self.release()
        os.close(ready)

    def release(self) -> bool:
        """Let it go on and end; return True if it became uid 1, that is, if more than uid 0 was mapped."""
        pid, self.pid = self.pid, -1
        if pid < 0:
            return False
        os.close(self._release)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0

    def __enter__(self) -> WaitingChild:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def run_child(act: Callable[[], int]) -> int:
    """Return the exit status of ``act`` run in a forked child (the first process of a new PID or time namespace)."""
    pid = os.fork()
    if pid == 0:
        status = 125
        with suppress(OSError):
            status = act()
        os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def scratch_folder(*, size: str = "1m") -> str:
    """Mount an empty tmpfs in the probe's own mount namespace, over a folder that exists everywhere, and return it."""
    folder = next(path for path in ("/tmp", "/mnt", "/var", "/") if os.path.isdir(path))
    mount("labkit-doctor", folder, "tmpfs", MountFlag.NOSUID | MountFlag.NODEV, f"size={size},mode=700")
    return folder

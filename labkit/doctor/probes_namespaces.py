"""Probes: the eight namespaces, id mapping, and the calls that make processes.

Each function runs in a child process of its own, does the thing, and looks whether the effect is there.

See: namespaces(7), clone(2), time_namespaces(7), newuidmap(1).
"""

from __future__ import annotations

import errno
import os
import platform
import signal
import socket
from collections.abc import Callable
from functools import partial
from pathlib import Path

from labkit.doctor.answers import Answer, expect, no, yes
from labkit.doctor.rules import SECCOMP_REMEDY, Facts, text_of, why_namespace
from labkit.doctor.stage import WaitingChild, enter_user_namespace, in_namespaces, run_child
from labkit.isolation.idmap import container_maps, own_maps, user_maps, write_maps
from labkit.isolation.namespaces import namespace_id
from labkit.isolation.network import interfaces, set_loopback_up
from labkit.linux.constants import NS, Capability
from labkit.linux.syscalls import clone3, unshare

__all__ = ["PROBES"]

_DAY_S = 86_400
_SAME = "the kernel said yes, but nothing changed"


def _user(facts: Facts) -> Answer:
    before = namespace_id("self", NS.USER)
    refusal = enter_user_namespace(facts)
    if refusal is not None:
        return refusal
    # What it is for: a capability that counts inside. AppArmor's restriction lets the call pass and takes this away.
    try:
        unshare(NS.UTS)
    except OSError as error:
        return why_namespace(NS.UTS, error, facts, powerful=False)
    return expect("root inside", holds=namespace_id("self", NS.USER) != before, otherwise=_SAME)


def _nested(facts: Facts) -> Answer:
    refusal = enter_user_namespace(facts) or enter_user_namespace(facts)
    return refusal or yes("a user namespace in a user namespace")


def _kind(kind: NS, effect: Callable[[], bool], facts: Facts) -> Answer:
    before = namespace_id("self", kind)

    def act() -> Answer:
        if kind in (NS.PID, NS.TIME):  # these take in the children only
            changed = run_child(lambda: int(not (namespace_id("self", kind) != before and effect()))) == 0
        else:
            changed = namespace_id("self", kind) != before and effect()
        return expect(holds=changed, otherwise=_SAME)

    return in_namespaces(kind, facts, act)


def _renames_itself() -> bool:
    socket.sethostname("labkit-doctor")
    return socket.gethostname() == "labkit-doctor"


def _is_cgroup_root() -> bool:
    return all(line.rstrip("\n").endswith(":/") for line in open("/proc/self/cgroup"))


def _time_offsets(facts: Facts) -> Answer:
    def act() -> Answer:
        with open("/proc/self/timens_offsets", "w") as file:
            file.write(f"boottime {_DAY_S} 0\nmonotonic {_DAY_S} 0\n")
        before_s = float(Path("/proc/uptime").read_text().split()[0])
        by_fork = run_child(lambda: int(float(Path("/proc/uptime").read_text().split()[0]) < before_s + _DAY_S))
        if by_fork != 0:
            return expect(holds=False, otherwise=_SAME)
        try:
            after_s = float(_output_of("/bin/cat", "/proc/uptime").split()[0])
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            after_s = 0.0  # before Linux 6.2 a process that waits for its time namespace may not even call vfork
        if after_s >= before_s + _DAY_S:
            return yes("they take effect at exec")
        return yes("they take effect at fork; labkit puts a process in between")

    return in_namespaces(NS.TIME, facts, act)


def _output_of(*command: str) -> bytes:
    """Become ``command`` in a child that is made by vfork, so that exec alone could move it into a new namespace."""
    read_fd, write_fd = os.pipe()
    pid = os.posix_spawn(command[0], command, os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, write_fd, 1)])
    os.close(write_fd)
    with open(read_fd, "rb") as file:
        output = file.read()
    os.waitpid(pid, 0)
    return output


def _one_id(facts: Facts) -> Answer:
    refusal = enter_user_namespace(facts)
    if refusal is not None:
        return refusal
    return expect("uid 0 inside", holds=os.geteuid() == 0, otherwise=_SAME)


def _id_range(facts: Facts) -> Answer:
    powerful = facts.has(Capability.CAP_SETUID) and facts.has(Capability.CAP_SETGID)
    maps, with_helpers = (container_maps(own_maps()), False) if powerful else user_maps()
    count = sum(mapping.count for mapping in maps.uids)
    if count < 2:
        return _why_no_range(facts, powerful=powerful)
    with WaitingChild() as child:
        if child.pid < 0:
            return enter_user_namespace(facts) or expect(holds=False, otherwise=_SAME)
        try:
            write_maps(child.pid, maps, with_helpers=with_helpers)
        except OSError as error:
            return _why_range_refused(error, facts, with_helpers=with_helpers)
        mapped = child.release()
    how = "by newuidmap" if with_helpers else "written directly"
    return expect(f"{count} ids, {how}", holds=mapped, otherwise=_SAME)


def _why_no_range(facts: Facts, *, powerful: bool) -> Answer:
    detail = "only one id can be mapped"
    if powerful:
        return no(
            detail,
            rule="the user namespace around this one has a single id",
            remedy="Map a range in the container around this.",
        )
    if not any(os.path.exists(f"{folder}/newuidmap") for folder in os.get_exec_path()):
        return no(detail, rule="missing program: newuidmap", remedy="sudo apt-get install uidmap")
    return no(
        detail,
        rule="/etc/subuid or /etc/subgid grants this user no range",
        remedy=f"sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {_user_name(facts.uid)}",
    )


def _user_name(uid: int) -> str:
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"UID-{uid}"


def _why_range_refused(error: OSError, facts: Facts, *, with_helpers: bool) -> Answer:
    detail = str(error.strerror)
    if not with_helpers:
        return no(
            detail, rule="missing capability: CAP_SETUID counts only in the outer user namespace", remedy="Run as root."
        )
    if facts.no_new_privs:
        return no(
            detail,
            rule="no_new_privs is set: the set-uid program newuidmap gains nothing",
            remedy="Start without no_new_privs (bwrap, systemd NoNewPrivileges=, docker --security-opt no-new-privileges set it).",
        )
    return no(
        detail,
        rule="newuidmap refuses",
        remedy="Check /etc/subuid, /etc/subgid and that newuidmap is set-uid root: apt-get install --reinstall uidmap",
    )


def _loopback(facts: Facts) -> Answer:
    def act() -> Answer:
        if [item.name for item in interfaces()] != ["lo"]:
            return expect(holds=False, otherwise=_SAME)
        set_loopback_up()
        with socket.socket() as server, socket.socket() as client:
            server.bind(("127.0.0.1", 0))
            server.listen()
            client.connect(server.getsockname())
        return yes("127.0.0.1 answers")

    return in_namespaces(NS.NET, facts, act)


def _clone3(facts: Facts) -> Answer:
    try:
        pid, pidfd = clone3(0, exit_signal=signal.SIGCHLD)
    except OSError as error:
        if error.errno == errno.ENOSYS and _kernel() < (5, 3):
            return no(text_of(error), rule="Linux before 5.3", remedy="Use a newer kernel.")
        return no(f"clone3: {text_of(error)}", rule="a seccomp filter hides clone3", remedy=SECCOMP_REMEDY)
    if pid == 0:
        os._exit(0)
    os.close(pidfd)
    os.waitpid(pid, 0)
    return yes()


def _pidfd(facts: Facts) -> Answer:
    try:
        fd = os.pidfd_open(os.getpid())
        signal.pidfd_send_signal(fd, 0)
        os.close(fd)
    except OSError as error:
        if error.errno == errno.ENOSYS and _kernel() < (5, 3):
            return no("pidfd_open is not there", rule="Linux before 5.3", remedy="Use a newer kernel.")
        return no(f"pidfd_open: {text_of(error)}", rule="a seccomp filter hides pidfd_open", remedy=SECCOMP_REMEDY)
    return yes()


def _kernel() -> tuple[int, ...]:
    return tuple(int("".join(filter(str.isdigit, word)) or 0) for word in platform.release().split(".")[:2])


#: Name of the feature -> probe.
PROBES: dict[str, Callable[[Facts], Answer]] = {
    "user namespace": _user,
    "nested user namespace": _nested,
    "mount namespace": partial(_kind, NS.MNT, lambda: True),
    "pid namespace": partial(_kind, NS.PID, lambda: os.getpid() == 1),
    "network namespace": partial(_kind, NS.NET, lambda: [item.name for item in interfaces()] == ["lo"]),
    "ipc namespace": partial(_kind, NS.IPC, lambda: True),
    "uts namespace": partial(_kind, NS.UTS, _renames_itself),
    "cgroup namespace": partial(_kind, NS.CGROUP, _is_cgroup_root),
    "time namespace": partial(_kind, NS.TIME, lambda: True),
    "time offsets": _time_offsets,
    "one id mapped": _one_id,
    "range of ids mapped": _id_range,
    "loopback": _loopback,
    "clone3": _clone3,
    "pidfd": _pidfd,
}

"""What a test may leave behind, and how to see it: a snapshot before, one after, and the difference as sentences.

Looked at: processes that descend from this one (it is a child subreaper, so orphans come back to it), mounts, cgroups,
network interfaces, run folders, this process's own descriptors, namespaces and labkit threads, and the descriptors of
labkit's resident launcher. Allowed is exactly one launcher with what belongs to it: its run folder, its socket and bell, and the
empty parent cgroup of this process with its lock. Things that a living program of somebody else holds are not ours.

Runs of several users may go on side by side, so each blames a test only for what its own user can have made: an ordinary
user makes no mount, interface or cgroup among the machine's but those that carry the user's id.

Leaves out: files under the working folder and the temporary folder that do not carry labkit's name.
See: prctl(2) (PR_SET_CHILD_SUBREAPER), proc_locks(5), proc_pid_fd(5).
"""

from __future__ import annotations

import gc
import os
import socket
import subprocess
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, fields

from tests.support.hierarchies import mounted_hierarchies

__all__ = ["RUN_FOLDERS", "Snapshot", "become_subreaper", "leaks_since", "wait_for_leaks_since"]

#: In these, what is named labkit… belongs to running containers: labkit's own rule stands in `labkit.container.runfolder`.
RUN_FOLDERS = ("/run", "$XDG_RUNTIME_DIR", "/tmp")
#: How long an end that is under way (a killed process, a group being emptied) may take.
GRACE_S = 2.0
_LAUNCHER_MARK = b"labkit.container.resident"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What there is at one moment; each field maps a key that stays the same to words for a person."""

    processes: dict[int, str]
    mounts: dict[str, str]
    cgroups: dict[str, str]
    interfaces: dict[str, str]
    run_folders: dict[str, str]
    descriptors: dict[tuple[int, str], str]
    namespaces: dict[str, str]
    threads: dict[int, str]
    launcher_descriptors: dict[tuple[int, int, str], str]

    @classmethod
    def take(cls) -> Snapshot:
        """Look at everything now; costs a few milliseconds at most."""
        processes = descendants()
        launchers = [pid for pid, words in processes.items() if _LAUNCHER_MARK.decode() in words]
        return cls(
            processes=processes,
            mounts=_mounts(),
            cgroups=_cgroups(),
            interfaces=_interfaces(),
            run_folders=_run_folders(),
            descriptors={(fd, target): f"{fd} -> {target}" for fd, target in _descriptors("self")},
            namespaces={f"{kind}: {target}": target for kind, target in _links("/proc/self/ns")},
            threads=_labkit_threads(),
            launcher_descriptors={
                (pid, fd, target): f"{fd} -> {target}" for pid in launchers for fd, target in _descriptors(str(pid))
            },
        )


_WORDS = {
    "processes": "process",
    "mounts": "mount",
    "cgroups": "cgroup",
    "interfaces": "network interface",
    "run_folders": "run folder",
    "descriptors": "descriptor",
    "namespaces": "namespace of pytest itself",
    "threads": "thread",
    "launcher_descriptors": "descriptor of the launcher",
}


def become_subreaper() -> None:
    """Let orphaned descendants become children of this process instead of the machine's init."""
    from labkit.linux.constants import Prctl
    from labkit.linux.syscalls import prctl

    prctl(Prctl.SET_CHILD_SUBREAPER, 1)


def wait_for_leaks_since(before: Snapshot, *, resident: bool = True, grace_s: float | None = None) -> list[str]:
    """Return what is new since ``before``, after giving what is just ending the time to end."""
    found = leaks_since(before, resident=resident)
    if not found:
        return found
    gc.collect()  # a descriptor in a reference cycle is closed late, but it is closed
    deadline_s = time.monotonic() + (GRACE_S if grace_s is None else grace_s)
    while (found := leaks_since(before, resident=resident)) and time.monotonic() < deadline_s:
        time.sleep(0.01)
    return found


def leaks_since(before: Snapshot, *, resident: bool = True) -> list[str]:
    """Return a sentence for each thing that is new since ``before``; ``resident`` allows one launcher."""
    _reap_orphans(before)
    now = Snapshot.take()
    found = []
    for field in fields(Snapshot):
        old, new = getattr(before, field.name), getattr(now, field.name)
        fresh = {key: words for key, words in new.items() if key not in old}
        if fresh:
            fresh = _without_allowed(field.name, fresh, before, now, resident=resident)
        found += [f"{_WORDS[field.name]}: {words}" for words in fresh.values()]
    return found


def _without_allowed(
    kind: str, fresh: dict[object, str], before: Snapshot, now: Snapshot, *, resident: bool
) -> dict[object, str]:
    """Return ``fresh`` without what belongs to the one resident launcher or to a living program of somebody else."""
    launchers = [pid for pid, words in now.processes.items() if _LAUNCHER_MARK.decode() in words]
    allowed = resident and len(launchers) <= 1
    if kind == "processes":
        return {pid: words for pid, words in fresh.items() if not (allowed and pid in launchers)}
    if kind in ("cgroups", "run_folders"):
        return {path: words for path, words in fresh.items() if not _is_held(str(path), now, ours=allowed)}
    if kind == "descriptors":
        sockets = [key for key in fresh if _is_seqpacket(key)]
        bells = [key for key in fresh if isinstance(key, tuple) and key[1] == "anon_inode:[eventfd]"]
        control = [*sockets[:1], *bells[:1]] if allowed and launchers and len(_seqpackets(now)) <= 1 else []
        return {
            key: words
            for key, words in fresh.items()
            if key not in control and not (allowed and _is_parent_lock(words, now))
        }
    if kind == "launcher_descriptors":
        known = {pid for pid, _, _ in before.launcher_descriptors}
        # A launcher that is new has its first descriptors; there is nothing to compare them with.
        return {key: words for key, words in fresh.items() if isinstance(key, tuple) and key[0] in known}
    return fresh


def _is_held(path: str, now: Snapshot, *, ours: bool) -> bool:
    """Tell whether a living program holds ``path`` or a folder above it; our own only as far as a launcher may."""
    folders = [path]
    while os.path.basename(os.path.dirname(folders[-1])).startswith("labkit"):
        folders.append(os.path.dirname(folders[-1]))
    holders_of = {folder: _lock_holders(folder) | _lock_holders(f"{folder}/lock") for folder in folders}
    folder = next((folder for folder in folders if holders_of[folder]), None)
    if folder is None:
        return _is_base_in_use(path) or (ours and os.path.basename(path) == "labkit-leaf")
    holders = holders_of[folder]
    if not holders & {os.getpid(), *now.processes}:
        return True
    # The launcher's folder holds its lock and its stage; anything more there, or in its parent cgroup, is a container's.
    return ours and (folder == path or os.path.basename(path) in ("lock", "stage"))


def _is_base_in_use(path: str) -> bool:
    """Tell whether ``path`` is the folder of a user's run folders, and each of them belongs to a living launcher."""
    inner = [f"{path}/{name}" for name in _folder_names(path) if name.startswith("labkit-")]
    return bool(inner) and all(_lock_holders(f"{folder}/lock") for folder in inner)


def _lock_holders(path: str) -> set[int]:
    """Return the processes that hold a flock(2) on ``path``."""
    try:
        status = os.stat(path)
    except OSError:
        return set()
    key = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    with open("/proc/locks") as file:
        rows = [line.split() for line in file]
    return {int(row[4]) for row in rows if len(row) == 8 and row[1] == "FLOCK" and row[5] == key}


def _is_parent_lock(words: str, now: Snapshot) -> bool:
    target = words.partition(" -> ")[2]
    return target in now.cgroups and os.getpid() in _lock_holders(target)


def _is_seqpacket(key: object) -> bool:
    if not isinstance(key, tuple) or not str(key[1]).startswith("socket:"):
        return False
    try:
        with socket.socket(fileno=os.dup(key[0])) as twin:
            return twin.family == socket.AF_UNIX and twin.type == socket.SOCK_SEQPACKET
    except OSError:
        return False


def _seqpackets(now: Snapshot) -> list[tuple[int, str]]:
    return [key for key in now.descriptors if _is_seqpacket(key)]


def descendants() -> dict[int, str]:
    """Return all processes below this one, with the command of each."""
    found: dict[int, str] = {}
    waiting = [os.getpid()]
    while waiting:
        for child in _children(waiting.pop()):
            found[child] = _command(child)
            waiting.append(child)
    return found


def _children(pid: int) -> list[int]:
    children: list[int] = []
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/children", "rb") as file:
                children += map(int, file.read().split())
    except OSError:  # it has just ended
        pass
    return children


def _command(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            line = file.read()
        if not line:
            with open(f"/proc/{pid}/comm", "rb") as file:
                line = b"[" + file.read().strip() + b"]"
    except OSError:
        return f"{pid} (gone)"
    words = line.replace(b"\0", b" ").strip().decode(errors="replace")
    mark = _LAUNCHER_MARK.decode()
    return f"{pid} {mark if mark in words else words[:120]}"


def _reap_orphans(before: Snapshot) -> None:
    """Collect orphans that have ended; a child whose `subprocess.Popen` is alive is left for its owner to wait for."""
    ended = [pid for pid in _children(os.getpid()) if pid not in before.processes and _is_zombie(pid)]
    if not ended:
        return
    owned = {popen.pid for popen in _unwaited_popens()}
    for pid in ended:
        if pid not in owned:
            os.waitpid(pid, os.WNOHANG)


def _unwaited_popens() -> Iterable[subprocess.Popen[bytes]]:
    return [item for item in gc.get_objects() if isinstance(item, subprocess.Popen) and item.returncode is None]


def _is_zombie(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b") ")[2].startswith(b"Z")
    except OSError:
        return False


def _mounts() -> dict[str, str]:
    """Return the mounts of this namespace that this run can have made: without root, only those of FUSE with its own id."""
    with open("/proc/self/mountinfo", errors="surrogateescape") as file:
        rows = [line.rstrip("\n").split(" ") for line in file]
    if os.geteuid() != 0:
        mark = f"user_id={os.geteuid()}"
        rows = [row for row in rows if mark in row[-1].split(",")]
    return {row[0]: f"{row[4]} ({' '.join(row[row.index('-') + 1 :][:2])})" for row in rows}


def _interfaces() -> dict[str, str]:
    """Return labkit's interfaces in this network namespace, in which only root makes some."""
    if os.geteuid() != 0:
        return {}
    return {name: name for _, name in socket.if_nameindex() if name.startswith("labkit-")}


def _cgroups() -> dict[str, str]:
    """Return labkit's groups at the top, beside and below this process's own group of each hierarchy."""
    found: dict[str, str] = {}
    for hierarchy in mounted_hierarchies():
        own = hierarchy.own.removesuffix("/labkit-leaf")
        for top in {hierarchy.mount, own}:
            waiting = [f"{top}/{name}" for name in _folder_names(top) if name.startswith("labkit-")]
            waiting = [path for path in waiting if not _is_another_users(path)]
            while waiting:
                path = waiting.pop()
                found[path] = path
                waiting += [f"{path}/{name}" for name in _folder_names(path)]
    return found


def _is_another_users(path: str) -> bool:
    """Tell whether a group at the top is another user's: root may have given away one of its own, if nobody holds it."""
    return not _is_own(path) and (os.geteuid() != 0 or bool(_lock_holders(path)))


def _folder_names(folder: str) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return []


def _run_folders() -> dict[str, str]:
    """Return what of labkit is in `RUN_FOLDERS` and this user's; in folders of launchers everything down to two levels."""
    found: dict[str, str] = {}
    for folder in map(os.path.expandvars, RUN_FOLDERS):
        for base in (f"{folder}/{name}" for name in _names(folder) if name.startswith("labkit")):
            if not _is_own(base):
                continue
            found[base] = base
            if os.path.basename(base) in ("labkit", f"labkit-{os.geteuid()}"):
                inner = [f"{base}/{name}" for name in _names(base)]
                found |= {path: path for path in inner}
                found |= {f"{path}/{name}": f"{path}/{name}" for path in inner for name in _names(path)}
    return found


def _names(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:  # not there, gone, no folder, or another user's
        return []


def _is_own(path: str) -> bool:
    try:
        return os.lstat(path).st_uid == os.geteuid()
    except FileNotFoundError:
        return False


def _links(folder: str) -> list[tuple[str, str]]:
    found = []
    try:
        names = os.listdir(folder)
    except OSError:  # gone, or another user's
        return []
    for name in names:
        try:
            found.append((name, os.readlink(f"{folder}/{name}")))
        except OSError:
            continue  # the descriptor of this very listing
    return found


def _descriptors(pid: str) -> list[tuple[int, str]]:
    return [(int(name), target) for name, target in _links(f"/proc/{pid}/fd")]


def _labkit_threads() -> dict[int, str]:
    found = {}
    for thread in threading.enumerate():
        target = getattr(thread, "_target", None)
        home = f"{type(thread).__module__} {getattr(target, '__module__', '')}"
        if "labkit" in home or thread.name.startswith("labkit-"):
            found[thread.ident or 0] = f"{thread.name} ({home.strip()})"
    return found

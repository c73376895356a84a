"""What the launcher does for a container before its cgroup and its streams are there.

It opens, with its own rights, every host folder that the child will mount (as detached, where need be ID-mapped mounts), finds
out who the program's user is, and plans the steps. The child then needs no host path any more.

See: open_tree(2), mount_setattr(2), passwd(5).
"""

from __future__ import annotations

import errno
import os
import pickle
import signal
import socket
import stat
import struct
from dataclasses import dataclass, field, replace

from labkit.container.leftovers import LAUNCHER_VARIABLE
from labkit.container.outcome import SetupFailed
from labkit.container.plan import GATE, MOST_LATE_STEPS, ChildFds, Facts, container_steps, run_steps
from labkit.container.spec import Spec
from labkit.container.users import Identity, resolve_user, with_groups
from labkit.errors import LabkitError
from labkit.isolation import idmap, mounts
from labkit.isolation.capabilities import last_capability
from labkit.linux.constants import NS, MountAttr
from labkit.linux.fds import put_high
from labkit.linux.spawn import shares_memory
from labkit.linux.steps import Part, Program, Step, part
from labkit.linux.syscalls import capget, clone3, mount_setattr

__all__ = ["Child", "Prepared", "Preparer", "identity_roots"]

# How many specs and plans of them are remembered.
_MOST_KEPT = 64
# ABI: struct timeval, two longs: seconds and microseconds.
_LONGEST_WAIT = struct.pack("@ll", 60, 0)


@dataclass(frozen=True, slots=True)
class Child:
    """A child that has been cloned and waits, or is on its way, with what it carries out."""

    program: Program
    pid: int
    pidfd: int

    def end(self) -> None:
        """Kill and collect it."""
        signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self.pidfd)


@dataclass(slots=True)
class Prepared:
    """A container to be: what could be done for it before its cgroup and its streams were there."""

    name: str
    spec: Spec
    hostname: str = ""
    trees: dict[str, int] = field(default_factory=dict)
    pair: tuple[socket.socket, ...] = ()
    fds: ChildFds | None = None
    status_fd: int = -1
    plan: Part | None = None
    last_steps: list[Step] = field(default_factory=list)
    error: OSError | LookupError | SetupFailed | LabkitError | None = None
    child: Child | None = None
    notes: list[str] = field(default_factory=list)

    def close(self) -> None:
        """End the child if it still waits here, and release the detached mounts and the socket pair."""
        if self.child is not None:
            self.child.end()
        for fd in self.trees.values():
            os.close(fd)
        for end in self.pair:
            end.close()
        self.close_status()

    def close_status(self) -> None:
        """Close the child's end of the socket pair here; safe to call twice."""
        fd, self.status_fd = self.status_fd, -1
        if fd >= 0:
            os.close(fd)


class Preparer:
    """Prepares containers for one launcher, named ``name``, whose children stage their mounts on the folder ``stage``."""

    def __init__(self, name: str, stage: str) -> None:
        self.name = name
        self.stage = stage
        self.last_capability = last_capability()
        self._specs: dict[bytes, Spec] = {}
        self._plans: dict[object, Part] = {}
        self.maps = idmap.container_maps(idmap.own_maps())
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

    def prepare(self, name: str, pickled: bytes, *, hostname: str) -> Prepared:
        """Return what can be done so far for the spec ``pickled``, which has no host name of its own.

        What went wrong is kept in it, for whoever asks for the container.
        """
        spec = self._specs.get(pickled) or self._remember(pickled)
        prepared = Prepared(name, spec, hostname)
        try:
            prepared.trees = self._open_trees(prepared)
            prepared.pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            # The child's last resort, should the launcher die while the two still share their descriptors.
            prepared.pair[1].setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _LONGEST_WAIT)
            prepared.status_fd = put_high(prepared.pair[1].detach())
            fds = prepared.fds = ChildFds(prepared.status_fd, prepared.pair[0].fileno(), prepared.trees)
            facts = self.facts(spec, identity_roots(spec))
            prepared.plan = self._plan(pickled, spec, fds, facts)
            prepared.last_steps = run_steps(replace(spec, hostname=hostname), facts)
        except (OSError, LookupError, LabkitError) as error:
            prepared.error = error
        return prepared

    def _remember(self, pickled: bytes) -> Spec:
        if len(self._specs) >= _MOST_KEPT:
            self._specs.clear()
        # The program at the other end runs as the same user, from the same files: its pickles are as good as its word.
        spec: Spec = pickle.loads(pickled)
        self._specs[pickled] = spec
        return spec

    def _plan(self, pickled: bytes, spec: Spec, fds: ChildFds, facts: Facts) -> Part:
        """Return the plan; the one for the same spec, descriptors and user is still there from the last time."""
        kinds = tuple(stat.S_IFMT(os.fstat(fd).st_mode) for name, fd in fds.trees.items() if name.startswith("mount:"))
        key = (pickled, fds.status, tuple(fds.trees.values()), kinds, facts.identity)
        found = self._plans.get(key)
        if found is None:
            if len(self._plans) >= _MOST_KEPT:
                self._plans.clear()
            steps = container_steps(spec, fds, facts, stage=self.stage)
            found = self._plans[key] = part(steps, gate=GATE, room=MOST_LATE_STEPS)
        return found

    def facts(self, spec: Spec, roots: tuple[str, ...]) -> Facts:
        """Return what a plan must know; ``roots`` are the folders in which the container's users are looked up.

        Raises: LookupError for a user that is not there or not mapped.
        """
        has_userns = spec.has(NS.USER)
        # With the host's files and no change of user there is nobody to look up.
        identity = resolve_user(spec.user, roots) if spec.rootfs.kind != "host" or spec.user != "0:0" else None
        if identity is not None and spec.groups:
            identity = with_groups(identity, spec.groups, roots)
        if identity is not None and has_userns:
            self._check_mapped(identity)
        permitted = (1 << self.last_capability + 1) - 1 if has_userns else capget()[1]
        marks = {} if spec.has(NS.PID) else {LAUNCHER_VARIABLE: os.path.dirname(self.stage)}
        v1 = v1_hierarchies() if spec.inner or any(mount.kind == "cgroup" for mount in spec.mounts) else ()
        return Facts(identity, self.last_capability, permitted, v1, marks, self.maps, shares_memory())

    def _check_mapped(self, identity: Identity) -> None:
        for what, number, maps in (("user", identity.uid, self.maps.uids), ("group", identity.gid, self.maps.gids)):
            if not any(m.inside <= number < m.inside + m.count for m in maps):
                raise LookupError(
                    f"{what} {number} does not exist in the container's user namespace, which has only"
                    f" {sum(m.count for m in maps)} ids; an administrator can grant more in /etc/sub{what[0]}id"
                )

    def _open_trees(self, prepared: Prepared) -> dict[str, int]:
        """Open, with the launcher's rights, every host folder that the child will mount."""
        spec = prepared.spec
        sources = {f"lower:{i}": (path, False) for i, path in enumerate(spec.rootfs.lowers)}
        for i, mount in enumerate(spec.mounts):
            if mount.kind in ("bind", "overlay"):
                sources[f"mount:{i}"] = (mount.source, mount.kind == "bind")
        trees: dict[str, int] = {}
        try:
            for name, (path, recursive) in sources.items():
                if name.startswith("lower:") and spec.has(NS.USER) and not spec.rootfs.lowers_owned:
                    trees[name] = self._open_lower(path, prepared)
                else:
                    trees[name] = mounts.detached_copy(path, recursive=recursive)
            for i, mount in enumerate(spec.mounts):
                if mount.kind in ("bind", "overlay") and "idmap" in mount.options and spec.has(NS.USER):
                    self._map_ids(trees[f"mount:{i}"], mount.source, prepared)
            for i, mount in enumerate(spec.mounts):
                if mount.kind == "bind" and (attributes := mounts.attributes_of(mount.options)):
                    mount_setattr(trees[f"mount:{i}"], "", set_attrs=attributes, recursive=True)
            for i, mount in enumerate(spec.mounts):
                if mount.kind == "overlay" and (kept := mounts.option_of(mount.options, "kept")):
                    trees[f"kept:{i}"] = self._open_writable(spec, kept)
            if spec.rootfs.writable is not None:
                trees["writable"] = self._open_writable(spec, spec.rootfs.writable)
            for name, fd in trees.items():
                trees[name] = put_high(fd)
        except OSError:
            for fd in trees.values():
                os.close(fd)
            raise
        return trees

    def _open_lower(self, path: str, prepared: Prepared) -> int:
        """Open a layer; where its file system cannot be ID-mapped, its files belong to "nobody" inside, which is noted."""
        try:
            return mounts.detached_copy(path, userns_fd=self.userns_fd)
        except OSError as error:
            if self.userns_fd < 0 or error.errno not in (errno.EINVAL, errno.ENOSYS):
                raise
        prepared.notes.append(
            f"{path} lies on a file system without ID-mapped mounts, so its files belong to nobody inside and cannot be"
            " changed there; a folder on ext4, xfs or btrfs (or tmpfs since Linux 6.3) shows them as root's."
        )
        return mounts.detached_copy(path)

    def _map_ids(self, tree_fd: int, path: str, prepared: Prepared) -> None:
        """Show the files of a mount as root's inside that are root's outside; where that is impossible, note it."""
        if self.userns_fd < 0:
            return
        try:
            mount_setattr(tree_fd, "", set_attrs=MountAttr.IDMAP, userns_fd=self.userns_fd)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOSYS, errno.EPERM):
                raise
            prepared.notes.append(f"{path} cannot be ID-mapped, so its files belong to nobody inside.")

    def _open_writable(self, spec: Spec, path: str) -> int:
        """Open the folder of an overlay's upper layer, which belongs to the container's root, not to the machine's."""
        uid = gid = 0
        if spec.has(NS.USER):
            uid, gid = (maps[0].outside if maps[0].inside == 0 else 0 for maps in (self.maps.uids, self.maps.gids))
        for folder in (f"{path}/upper", f"{path}/work"):
            os.makedirs(folder, 0o755, exist_ok=True)
            os.chown(folder, uid, gid, follow_symlinks=False)
        return mounts.detached_copy(path)


def identity_roots(spec: Spec) -> tuple[str, ...]:
    """Return the folders in which the container's /etc/passwd is looked for, topmost layer first."""
    if spec.rootfs.kind in ("host", "tmpfs"):
        return ("/",)
    upper = () if spec.rootfs.writable is None else (f"{spec.rootfs.writable}/upper",)
    return (*upper, *spec.rootfs.lowers)


def v1_hierarchies() -> tuple[str, ...]:
    """Return the names of the machine's cgroup v1 hierarchies as /proc/self/cgroup gives them. See: cgroups(7)."""
    with open("/proc/self/cgroup") as file:
        names = [line.split(":", 2)[1] for line in file]
    return tuple(name for name in names if name)

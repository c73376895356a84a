"""A guest whose files are the host's: its own kernel, its own cgroups, and everything that is installed here.

The host's file tree comes into the guest by 9p, a network file system whose server is QEMU and whose wire is a virtio device; read-only,
twice over: QEMU refuses writing, and the guest mounts it so. On top lies an overlay in the guest's memory that takes what the
guest writes. The rest is the guest's own: /proc, /sys, /dev, /tmp, /run, and a cgroup v2 tree with all controllers at the top.
Inside, Python and labkit are at the paths where they are outside, and their start is the only thing that takes time.

The new root is moved over the old one (MS_MOVE) before chroot(2). A chroot alone would look the same, but the kernel refuses user namespaces
to a process whose root is not the root of its mount namespace.

Leaves out: files that QEMU's user may not read; writing back to the host; programs that need a running systemd.
See: mount(2) (MS_MOVE), user_namespaces(7), overlay in Documentation/filesystems/overlayfs.rst, QEMU's documentation of 9pfs, switch_root(8).
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

from labkit.vm.boot import raise_if_refused
from labkit.vm.calls import CallList, Slot
from labkit.vm.commandline import board_of
from labkit.vm.cpio import file, folder
from labkit.vm.execution import GuestResult, Streams
from labkit.vm.guest import Guest
from labkit.vm.initramfs import first_calls, initramfs
from labkit.vm.kernel import find_kernel
from labkit.vm.modules import with_dependencies
from labkit.vm.spec import GuestMount, GuestSpec, Share

__all__ = [
    "HOSTROOT_MODULES",
    "NETWORK_MODULES",
    "HostRoot",
    "enter_host_root",
    "environment",
    "hostroot_spec",
    "move_to_root",
]

#: What the guest needs for its files, and what containers with networks of their own need.
HOSTROOT_MODULES = ("virtio_mmio", "9pnet_virtio", "9p", "overlay")
NETWORK_MODULES = ("veth", "bridge", "dummy")
_TAG = "labkit-host"
#: msize: the largest message; each costs a way out of the guest. cache=loose: what was read stays, as the host's files do not change.
_9P_OPTIONS = "trans=virtio,version=9p2000.L,msize=512000,cache=loose"
_AT_FDCWD, _O_WRONLY, _O_CLOEXEC = -100, 1, 0o2000000
_RDONLY, _NOSUID, _NODEV, _NOEXEC, _MOVE = 1, 2, 4, 8, 8192  # linux/mount.h
_FOLDERS = ("modules", "proc", "host", "layer", "root")
_FIRST_MOUNTS = (
    GuestMount("9p", "/host", _RDONLY, _9P_OPTIONS, _TAG),
    GuestMount("tmpfs", "/layer", 0, "mode=755"),
)
#: What the guest has of its own, below the new root.
_OWN_MOUNTS = (
    GuestMount("proc", "/proc", _NOSUID | _NODEV | _NOEXEC),
    GuestMount("sysfs", "/sys", _NOSUID | _NODEV | _NOEXEC),
    GuestMount("cgroup2", "/sys/fs/cgroup", _NOSUID | _NODEV | _NOEXEC, "nsdelegate"),
    GuestMount("devtmpfs", "/dev", _NOSUID),
    GuestMount("devpts", "/dev/pts", _NOSUID | _NOEXEC, "newinstance,ptmxmode=0666,mode=620"),
    GuestMount("tmpfs", "/dev/shm", _NOSUID | _NODEV, "mode=1777"),
    GuestMount("tmpfs", "/tmp", _NOSUID | _NODEV, "mode=1777"),
    GuestMount("tmpfs", "/var/tmp", _NOSUID | _NODEV, "mode=1777"),
    GuestMount("tmpfs", "/run", _NOSUID | _NODEV, "mode=755"),
)
_MADE_FOLDERS = ("/dev/pts", "/dev/shm")
_LINKS = {
    "/dev/fd": "/proc/self/fd",
    "/dev/stdin": "/proc/self/fd/0",
    "/dev/stdout": "/proc/self/fd/1",
    "/dev/stderr": "/proc/self/fd/2",
}
_CONTROLLERS = ("cpuset", "cpu", "io", "memory", "pids")


class HostRoot(Guest):
    """A guest on the host's files, as a context manager; commands get the caller's PATH and HOME."""

    def __init__(
        self,
        memory_mib: int = 1024,
        *,
        cpus: int = 0,
        modules: Sequence[str] = (),
        name: str = "",
        boot_timeout_s: float = 60.0,
    ) -> None:
        spec = hostroot_spec(memory_mib=memory_mib, cpus=cpus, modules=modules)
        super().__init__(spec=spec, name=name, boot_timeout_s=boot_timeout_s)

    def start(self) -> None:
        """Boot the machine and make the host's files its root. Raises: FeatureMissing, GuestError."""
        super().start()
        calls, purposes = enter_host_root(self.spec.machine)
        try:
            raise_if_refused(self.perform(calls), purposes)
        except BaseException:
            self.close()
            raise

    def exec(
        self, command: Sequence[str], *, stdin: bytes = b"", timeout_s: float = 30.0, cwd: str = "/",
        env: Mapping[str, str] | None = None, streams: Streams | None = None,
    ) -> GuestResult:  # fmt: skip
        """Run ``command`` as `Guest.exec` does, in `environment`, to which ``env`` is added."""
        variables = environment() | dict(env or {})
        return super().exec(command, stdin=stdin, timeout_s=timeout_s, cwd=cwd, env=variables, streams=streams)


def hostroot_spec(
    *,
    memory_mib: int = 1024,
    cpus: int = 0,
    modules: Sequence[str] = (),
    append: Sequence[str] = (),
    root: Path = Path("/"),
) -> GuestSpec:
    """Return the spec of a host-root guest; ``cpus`` 0 means as many as this process may use, ``modules`` are loaded beside its own.

    Raises: FeatureMissing without a guest kernel that can do it.
    """
    machine = os.uname().machine
    board = board_of(machine)
    kernel = find_kernel("hostroot")
    memory_bytes = memory_mib << 20
    address = board.ram_address + board.mailbox_offset(memory_bytes)
    archive, paths = _archive(kernel.path, (*HOSTROOT_MODULES, *modules), board.port, address, machine)
    return GuestSpec(
        kernel=kernel.path, initramfs=archive, memory_bytes=memory_bytes,
        cpus=cpus or min(16, len(os.sched_getaffinity(0))), append=("psi=1", *append), shares=(Share(_TAG, root),),
        virtio=True, modules=paths, mounts=_FIRST_MOUNTS,
    )  # fmt: skip


@lru_cache(maxsize=4)
def _archive(
    _kernel: Path, modules: tuple[str, ...], port: str, address: int, machine: str
) -> tuple[bytes, tuple[str, ...]]:
    files = with_dependencies(find_kernel("hostroot"), modules)
    entries = [*map(folder, _FOLDERS), *(file(f"modules/{one.name}.ko", one.content) for one in files)]
    packed = initramfs(first_calls(port, address, machine), entries, machine)
    return packed, tuple(f"/modules/{one.name}.ko" for one in files)


def enter_host_root(machine: str) -> tuple[CallList, Mapping[Slot, str]]:
    """Return the calls that put the overlay together and make it the root of everything to come, and what each is for."""
    calls = CallList(machine)
    purposes: dict[Slot, str] = {}
    for name in ("upper", "work"):
        purposes[calls.call("mkdirat", _AT_FDCWD, f"/layer/{name}", 0o755)] = f"make /layer/{name}"
    layers = "lowerdir=/host,upperdir=/layer/upper,workdir=/layer/work"
    purposes[calls.call("mount", "overlay", "/root", "overlay", 0, layers)] = "lay an overlay over the host's files"
    move_to_root(calls, purposes, "/root")
    return calls, purposes


def move_to_root(calls: CallList, purposes: dict[Slot, str], folder: str, *, memory: bool = True) -> None:
    """Add the calls that make the mount at ``folder`` the root of everything to come, with a /proc, /sys, /dev of the guest's own.

    With ``memory``, /tmp, /run and their like are the guest's own, too.
    """
    calls.call("chdir", folder)
    purposes[calls.call("mount", ".", "/", None, _MOVE, None)] = f"move {folder} to the root"
    purposes[calls.call("chroot", ".")] = "change its root"
    calls.call("chdir", "/")
    for mount in _OWN_MOUNTS:
        if mount.fstype == "tmpfs" and not memory:
            continue
        if mount.target in _MADE_FOLDERS:
            calls.call("mkdirat", _AT_FDCWD, mount.target, 0o755)
        made = calls.call("mount", mount.source or mount.fstype, mount.target, mount.fstype, mount.flags, mount.options)
        purposes[made] = f"mount {mount.fstype} on {mount.target}"
    for path, target in _LINKS.items():
        calls.call("symlinkat", target, _AT_FDCWD, path)
    words = " ".join(f"+{name}" for name in _CONTROLLERS)
    opened = calls.call("openat", _AT_FDCWD, "/sys/fs/cgroup/cgroup.subtree_control", _O_WRONLY | _O_CLOEXEC)
    purposes[calls.call("write", opened, words, len(words))] = "give the cgroup controllers to groups"
    calls.call("close_range", 10, 1 << 30, 0)  # what was opened; the agent's own descriptors are below


def environment() -> dict[str, str]:
    """Return the environment of commands in the guest: what is needed to find programs, as root of the guest."""
    kept = {name: os.environ[name] for name in ("LANG", "LC_ALL", "TERM") if name in os.environ}
    path = os.environ.get("PATH", os.defpath)
    return {**kept, "PATH": path, "HOME": str(Path.home()), "USER": "root", "LOGNAME": "root", "SHELL": "/bin/sh"}

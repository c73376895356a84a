"""Mounts: the file tree of a container, put together in a mount namespace of its own.

A new mount namespace begins as a copy of the old one. Its mounts may still *propagate*: what is mounted here would show up
there. So the first step is always to make ``/`` private. Then file systems are attached below a folder, the folder becomes
``/`` by pivot_root, and the old tree is detached: unlike chroot, nothing of it is left to climb back to.

Leaves out: propagation types other than private; swap of a root that is in use by other processes.
See: mount_namespaces(7), mount(2), pivot_root(2), Documentation/filesystems/sharedsubtree.rst in Linux.
"""

from __future__ import annotations

import errno
import os
import stat

from labkit.linux.constants import AtFlag, MountAttr, MountFlag, OpenTreeFlag, Umount
from labkit.linux.syscalls import AT_FDCWD, mount, mount_setattr, move_mount, open_tree, pivot_root, umount2

__all__ = [
    "DEVICES",
    "MASKED_PATHS",
    "READONLY_PATHS",
    "attach",
    "detached_copy",
    "let_go_of_old_root",
    "make_private",
    "mask_path",
    "mount_dev",
    "mount_proc",
    "mount_sysfs",
    "mount_tmpfs",
    "parse_options",
    "pivot_into",
    "set_readonly",
]

#: Device nodes every program may expect. They are bind mounts: a user namespace may not make device nodes.
DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
_DEV_LINKS = {
    "fd": "/proc/self/fd",
    "stdin": "/proc/self/fd/0",
    "stdout": "/proc/self/fd/1",
    "stderr": "/proc/self/fd/2",
    "core": "/proc/kcore",
    "ptmx": "pts/ptmx",
}
#: Files of /proc and /sys that say or change things about the whole machine; Docker hides the same ones.
MASKED_PATHS = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/sys/firmware",
)
READONLY_PATHS = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")

_TTY_GID = 5
_SAFE = MountFlag.NOSUID | MountFlag.NODEV | MountFlag.NOEXEC
_WORDS = {
    "ro": MountFlag.RDONLY,
    "rw": MountFlag(0),
    "nosuid": MountFlag.NOSUID,
    "nodev": MountFlag.NODEV,
    "noexec": MountFlag.NOEXEC,
    "noatime": MountFlag.NOATIME,
    "relatime": MountFlag.RELATIME,
}


def parse_options(options: tuple[str, ...]) -> tuple[MountFlag, str]:
    """Split mount options as in fstab(5) into flags and the data string that the file system itself reads."""
    flags, data = MountFlag(0), []
    for option in options:
        if option in _WORDS:
            flags |= _WORDS[option]
        else:
            data.append(option)
    return flags, ",".join(data)


def make_private() -> None:
    """Cut the caller's mount namespace off: nothing mounted from here on is seen outside, nor the other way round."""
    mount(None, "/", None, MountFlag.REC | MountFlag.PRIVATE)


def detached_copy(path: str, *, userns_fd: int = -1, recursive: bool = False) -> int:
    """Return a descriptor of a bind mount of ``path`` that is attached nowhere yet.

    With ``userns_fd`` the mount is ID-mapped: files of uid 0 on disk belong to uid 0 *of that user namespace*.
    Raises: OSError with ENOENT, EPERM (needs CAP_SYS_ADMIN), EINVAL (a file system without ID mapping).
    See: open_tree(2), mount_setattr(2).
    """
    flags = OpenTreeFlag.CLONE | OpenTreeFlag.CLOEXEC
    try:
        tree_fd = open_tree(AT_FDCWD, path, flags | (AtFlag.RECURSIVE if recursive else 0))
    except OSError as error:
        # In a user's mount namespace the inherited mounts are locked together: a folder with some below it is
        # copied with all of them or not at all (mount_namespaces(7)).
        if recursive or error.errno != errno.EINVAL:
            raise
        tree_fd = open_tree(AT_FDCWD, path, flags | AtFlag.RECURSIVE)
    if userns_fd >= 0:
        try:
            mount_setattr(tree_fd, "", set_attrs=MountAttr.IDMAP, userns_fd=userns_fd)
        except OSError:
            os.close(tree_fd)
            raise
    return tree_fd


def attach(tree_fd: int, target: str) -> None:
    """Attach a detached mount at ``target``, made as a folder or an empty file as the mount's root demands."""
    make_mount_point(target, folder=stat.S_ISDIR(os.fstat(tree_fd).st_mode))
    move_mount(tree_fd, target)


def make_mount_point(target: str, *, folder: bool) -> None:
    """Make ``target`` if it is not there yet, with the folders above it."""
    if os.path.lexists(target):
        return
    if folder:
        os.makedirs(target, 0o755, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(target), 0o755, exist_ok=True)
        os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o644))


def mount_tmpfs(target: str, *, size_bytes: int, mode: int = 0o755, flags: MountFlag = MountFlag.NOSUID) -> None:
    """Mount an empty file system that lives in memory; its pages count against the cgroup of whoever writes them."""
    mount("labkit-tmpfs", target, "tmpfs", flags, f"size={size_bytes},mode={mode:o}")


def mount_tmpfs_with(target: str, *, flags: MountFlag, data: str) -> None:
    """Mount a tmpfs with options as tmpfs(5) reads them (``size=64m,mode=1777``). Raises: OSError with EINVAL."""
    mount("labkit-tmpfs", target, "tmpfs", flags | MountFlag.NOSUID | MountFlag.NODEV, data or None)


def mount_proc(target: str) -> None:
    """Mount /proc of the caller's PID namespace.

    Raises: OSError with EPERM if the /proc around the caller is itself partly masked (mount_namespaces(7)): a user
    namespace must not see more by mounting afresh.
    """
    mount("proc", target, "proc", _SAFE)


def mount_sysfs(target: str) -> None:
    """Mount /sys read-only, showing the caller's network namespace. Raises: OSError with EPERM without an own one."""
    mount("sysfs", target, "sysfs", _SAFE | MountFlag.RDONLY)


def mount_dev(target: str, *, shm_bytes: int = 64 << 20, host_dev: str = "/dev") -> None:
    """Build a minimal /dev at ``target``: six devices of ``host_dev``, a devpts instance of its own, and shm.

    Raises: OSError with EPERM outside a mount namespace that the caller may change.
    """
    mount("labkit-dev", target, "tmpfs", MountFlag.NOSUID, "size=65536k,mode=755")
    for name in DEVICES:
        os.close(os.open(f"{target}/{name}", os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666))
        mount(f"{host_dev}/{name}", f"{target}/{name}", None, MountFlag.BIND)
    for name, link in _DEV_LINKS.items():
        os.symlink(link, f"{target}/{name}")
    for name in ("pts", "shm", "mqueue"):
        os.mkdir(f"{target}/{name}")
    _mount_devpts(f"{target}/pts")
    mount("shm", f"{target}/shm", "tmpfs", _SAFE, f"size={shm_bytes},mode=1777")


def _mount_devpts(target: str) -> None:
    options, flags = "newinstance,ptmxmode=666,mode=620", MountFlag.NOSUID | MountFlag.NOEXEC
    try:
        mount("devpts", target, "devpts", flags, f"{options},gid={_TTY_GID}")
    except OSError as error:
        # A user namespace with a single id has no group "tty" to give terminals to.
        if error.errno != errno.EINVAL:
            raise
        mount("devpts", target, "devpts", flags, options)


def mount_mqueue(target: str) -> None:
    """Mount the POSIX message queues of the caller's IPC namespace. Raises: OSError with EPERM without an own one."""
    mount("mqueue", target, "mqueue", _SAFE)


def set_readonly(path: str) -> None:
    """Make the tree at ``path`` read-only by a bind mount onto itself. Raises: OSError."""
    mount(path, path, None, MountFlag.BIND | MountFlag.REC)
    # mount_setattr keeps nosuid, nodev and noexec, which a user namespace may not clear; MS_REMOUNT would have to repeat them.
    mount_setattr(AT_FDCWD, path, set_attrs=MountAttr.RDONLY, recursive=True)


def mask_path(path: str) -> bool:
    """Hide ``path`` behind an empty read-only folder or behind /dev/null; return False if there is nothing to hide."""
    try:
        is_folder = stat.S_ISDIR(os.stat(path).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False
    if is_folder:
        mount("labkit-masked", path, "tmpfs", _SAFE | MountFlag.RDONLY, "size=0")
    else:
        mount("/dev/null", path, None, MountFlag.BIND)
    return True


def set_readonly_root() -> None:
    """Make the root mount itself read-only; what is mounted below it (/dev, /proc, volumes) stays as it is."""
    mount_setattr(AT_FDCWD, "/", set_attrs=MountAttr.RDONLY)


def mount_cgroups(target: str) -> None:
    """Mount, read-only, the part of the cgroup tree that the caller's cgroup namespace shows.

    On cgroup v2 that is one tree; on v1 each controller's hierarchy is mounted in a folder of its own.
    Raises: OSError with EPERM without a cgroup namespace of the caller's own.
    """
    with open("/proc/self/cgroup") as file:
        hierarchies = [line.split(":", 2)[1] for line in file]
    v1 = [name for name in hierarchies if name]
    if not v1:
        mount("cgroup2", target, "cgroup2", _SAFE | MountFlag.RDONLY)
        return
    mount_tmpfs(target, size_bytes=1 << 20, flags=_SAFE)
    for name in v1:
        folder = f"{target}/{name.removeprefix('name=')}"
        os.mkdir(folder)
        mount("cgroup", folder, "cgroup", _SAFE | MountFlag.RDONLY, name)
    mount_setattr(AT_FDCWD, target, set_attrs=MountAttr.RDONLY)


def pivot_into(new_root: str) -> None:
    """Make the mount at ``new_root`` the root, and leave the caller standing in the old one, which is still there.

    From here on absolute paths, and every symbolic link on them, stay inside the new root, while relative paths
    still reach the old one. `let_go_of_old_root` must follow. Raises: OSError with EINVAL if it is no mount point.
    """
    os.chdir(new_root)
    # "." twice stacks the old root on top of the new one, so no folder is needed for it (pivot_root(2), NOTES).
    pivot_root(".", ".")
    # The working directory was moved along to the new root; the mount on top of it is the old one.
    os.chdir("..")


def let_go_of_old_root() -> None:
    """Detach the old root and everything mounted below it, and step into the new one."""
    umount2(".", Umount.DETACH)
    os.chdir("/")

"""Mounts: the file tree of a container, put together in a mount namespace of its own.

A new mount namespace begins as a copy of the old one. Its mounts may still *propagate*: what is mounted here would show up
there. So the first step is always to make ``/`` private. Then file systems are attached below a folder, the folder becomes
``/`` by pivot_root, and the old tree is detached: unlike chroot, nothing of it is left to climb back to.

The functions return lists of steps (`labkit.linux.steps`), which a container's child carries out; ``perform(private())`` does it
in the calling process.

Leaves out: propagation types other than private; swap of a root that is in use by other processes.
See: mount_namespaces(7), mount(2), pivot_root(2), Documentation/filesystems/sharedsubtree.rst in Linux.
"""

from __future__ import annotations

import errno
import os
import stat
import struct

from labkit.linux.constants import NS, AtFlag, MountAttr, MountFlag, MoveMountFlag, OpenTreeFlag, Umount
from labkit.linux.steps import Step, kept, perform
from labkit.linux.syscalls import AT_FDCWD, mount_setattr, open_tree

__all__ = [
    "DEVICES",
    "MASKED_PATHS",
    "READONLY_PATHS",
    "attach",
    "attributes_of",
    "bind",
    "cgroups",
    "detached_copy",
    "dev",
    "let_go_of_old_root",
    "make_folders",
    "mask",
    "mqueue",
    "option_of",
    "parse_options",
    "pivot_into",
    "private",
    "proc",
    "readonly",
    "sysfs",
    "tmpfs",
    "write_file",
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
    "nosymfollow": MountFlag.NOSYMFOLLOW,
    "noatime": MountFlag.NOATIME,
    "relatime": MountFlag.RELATIME,
}
_ATTRIBUTES = {
    "ro": MountAttr.RDONLY,
    "nosuid": MountAttr.NOSUID,
    "nodev": MountAttr.NODEV,
    "noexec": MountAttr.NOEXEC,
}
_MISSING = (errno.ENOENT, errno.ENOTDIR)
# As numbers: adding flags of two classes up takes Python as long as the kernel takes for the copy.
_COPY = int(OpenTreeFlag.CLONE | OpenTreeFlag.CLOEXEC)
_COPY_ALL = _COPY | int(AtFlag.RECURSIVE)


def parse_options(options: tuple[str, ...]) -> tuple[MountFlag, str]:
    """Split mount options as in fstab(5) into flags and the data string that the file system itself reads."""
    flags, data = MountFlag(0), []
    for option in options:
        if option in _WORDS:
            flags |= _WORDS[option]
        else:
            data.append(option)
    return flags, ",".join(data)


def attributes_of(options: tuple[str, ...]) -> MountAttr:
    """Return those of ``options`` that hold for a bind mount as a whole: ``ro``, ``nosuid``, ``nodev``, ``noexec``."""
    return sum((_ATTRIBUTES[option] for option in options if option in _ATTRIBUTES), MountAttr(0))


def option_of(options: tuple[str, ...], name: str) -> str:
    """Return what stands behind ``name=`` in ``options``; "" if it is not among them."""
    return next((option.partition("=")[2] for option in options if option.startswith(f"{name}=")), "")


def detached_copy(path: str, *, userns_fd: int = -1, recursive: bool = False) -> int:
    """Return a descriptor of a bind mount of ``path`` that is attached nowhere yet.

    With ``userns_fd`` the mount is ID-mapped: files of uid 0 on disk belong to uid 0 *of that user namespace*.
    Raises: OSError with ENOENT, EPERM (needs CAP_SYS_ADMIN), EINVAL (a file system without ID mapping).
    See: open_tree(2), mount_setattr(2).
    """
    try:
        tree_fd = open_tree(AT_FDCWD, path, _COPY_ALL if recursive else _COPY)
    except OSError as error:
        # In a user's mount namespace the inherited mounts are locked together: a folder with some below it is
        # copied with all of them or not at all (mount_namespaces(7)).
        if recursive or error.errno != errno.EINVAL:
            raise
        tree_fd = open_tree(AT_FDCWD, path, _COPY_ALL)
    if userns_fd >= 0:
        try:
            mount_setattr(tree_fd, "", set_attrs=MountAttr.IDMAP, userns_fd=userns_fd)
        except OSError:
            os.close(tree_fd)
            raise
    return tree_fd


@kept
def private() -> list[Step]:
    """Cut the mount namespace off: nothing mounted from here on is seen outside, nor the other way round."""
    return [_mount(None, "/", None, MountFlag.REC | MountFlag.PRIVATE, None, why="make the mounts private")]


@kept
def make_folders(path: str, *, mode: int = 0o755) -> list[Step]:
    """Make ``path`` and the folders above it, as ``mkdir -p``; a read-only place is reported by whoever needs it."""
    parts = path.strip("/").split("/")
    start = "/" if path.startswith("/") else ""
    tolerated = (errno.EEXIST, errno.EROFS)
    return [
        Step(
            "mkdirat", (AT_FDCWD, start + "/".join(parts[: n + 1]), mode), f"make the folder {path}", tolerate=tolerated
        )
        for n in range(len(parts))
        if parts[n] not in ("", ".")
    ]


def write_file(path: str, data: bytes, *, mode: int = 0o644) -> list[Step]:
    """Make the small file ``path`` with ``data`` in it; its descriptor stays open. Refused with EEXIST if it is there."""
    why = f"write {path}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    return [
        *make_folders(os.path.dirname(path)),
        Step("openat", (AT_FDCWD, path, flags, mode), why, result_to_next=True),
        Step("write", (0, data, len(data)), why, least=len(data)),
    ]


def attach(tree_fd: int, target: str) -> list[Step]:
    """Attach a detached mount at ``target``, made as a folder or an empty file as the mount's root demands."""
    if stat.S_ISDIR(os.fstat(tree_fd).st_mode):
        place = make_folders(target)
    else:
        place = make_folders(os.path.dirname(target))
        node = (AT_FDCWD, target, stat.S_IFREG | 0o644, 0)
        place.append(Step("mknodat", node, f"make the file {target}", tolerate=(errno.EEXIST, errno.EROFS)))
    args = (tree_fd, "", AT_FDCWD, target, MoveMountFlag.F_EMPTY_PATH)
    return [*place, Step("move_mount", args, f"attach a mount at {target}")]


def bind(source: str, target: str) -> list[Step]:
    """Show ``source`` at ``target`` too; both exist. See: mount(2), "Creating a bind mount"."""
    return [_mount(source, target, None, MountFlag.BIND, None, why=f"bind {source} at {target}")]


@kept
def tmpfs(target: str, *, flags: MountFlag = MountFlag.NOSUID | MountFlag.NODEV, data: str = "") -> list[Step]:
    """Mount an empty file system that lives in memory; its pages count against the cgroup of whoever writes them.

    ``data`` as tmpfs(5) reads it: ``size=64m,mode=1777``.
    """
    return [_mount("labkit-tmpfs", target, "tmpfs", flags, data or None, why=f"mount a tmpfs at {target}")]


@kept
def proc(target: str) -> list[Step]:
    """Mount /proc of the caller's PID namespace.

    Refused with EPERM if the /proc around the caller is itself partly masked (mount_namespaces(7)): a user namespace must
    not see more by mounting afresh.
    """
    return [_mount("proc", target, "proc", _SAFE, None, why=f"mount proc at {target}")]


@kept
def sysfs(target: str) -> list[Step]:
    """Mount /sys read-only, showing the caller's network namespace; refused with EPERM to whoever does not own one."""
    return [_mount("sysfs", target, "sysfs", _SAFE | MountFlag.RDONLY, None, why=f"mount sysfs at {target}")]


@kept
def mqueue(target: str) -> list[Step]:
    """Mount the POSIX message queues of the caller's IPC namespace; refused with EPERM without an own one."""
    return [_mount("mqueue", target, "mqueue", _SAFE, None, why=f"mount mqueue at {target}")]


@kept
def dev(target: str, *, host_dev: str = "/dev", shm_bytes: int = 64 << 20, readonly: bool = False) -> list[Step]:
    """Build a minimal /dev at ``target``: six devices of ``host_dev``, links, a devpts instance of its own, and shm.

    ``readonly``: nothing can be added to the folder itself, which is memory, too.
    """
    why = f"build a minimal /dev at {target}"
    steps = tmpfs(target, flags=MountFlag.NOSUID, data="size=65536k,mode=755")
    for name in DEVICES:
        node = f"{target}/{name}"
        steps.append(Step("mknodat", (AT_FDCWD, node, stat.S_IFREG | 0o666, 0), why))
        steps += bind(f"{host_dev}/{name}", node)
    steps += [Step("symlinkat", (link, AT_FDCWD, f"{target}/{name}"), why) for name, link in _DEV_LINKS.items()]
    steps += [Step("mkdirat", (AT_FDCWD, f"{target}/{name}", 0o755), why) for name in ("pts", "shm", "mqueue")]
    steps += _devpts(f"{target}/pts")
    steps.append(_mount("shm", f"{target}/shm", "tmpfs", _SAFE, f"size={shm_bytes},mode=1777", why=why))
    return [*steps, _set_attributes(target, MountAttr.RDONLY)] if readonly else steps


def _devpts(target: str) -> list[Step]:
    options, flags = "newinstance,ptmxmode=666,mode=620", MountFlag.NOSUID | MountFlag.NOEXEC
    args = ("devpts", target, "devpts", flags, f"{options},gid={_TTY_GID}")
    why = f"mount devpts at {target}"
    # A user namespace with a single id has no group "tty" to give terminals to; then once more without.
    with_group = Step("mount", args, why, tolerate=(errno.EINVAL,), skip_on_success=1)
    return [with_group, _mount("devpts", target, "devpts", flags, options, why=why)]


@kept
def cgroups(target: str, *, v1: tuple[str, ...], writable: bool = False, unified: bool = False) -> list[Step]:
    """Mount the part of the cgroup tree that the caller's cgroup namespace shows, read-only unless ``writable``.

    On cgroup v2 that is one tree; of v1 each hierarchy in ``v1`` is mounted in a folder of its own, and with ``unified`` the tree of
    v2 beside them.
    """
    flags = _SAFE if writable else _SAFE | MountFlag.RDONLY
    if not v1:
        return [_mount("cgroup2", target, "cgroup2", flags, None, why=f"mount cgroup2 at {target}")]
    steps = tmpfs(target, flags=_SAFE, data="size=1m,mode=755")
    for name in v1:
        folder = f"{target}/{name.removeprefix('name=')}"
        steps += make_folders(folder)[-1:]
        steps.append(_mount("cgroup", folder, "cgroup", flags, name, why=f"mount cgroup at {folder}"))
    if unified:
        steps += make_folders(f"{target}/unified")[-1:]
        steps.append(_mount("cgroup2", f"{target}/unified", "cgroup2", flags, None, why="mount cgroup2 beside v1"))
    return [*steps, _set_attributes(target, MountAttr.RDONLY)]


@kept
def readonly(path: str) -> list[Step]:
    """Make the tree at ``path``, if there is one, read-only by a bind mount onto itself."""
    flags = MountFlag.BIND | MountFlag.REC
    onto_itself = Step("mount", (path, path, None, flags, None), f"make {path} read-only", tolerate=_MISSING)
    # mount_setattr keeps nosuid, nodev and noexec, which a user namespace may not clear; MS_REMOUNT would have to repeat them.
    return [onto_itself, _set_attributes(path, MountAttr.RDONLY, recursive=True, tolerate=_MISSING)]


@kept
def readonly_root() -> list[Step]:
    """Make the root mount itself read-only; what is mounted below it (/dev, /proc, volumes) stays as it is."""
    return [_set_attributes("/", MountAttr.RDONLY)]


@kept
def mask(path: str, *, empty: str | None = None) -> list[Step]:
    """Hide ``path``: a file behind /dev/null, a folder behind an empty read-only one; what this machine lacks is left out.

    Which of them it is, the caller's own /proc or /sys tells: they come from the same kernel. ``empty`` is an empty
    folder to use; a bind mount of one that is there costs the kernel a quarter of a new tmpfs.
    """
    try:
        is_folder = stat.S_ISDIR(os.stat(path).st_mode)
    except OSError:
        return []
    why = f"mask {path}"
    if not is_folder:
        # A container without /proc or /sys has nothing to hide.
        return [Step("mount", ("/dev/null", path, None, MountFlag.BIND, None), why, tolerate=_MISSING)]
    if empty is None:
        args = ("labkit-masked", path, "tmpfs", _SAFE | MountFlag.RDONLY, "size=0")
        return [Step("mount", args, why, tolerate=_MISSING)]
    bound = Step("mount", (empty, path, None, MountFlag.BIND, None), why, tolerate=_MISSING)
    safe = MountAttr.RDONLY | MountAttr.NOSUID | MountAttr.NODEV | MountAttr.NOEXEC
    return [bound, _set_attributes(path, safe, tolerate=_MISSING)]


@kept
def pivot_into(new_root: str) -> list[Step]:
    """Make the mount at ``new_root`` the root, and leave the caller standing in the old one, which is still there.

    From here on absolute paths, and every symbolic link on them, stay inside the new root, while relative paths
    still reach the old one. `let_go_of_old_root` must follow. Refused with EINVAL if ``new_root`` is no mount point.
    """
    return [
        Step("chdir", (new_root,), f"enter {new_root}"),
        # "." twice stacks the old root on top of the new one, so no folder is needed for it (pivot_root(2), NOTES).
        Step("pivot_root", (".", "."), "pivot_root"),
        # The working directory went along to the new root; the mount on top of it is the old one.
        Step("chdir", ("..",), "stand in the old root"),
    ]


@kept
def let_go_of_old_root() -> list[Step]:
    """Detach the old root and everything mounted below it, and step into the new one."""
    return [
        Step("umount2", (".", Umount.DETACH), "let go of the old root"),
        Step("chdir", ("/",), "step into the new root"),
    ]


def _mount(
    source: str | None, target: str, fstype: str | None, flags: MountFlag, data: str | None, *, why: str
) -> Step:
    return Step("mount", (source, target, fstype, flags, data), why)


def _set_attributes(
    path: str, attributes: MountAttr, *, recursive: bool = False, tolerate: tuple[int, ...] = ()
) -> Step:
    # ABI: struct mount_attr, linux/mount.h.
    attr = struct.pack("<4Q", int(attributes), 0, 0, 0)
    flags = AtFlag.RECURSIVE if recursive else 0
    return Step(
        "mount_setattr", (AT_FDCWD, path, flags, attr, len(attr)), f"set {attributes.name} on {path}", tolerate=tolerate
    )


def _demonstrate() -> None:
    stage = "/tmp/labkit-root"  # on a tmpfs that only this mount namespace has
    steps = private() + tmpfs("/tmp") + make_folders(stage) + tmpfs(stage)
    steps += make_folders(f"{stage}/proc") + pivot_into(stage) + proc("/proc") + let_go_of_old_root()
    for step in steps:
        print(f"{step!s:<72} # {step.why}")
        perform([step])
    print("/ holds", os.listdir("/"), "and the mounts are")
    with open("/proc/self/mountinfo") as file:
        print(*(f"  {line.split()[4]:<8} {line.split(' - ')[1].split()[0]}" for line in file), sep="\n")


def main() -> int:
    """Build a root of a tmpfs and a /proc in a child, step by step, and let the old one go."""
    from labkit.isolation.demonstration import in_child

    return in_child(_demonstrate, NS.MNT | NS.PID)


if __name__ == "__main__":
    raise SystemExit(main())

"""System calls that ``os`` does not offer, each one checked and raised as `OSError`.

One ``CDLL`` with ``use_errno``; every function has its argument types declared, because ctypes otherwise
passes pointers and 64-bit lengths as C ``int``. Calls without a glibc wrapper go through syscall(2) by number.

Leaves out: 32-bit machines, whose numbers and widths differ.
See: syscall(2), syscalls(2), and the page named at each function.
"""

from __future__ import annotations

import ctypes
import errno
import os
from ctypes import c_char_p, c_int, c_long, c_size_t, c_uint, c_uint64, c_ulong, c_void_p

from labkit.linux.constants import (
    AtFlag,
    CloneFlag,
    FsConfigCmd,
    MountAttr,
    MountFlag,
    MoveMountFlag,
    NS,
    OpenTreeFlag,
    Prctl,
    Umount,
)

__all__ = [
    "capget",
    "capset",
    "clone3",
    "fsconfig",
    "fsmount",
    "fsopen",
    "mount",
    "mount_setattr",
    "move_mount",
    "open_in_root",
    "open_tree",
    "pivot_root",
    "prctl",
    "seccomp_set_filter",
    "setns",
    "umount2",
    "unshare",
]

AT_FDCWD = -100

# clone3(2) and its followers have the same number on every machine since Linux 5.0; the older ones do not.
_CLONE3, _OPEN_TREE, _MOVE_MOUNT, _FSOPEN, _FSCONFIG, _FSMOUNT, _MOUNT_SETATTR = 435, 428, 429, 430, 431, 432, 442
_OPENAT2 = 437
_PIVOT_ROOT_AND_SECCOMP = {"x86_64": (155, 317), "aarch64": (41, 277), "riscv64": (41, 277)}

_libc = ctypes.CDLL(None, use_errno=True)
# PyDLL keeps the interpreter lock across the call: the child of a clone must not have to take a lock
# whose holder exists only in the parent.
_libc_locked = ctypes.PyDLL(None, use_errno=True)


def _declare(name: str, *argtypes: type) -> ctypes._NamedFuncPointer:
    function = _libc[name]
    function.argtypes, function.restype = argtypes, c_int
    return function


_unshare = _declare("unshare", c_int)
_setns = _declare("setns", c_int, c_int)
_mount = _declare("mount", c_char_p, c_char_p, c_char_p, c_ulong, c_char_p)
_umount2 = _declare("umount2", c_char_p, c_int)
_prctl = _declare("prctl", c_int, c_ulong, c_ulong, c_ulong, c_ulong)
_capget = _declare("capget", c_void_p, c_void_p)
_capset = _declare("capset", c_void_p, c_void_p)


def _check(result: int, call: str, path: str | None = None) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{call}: {os.strerror(number)}", path)
    return result


def _declare_syscall(*argtypes: type, library: ctypes.CDLL = _libc) -> ctypes._NamedFuncPointer:
    # Indexing gives a fresh function object each time, so every caller has argument types of its own.
    # ABI: syscall(2) takes and returns longs.
    function = library["syscall"]
    function.argtypes, function.restype = (c_long, *argtypes), c_long
    return function


def _machine_numbers() -> tuple[int, int]:
    machine = os.uname().machine
    if machine not in _PIVOT_ROOT_AND_SECCOMP:
        raise OSError(errno.ENOSYS, f"labkit does not know the system call numbers of {machine}")
    return _PIVOT_ROOT_AND_SECCOMP[machine]


class CloneArgs(ctypes.Structure):
    # ABI: struct clone_args, linux/sched.h; every field is 64 bits and 8-byte aligned.
    _fields_ = [
        (name, c_uint64)
        for name in (
            "flags", "pidfd", "child_tid", "parent_tid", "exit_signal", "stack", "stack_size", "tls",
            "set_tid", "set_tid_size", "cgroup",
        )
    ]  # fmt: skip

    @classmethod
    def make(cls, flags: int, *, pidfd_address: int, exit_signal: int, cgroup_fd: int = -1) -> CloneArgs:
        """Return arguments that ask for a pidfd (written to ``pidfd_address``) and, with ``cgroup_fd``, a birth in that cgroup."""
        args = cls(flags=flags | CloneFlag.PIDFD, pidfd=pidfd_address, exit_signal=exit_signal)
        if cgroup_fd >= 0:
            args.flags |= CloneFlag.INTO_CGROUP
            args.cgroup = cgroup_fd
        return args


_clone3 = _declare_syscall(c_void_p, c_size_t, library=_libc_locked)
_pivot_root = _declare_syscall(c_char_p, c_char_p)
_open_tree = _declare_syscall(c_int, c_char_p, c_uint)
_move_mount = _declare_syscall(c_int, c_char_p, c_int, c_char_p, c_uint)
_openat2 = _declare_syscall(c_int, c_char_p, c_void_p, c_size_t)
_mount_setattr = _declare_syscall(c_int, c_char_p, c_uint, c_void_p, c_size_t)
_fsopen = _declare_syscall(c_char_p, c_uint)
_fsconfig = _declare_syscall(c_int, c_uint, c_char_p, c_char_p, c_int)
_fsmount = _declare_syscall(c_int, c_uint, c_uint)
_seccomp = _declare_syscall(c_uint, c_uint, c_void_p)


def clone3(flags: int, *, exit_signal: int, cgroup_fd: int = -1) -> tuple[int, int]:
    """Create a child like fork(2), in the new namespaces that ``flags`` name; return ``(pid, pidfd)``.

    In the child the result is ``(0, -1)``. ``pid`` is seen from the caller's PID namespace. With ``cgroup_fd``
    (a cgroup v2 folder) the child is born in that cgroup. The caller must have one thread: only the calling
    thread exists in the child, and locks held by others would stay locked.

    Raises: OSError with EPERM (no CAP_SYS_ADMIN and no NS.USER), ENOSPC (``max_user_namespaces`` reached),
    ENOSYS (a seccomp filter hides the call, or Linux before 5.3), EINVAL for contradicting flags.
    See: clone(2).
    """
    pidfd = c_int(-1)
    args = CloneArgs.make(flags, pidfd_address=ctypes.addressof(pidfd), exit_signal=exit_signal, cgroup_fd=cgroup_fd)
    pid = _clone3(_CLONE3, ctypes.addressof(args), ctypes.sizeof(args))
    if pid < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"clone3({NS(flags & 0x7E020080)!r}): {os.strerror(number)}")
    return pid, pidfd.value


def unshare(flags: NS) -> None:
    """Move the caller into new namespaces (PID and time: its future children). See: unshare(2).

    Raises: OSError with EINVAL for NS.USER from a process with several threads, EPERM, ENOSPC.
    """
    _check(_unshare(ctypes.c_int(flags).value), f"unshare({flags!r})")


def setns(fd: int, flags: NS) -> None:
    """Move the caller into the namespace that ``fd`` refers to (or, with a pidfd, into all named by ``flags``).

    Raises: OSError with EPERM without CAP_SYS_ADMIN in the target's user namespace, EINVAL on a wrong kind.
    See: setns(2).
    """
    _check(_setns(fd, ctypes.c_int(flags).value), f"setns({flags!r})")


def mount(source: str | None, target: str, fstype: str | None, flags: MountFlag, data: str | None = None) -> None:
    """Attach a file system or change a mount at ``target``; ``data`` holds the options of the file system.

    Raises: OSError with EPERM without CAP_SYS_ADMIN in the mount namespace's owner, EBUSY, EINVAL, ENODEV.
    See: mount(2).
    """
    args = [None if text is None else os.fsencode(text) for text in (source, target, fstype)]
    result = _mount(*args, int(flags), None if data is None else os.fsencode(data))
    _check(result, f"mount({source!r}, {target!r}, {fstype!r}, {flags!r}, {data!r})", target)


def umount2(target: str, flags: Umount) -> None:
    """Detach the mount at ``target``. Raises: OSError with EINVAL if none is there, EBUSY without DETACH. See: umount(2)."""
    _check(_umount2(os.fsencode(target), int(flags)), f"umount2({target!r}, {flags!r})", target)


def pivot_root(new_root: str, old_root: str) -> None:
    """Make ``new_root`` the root mount of this mount namespace; keep the old one at ``old_root``.

    Raises: OSError with EINVAL if ``new_root`` is no mount point or a mount is shared, EBUSY if it is on the
    current root mount, EPERM without CAP_SYS_ADMIN.
    See: pivot_root(2), mount_namespaces(7).
    """
    result = _pivot_root(_machine_numbers()[0], os.fsencode(new_root), os.fsencode(old_root))
    _check(result, f"pivot_root({new_root!r}, {old_root!r})", new_root)


def prctl(operation: Prctl, arg2: int = 0, arg3: int = 0, arg4: int = 0, arg5: int = 0) -> int:
    """Run one operation on the calling process. Raises: OSError (EINVAL, EPERM). See: prctl(2)."""
    return _check(_prctl(int(operation), arg2, arg3, arg4, arg5), f"prctl({operation.name}, {arg2})")


def open_tree(dir_fd: int, path: str, flags: int) -> int:
    """Return a descriptor of the mount at ``path``; with OpenTreeFlag.CLONE a detached copy of it (a bind mount
    that is nowhere yet). Raises: OSError (EPERM, ENOENT). See: open_tree(2)."""
    return _check(_open_tree(_OPEN_TREE, dir_fd, os.fsencode(path), flags), f"open_tree({path!r})", path)


def move_mount(from_fd: int, to_path: str, *, to_dir_fd: int = AT_FDCWD) -> None:
    """Attach the detached mount ``from_fd`` at ``to_path``. Raises: OSError (EPERM, ENOENT, EINVAL). See: move_mount(2)."""
    result = _move_mount(_MOVE_MOUNT, from_fd, b"", to_dir_fd, os.fsencode(to_path), int(MoveMountFlag.F_EMPTY_PATH))
    _check(result, f"move_mount(fd {from_fd}, {to_path!r})", to_path)


class _MountAttrArgs(ctypes.Structure):
    # ABI: struct mount_attr, linux/mount.h.
    _fields_ = [(name, c_uint64) for name in ("attr_set", "attr_clr", "propagation", "userns_fd")]


def open_in_root(root_fd: int, path: str, flags: int) -> int:
    """Open ``path`` as if the folder ``root_fd`` were ``/``: neither ``..`` nor a symbolic link leads out of it.

    Raises: OSError (ENOENT, ELOOP, ENOSYS before Linux 5.6). See: openat2(2) (RESOLVE_IN_ROOT).
    """
    # ABI: struct open_how, linux/openat2.h.
    how = (c_uint64 * 3)(flags | os.O_CLOEXEC, 0, 0x10)
    result = _openat2(_OPENAT2, root_fd, os.fsencode(path), ctypes.addressof(how), ctypes.sizeof(how))
    return _check(result, f"openat2({path!r}, RESOLVE_IN_ROOT)", path)


def mount_setattr(
    dir_fd: int, path: str, *, set_attrs: MountAttr = MountAttr(0), clear_attrs: MountAttr = MountAttr(0),
    propagation: MountFlag = MountFlag(0), userns_fd: int = -1, recursive: bool = False,
) -> None:  # fmt: skip
    """Change attributes of the mount at ``path`` (``""``: of ``dir_fd`` itself), in one step and race-free.

    MountAttr.IDMAP with ``userns_fd`` makes an ID-mapped mount: the ids stored on disk are translated through
    that user namespace. Raises: OSError with EINVAL if the file system cannot be ID-mapped, EPERM.
    See: mount_setattr(2).
    """
    args = _MountAttrArgs(int(set_attrs), int(clear_attrs), int(propagation), max(userns_fd, 0))
    flags = (AtFlag.EMPTY_PATH if not path else 0) | (AtFlag.RECURSIVE if recursive else 0)
    result = _mount_setattr(_MOUNT_SETATTR, dir_fd, os.fsencode(path), flags, ctypes.addressof(args), ctypes.sizeof(args))
    _check(result, f"mount_setattr({path!r}, set {set_attrs!r}, clear {clear_attrs!r})", path or None)


def fsopen(fstype: str) -> int:
    """Begin to set up a file system of type ``fstype``; return its context. Raises: OSError (ENODEV, EPERM). See: fsopen(2)."""
    return _check(_fsopen(_FSOPEN, os.fsencode(fstype), 1), f"fsopen({fstype!r})")


def fsconfig(fs_fd: int, command: FsConfigCmd, key: str | None = None, value: str | None = None, aux: int = 0) -> None:
    """Set one option of the context ``fs_fd``, or create the file system. Raises: OSError (EINVAL, EPERM). See: fsconfig(2)."""
    args = [None if text is None else os.fsencode(text) for text in (key, value)]
    _check(_fsconfig(_FSCONFIG, fs_fd, int(command), *args, aux), f"fsconfig({command.name}, {key!r}, {value!r})")


def fsmount(fs_fd: int, attrs: MountAttr = MountAttr(0)) -> int:
    """Return a descriptor of a detached mount of the created file system ``fs_fd``. Raises: OSError. See: fsmount(2)."""
    return _check(_fsmount(_FSMOUNT, fs_fd, 1, int(attrs)), f"fsmount({attrs!r})")


class _CapHeader(ctypes.Structure):
    # ABI: struct __user_cap_header_struct, linux/capability.h; version 3 takes two data elements.
    _fields_ = [("version", c_uint), ("pid", c_int)]


class _CapData(ctypes.Structure):
    _fields_ = [("effective", c_uint), ("permitted", c_uint), ("inheritable", c_uint)]


_CAPABILITY_VERSION_3 = 0x2008_0522


def capget() -> tuple[int, int, int]:
    """Return the caller's effective, permitted and inheritable sets as bit masks. See: capget(2)."""
    header, data = _CapHeader(_CAPABILITY_VERSION_3, 0), (_CapData * 2)()
    _check(_capget(ctypes.addressof(header), ctypes.addressof(data)), "capget")
    low, high = data
    return (
        low.effective | high.effective << 32,
        low.permitted | high.permitted << 32,
        low.inheritable | high.inheritable << 32,
    )


def capset(*, effective: int, permitted: int, inheritable: int) -> None:
    """Set the caller's capability sets from bit masks. Raises: OSError with EPERM when one would grow. See: capset(2)."""
    header, data = _CapHeader(_CAPABILITY_VERSION_3, 0), (_CapData * 2)()
    for i in (0, 1):
        shift = 32 * i
        data[i] = _CapData(*((mask >> shift) & 0xFFFF_FFFF for mask in (effective, permitted, inheritable)))
    _check(_capset(ctypes.addressof(header), ctypes.addressof(data)), "capset")


class _SockFprog(ctypes.Structure):
    # ABI: struct sock_fprog, linux/filter.h; ctypes inserts the padding before the pointer.
    _fields_ = [("len", ctypes.c_ushort), ("filter", c_void_p)]


def seccomp_set_filter(program: bytes) -> None:
    """Load a compiled BPF ``program`` (8 bytes an instruction) as the caller's seccomp filter; it cannot be removed.

    Raises: OSError with EACCES without no_new_privs and CAP_SYS_ADMIN, EINVAL for a program the kernel refuses.
    See: seccomp(2).
    """
    buffer = ctypes.create_string_buffer(program, len(program))
    fprog = _SockFprog(len(program) // 8, ctypes.addressof(buffer))
    _check(_seccomp(_machine_numbers()[1], 1, 0, ctypes.addressof(fprog)), "seccomp(SECCOMP_SET_MODE_FILTER)")

"""System calls that ``os`` does not offer, each one checked and raised as `OSError`.

One ``CDLL`` with ``use_errno``; every function has its argument types declared, because ctypes otherwise
passes pointers and 64-bit lengths as C ``int``. Calls without a glibc wrapper go through syscall(2) by number.
With logging at DEBUG each call gives one line, much as strace(1) would show it.

Leaves out: 32-bit machines, whose numbers and widths differ.
See: syscall(2), syscalls(2), and the page named at each function.
"""

from __future__ import annotations

import ctypes
import errno
import logging
import os
from ctypes import c_char_p, c_int, c_long, c_size_t, c_uint, c_uint64, c_ulong, c_void_p
from enum import IntEnum, IntFlag

from labkit.linux.constants import (
    NS,
    AtFlag,
    AtFolder,
    CloneFlag,
    FsConfigCmd,
    MountAttr,
    MountFlag,
    MoveMountFlag,
    OpenTreeFlag,
    Prctl,
    Umount,
)

__all__ = [
    "AT_FDCWD",
    "CloneArgs",
    "capget",
    "capset",
    "clone3",
    "fsconfig",
    "fsmount",
    "fsopen",
    "mount",
    "mount_setattr",
    "move_mount",
    "open_beneath",
    "open_in_root",
    "open_tree",
    "pivot_root",
    "prctl",
    "seccomp_set_filter",
    "setns",
    "umount2",
    "unshare",
]

log = logging.getLogger(__name__)

#: In place of a folder's descriptor: paths are relative to the working folder. linux/fcntl.h
AT_FDCWD = AtFolder.AT_FDCWD

_NAMESPACES, _AT_FLAGS = int(sum(NS)), int(sum(AtFlag))

# clone3(2) and its followers have the same number on every machine since Linux 5.0; the older ones do not.
_CLONE3, _OPEN_TREE, _MOVE_MOUNT, _FSOPEN, _FSCONFIG, _FSMOUNT, _MOUNT_SETATTR = 435, 428, 429, 430, 431, 432, 442
_FSOPEN_CLOEXEC = _FSMOUNT_CLOEXEC = 1
_OPENAT2, _RESOLVE_IN_ROOT = 437, 0x10
_RESOLVE_BENEATH, _RESOLVE_NO_MAGICLINKS = 0x08, 0x02
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


def _check(result: int, call: str, *args: object, path: str | None = None) -> int:
    """Return ``result``, or raise what the kernel answered; ``call`` and ``args`` are what a person would write.

    An argument that takes time to put together is given as a function: it is called only when somebody reads the line.
    """
    number = ctypes.get_errno() if result < 0 else 0
    if log.isEnabledFor(logging.DEBUG):
        log.debug("%s = %d", _text_of(call, args), -number or result)
    if result < 0:
        raise OSError(number, f"{_text_of(call, args)}: {os.strerror(number)}", path)
    return result


def _text_of(call: str, args: tuple[object, ...]) -> str:
    return f"{call}({', '.join(map(_word_of, args))})"


def _word_of(arg: object) -> str:
    if callable(arg):
        arg = arg()
    if isinstance(arg, IntFlag):
        known = [f"{type(arg).__name__}.{flag.name}" for flag in type(arg) if flag in arg]
        rest = int(arg) & ~sum(type(arg))
        return "|".join([*known, *([f"{rest:#x}"] if rest else [])]) or "0"
    return str(arg.name) if isinstance(arg, IntEnum) else repr(arg)


def _c_string(text: str | None) -> bytes | None:
    """Return ``text`` as C takes it. Raises: ValueError for a NUL, at which C would end it without a word, as ``os`` does."""
    if text is None:
        return None
    data = os.fsencode(text)
    if b"\0" in data:
        raise ValueError(f"embedded null byte in {text!r}")
    return data


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
    """What clone3(2) is asked for."""

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
    if pid != 0:  # the child has nothing to check, and no business in the parent's log
        _check(pid, "clone3", lambda: NS(flags & _NAMESPACES), lambda: CloneFlag(flags & ~_NAMESPACES))
    return pid, pidfd.value


def unshare(flags: NS) -> None:
    """Move the caller into new namespaces (PID and time: its future children). See: unshare(2).

    Raises: OSError with EINVAL for NS.USER from a process with several threads, EPERM, ENOSPC.
    """
    _check(_unshare(ctypes.c_int(flags).value), "unshare", flags)


def setns(fd: int, flags: NS) -> None:
    """Move the caller into the namespace that ``fd`` refers to (or, with a pidfd, into all named by ``flags``).

    Raises: OSError with EPERM without CAP_SYS_ADMIN in the target's user namespace, EINVAL on a wrong kind.
    See: setns(2).
    """
    _check(_setns(fd, ctypes.c_int(flags).value), "setns", fd, flags)


def mount(source: str | None, target: str, fstype: str | None, flags: MountFlag, data: str | None = None) -> None:
    """Attach a file system or change a mount at ``target``; ``data`` holds the options of the file system.

    Raises: OSError with EPERM without CAP_SYS_ADMIN in the mount namespace's owner, EBUSY, EINVAL, ENODEV.
    See: mount(2).
    """
    result = _mount(_c_string(source), _c_string(target), _c_string(fstype), int(flags), _c_string(data))
    _check(result, "mount", source, target, fstype, flags, data, path=target)


def umount2(target: str, flags: Umount) -> None:
    """Detach the mount at ``target``. Raises: OSError with EINVAL if none is there, EBUSY without DETACH. See: umount(2)."""
    _check(_umount2(_c_string(target), int(flags)), "umount2", target, flags, path=target)


def pivot_root(new_root: str, old_root: str) -> None:
    """Make ``new_root`` the root mount of this mount namespace; keep the old one at ``old_root``.

    Raises: OSError with EINVAL if ``new_root`` is no mount point or a mount is shared, EBUSY if it is on the
    current root mount, EPERM without CAP_SYS_ADMIN.
    See: pivot_root(2), mount_namespaces(7).
    """
    result = _pivot_root(_machine_numbers()[0], _c_string(new_root), _c_string(old_root))
    _check(result, "pivot_root", new_root, old_root, path=new_root)


def prctl(operation: Prctl, arg2: int = 0, arg3: int = 0, arg4: int = 0, arg5: int = 0) -> int:
    """Run one operation on the calling process. Raises: OSError (EINVAL, EPERM). See: prctl(2)."""
    return _check(_prctl(int(operation), arg2, arg3, arg4, arg5), "prctl", operation, arg2, arg3, arg4, arg5)


def open_tree(dir_fd: int, path: str, flags: int) -> int:
    """Return a descriptor of the mount at ``path``; ``flags`` are OpenTreeFlag and AtFlag together.

    With OpenTreeFlag.CLONE it is a detached copy: a bind mount that is nowhere yet.
    Raises: OSError (EPERM, ENOENT). See: open_tree(2).
    """
    result = _open_tree(_OPEN_TREE, dir_fd, _c_string(path), flags)
    words = (lambda: OpenTreeFlag(flags & ~_AT_FLAGS), lambda: AtFlag(flags & _AT_FLAGS))
    return _check(result, "open_tree", dir_fd, path, *words, path=path)


def move_mount(from_fd: int, to_path: str, *, to_dir_fd: int = AT_FDCWD) -> None:
    """Attach the detached mount ``from_fd`` at ``to_path``. Raises: OSError (EPERM, ENOENT, EINVAL). See: move_mount(2)."""
    flags = MoveMountFlag.F_EMPTY_PATH
    result = _move_mount(_MOVE_MOUNT, from_fd, b"", to_dir_fd, _c_string(to_path), int(flags))
    _check(result, "move_mount", from_fd, "", to_dir_fd, to_path, flags, path=to_path)


def open_in_root(root_fd: int, path: str, flags: int) -> int:
    """Open ``path`` as if the folder ``root_fd`` were ``/``: neither ``..`` nor a symbolic link leads out of it.

    Raises: OSError (ENOENT, ELOOP, ENOSYS before Linux 5.6). See: openat2(2) (RESOLVE_IN_ROOT).
    """
    # ABI: struct open_how (flags, mode, resolve), linux/openat2.h.
    how = (c_uint64 * 3)(flags | os.O_CLOEXEC, 0, _RESOLVE_IN_ROOT)
    result = _openat2(_OPENAT2, root_fd, _c_string(path), ctypes.addressof(how), ctypes.sizeof(how))
    return _check(result, "openat2", root_fd, path, flags, path=path)


def open_beneath(dir_fd: int, path: str, flags: int, *, mode: int = 0) -> int:
    """Open ``path`` below the folder ``dir_fd``; whatever leads out of it is refused: ``..``, a symbolic link, ``/proc/PID/root``.

    Raises: OSError (EXDEV for a way out, EAGAIN when a folder of the path was renamed meanwhile). See: openat2(2) (RESOLVE_BENEATH).
    """
    how = (c_uint64 * 3)(flags | os.O_CLOEXEC, mode, _RESOLVE_BENEATH | _RESOLVE_NO_MAGICLINKS)
    result = _openat2(_OPENAT2, dir_fd, _c_string(path), ctypes.addressof(how), ctypes.sizeof(how))
    return _check(result, "openat2", dir_fd, path, flags, path=path)


_SETATTR_FLAGS = {
    (empty, recursive): AtFlag(AtFlag.EMPTY_PATH * empty | AtFlag.RECURSIVE * recursive)
    for empty in (False, True)
    for recursive in (False, True)
}


class _MountAttrArgs(ctypes.Structure):
    # ABI: struct mount_attr, linux/mount.h.
    _fields_ = [(name, c_uint64) for name in ("attr_set", "attr_clr", "propagation", "userns_fd")]


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
    flags = _SETATTR_FLAGS[not path, recursive]
    result = _mount_setattr(
        _MOUNT_SETATTR, dir_fd, _c_string(path), int(flags), ctypes.addressof(args), ctypes.sizeof(args)
    )
    _check(
        result, "mount_setattr", dir_fd, path, flags, set_attrs, clear_attrs, propagation, userns_fd, path=path or None
    )


def fsopen(fstype: str) -> int:
    """Begin to set up a file system of type ``fstype``; return its context. Raises: OSError (ENODEV, EPERM). See: fsopen(2)."""
    return _check(_fsopen(_FSOPEN, _c_string(fstype), _FSOPEN_CLOEXEC), "fsopen", fstype)


def fsconfig(fs_fd: int, command: FsConfigCmd, key: str | None = None, value: str | None = None, aux: int = 0) -> None:
    """Set one option of the context ``fs_fd``, or create the file system. Raises: OSError (EINVAL, EPERM). See: fsconfig(2)."""
    result = _fsconfig(_FSCONFIG, fs_fd, int(command), _c_string(key), _c_string(value), aux)
    _check(result, "fsconfig", fs_fd, command, key, value, aux)


def fsmount(fs_fd: int, attrs: MountAttr = MountAttr(0)) -> int:
    """Return a descriptor of a detached mount of the created file system ``fs_fd``. Raises: OSError. See: fsmount(2)."""
    return _check(_fsmount(_FSMOUNT, fs_fd, _FSMOUNT_CLOEXEC, int(attrs)), "fsmount", fs_fd, attrs)


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
    _check(
        _capset(ctypes.addressof(header), ctypes.addressof(data)),
        "capset",
        *map(hex, (effective, permitted, inheritable)),
    )


_SECCOMP_SET_MODE_FILTER, _BPF_MAX_INSTRUCTIONS = 1, 4096  # linux/seccomp.h, linux/bpf_common.h


class _SockFprog(ctypes.Structure):
    # ABI: struct sock_fprog, linux/filter.h; ctypes inserts the padding before the pointer.
    _fields_ = [("len", ctypes.c_ushort), ("filter", c_void_p)]


def seccomp_set_filter(program: bytes) -> None:
    """Load a compiled BPF ``program`` (8 bytes an instruction) as the caller's seccomp filter; it cannot be removed.

    Raises: OSError with EACCES without no_new_privs and CAP_SYS_ADMIN, EINVAL for a program the kernel refuses.
    See: seccomp(2).
    """
    # The kernel sees only a 16-bit count of instructions: a longer program would be cut, not refused.
    if len(program) % 8 or len(program) > 8 * _BPF_MAX_INSTRUCTIONS:
        raise OSError(errno.EINVAL, f"seccomp: a filter of {len(program)} bytes is no list of up to 4096 instructions")
    buffer = ctypes.create_string_buffer(program, len(program))
    fprog = _SockFprog(len(program) // 8, ctypes.addressof(buffer))
    result = _seccomp(_machine_numbers()[1], _SECCOMP_SET_MODE_FILTER, 0, ctypes.addressof(fprog))
    _check(result, "seccomp", "SECCOMP_SET_MODE_FILTER", 0, f"{fprog.len} instructions")

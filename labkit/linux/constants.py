"""Numbers that the kernel's headers give names to, with the header they come from.

Leaves out: every flag that no lesson and no part of labkit uses.
See: the man page named at each class.
"""

from __future__ import annotations

from enum import IntEnum, IntFlag

__all__ = [
    "NS",
    "NS_FILES",
    "AtFlag",
    "AtFolder",
    "Capability",
    "CloneFlag",
    "FsConfigCmd",
    "MountAttr",
    "MountFlag",
    "MoveMountFlag",
    "OpenTreeFlag",
    "Prctl",
    "Umount",
]


class NS(IntFlag):
    """The eight kinds of Linux namespace (namespaces(7)); linux/sched.h."""

    MNT = 0x0002_0000
    CGROUP = 0x0200_0000
    UTS = 0x0400_0000
    IPC = 0x0800_0000
    USER = 0x1000_0000
    PID = 0x2000_0000
    NET = 0x4000_0000
    TIME = 0x0000_0080


#: The name under which each kind shows in ``/proc/PID/ns``.
NS_FILES: dict[NS, str] = {
    NS.USER: "user",
    NS.MNT: "mnt",
    NS.PID: "pid",
    NS.NET: "net",
    NS.IPC: "ipc",
    NS.UTS: "uts",
    NS.CGROUP: "cgroup",
    NS.TIME: "time",
}


class CloneFlag(IntFlag):
    """Further flags of clone3(2); linux/sched.h. The namespace kinds are in `NS`."""

    VM = 0x0000_0100
    FILES = 0x0000_0400
    PIDFD = 0x0000_1000
    VFORK = 0x0000_4000
    PARENT = 0x0000_8000
    CLEAR_SIGHAND = 0x1_0000_0000
    INTO_CGROUP = 0x2_0000_0000


class MountFlag(IntFlag):
    """Flags of mount(2); linux/mount.h."""

    RDONLY = 1
    NOSUID = 2
    NODEV = 4
    NOEXEC = 8
    REMOUNT = 32
    NOSYMFOLLOW = 256
    NOATIME = 1024
    BIND = 4096
    MOVE = 8192
    REC = 16384
    UNBINDABLE = 1 << 17
    PRIVATE = 1 << 18
    SLAVE = 1 << 19
    SHARED = 1 << 20
    RELATIME = 1 << 21


class Umount(IntFlag):
    """Flags of umount2(2); sys/mount.h."""

    FORCE = 1
    DETACH = 2
    NOFOLLOW = 8


class AtFolder(IntEnum):
    """What stands for a folder's descriptor: paths are relative to the working directory; linux/fcntl.h."""

    AT_FDCWD = -100


class AtFlag(IntFlag):
    """AT_* flags; linux/fcntl.h."""

    SYMLINK_NOFOLLOW = 0x100
    EMPTY_PATH = 0x1000
    RECURSIVE = 0x8000


class OpenTreeFlag(IntFlag):
    """Flags of open_tree(2); linux/mount.h."""

    CLONE = 1
    CLOEXEC = 0x80000


class MoveMountFlag(IntFlag):
    """Flags of move_mount(2); linux/mount.h."""

    F_EMPTY_PATH = 0x4
    T_EMPTY_PATH = 0x40


class MountAttr(IntFlag):
    """Attributes of mount_setattr(2) and fsmount(2); linux/mount.h."""

    RDONLY = 0x1
    NOSUID = 0x2
    NODEV = 0x4
    NOEXEC = 0x8
    IDMAP = 0x0010_0000


class FsConfigCmd(IntEnum):
    """Commands of fsconfig(2); linux/mount.h."""

    SET_FLAG = 0
    SET_STRING = 1
    SET_FD = 5
    CREATE = 6


class Prctl(IntEnum):
    """Operations of prctl(2); linux/prctl.h."""

    SET_PDEATHSIG = 1
    GET_DUMPABLE = 3
    SET_DUMPABLE = 4
    SET_KEEPCAPS = 8
    SET_NAME = 15
    GET_SECCOMP = 21
    CAPBSET_READ = 23
    CAPBSET_DROP = 24
    SET_SECUREBITS = 28
    SET_CHILD_SUBREAPER = 36
    SET_NO_NEW_PRIVS = 38
    GET_NO_NEW_PRIVS = 39
    CAP_AMBIENT = 47


class Capability(IntEnum):
    """Capabilities and their bit numbers (capabilities(7)); linux/capability.h."""

    CAP_CHOWN = 0
    CAP_DAC_OVERRIDE = 1
    CAP_DAC_READ_SEARCH = 2
    CAP_FOWNER = 3
    CAP_FSETID = 4
    CAP_KILL = 5
    CAP_SETGID = 6
    CAP_SETUID = 7
    CAP_SETPCAP = 8
    CAP_LINUX_IMMUTABLE = 9
    CAP_NET_BIND_SERVICE = 10
    CAP_NET_BROADCAST = 11
    CAP_NET_ADMIN = 12
    CAP_NET_RAW = 13
    CAP_IPC_LOCK = 14
    CAP_IPC_OWNER = 15
    CAP_SYS_MODULE = 16
    CAP_SYS_RAWIO = 17
    CAP_SYS_CHROOT = 18
    CAP_SYS_PTRACE = 19
    CAP_SYS_PACCT = 20
    CAP_SYS_ADMIN = 21
    CAP_SYS_BOOT = 22
    CAP_SYS_NICE = 23
    CAP_SYS_RESOURCE = 24
    CAP_SYS_TIME = 25
    CAP_SYS_TTY_CONFIG = 26
    CAP_MKNOD = 27
    CAP_LEASE = 28
    CAP_AUDIT_WRITE = 29
    CAP_AUDIT_CONTROL = 30
    CAP_SETFCAP = 31
    CAP_MAC_OVERRIDE = 32
    CAP_MAC_ADMIN = 33
    CAP_SYSLOG = 34
    CAP_WAKE_ALARM = 35
    CAP_BLOCK_SUSPEND = 36
    CAP_AUDIT_READ = 37
    CAP_PERFMON = 38
    CAP_BPF = 39
    CAP_CHECKPOINT_RESTORE = 40

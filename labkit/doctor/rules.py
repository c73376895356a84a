"""From an errno to the rule behind it.

"Operation not permitted" has a dozen causes. Some can be told apart by asking again in another way: a seccomp filter
looks at a call before the kernel does, so it also refuses a call that is so wrong that the kernel would say EINVAL.
The others leave traces: a sysctl, a mount over a file of /proc, a capability that is not there. `Facts` are these
traces; the functions below read an error in their light.

Leaves out: SELinux and Smack, which are named together as "a security module".
See: errno(3), user_namespaces(7), namespaces(7), seccomp(2), capabilities(7).
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass

from labkit.doctor.answers import Answer, no
from labkit.linux.constants import NS, NS_FILES, Capability, MountFlag
from labkit.linux.mountinfo import Mount, read_mountinfo
from labkit.linux.proc import read_gid_map, read_status, read_uid_map
from labkit.linux.syscalls import mount, umount2, unshare

__all__ = [
    "SECCOMP_REMEDY",
    "Facts",
    "read_facts",
    "reaches_kernel",
    "text_of",
    "why_mapping",
    "why_mount",
    "why_namespace",
    "why_user_namespace",
]

_UNSHARE_NOTHING = 0x1  # no flag of unshare(2): the kernel answers EINVAL before it looks at permissions
SECCOMP_REMEDY = "Start the container around this with --security-opt seccomp=unconfined, or run labkit outside of it."
#: File systems that have mount points of their own below /proc and /sys.
_HARMLESS = {
    "autofs", "binfmt_misc", "bpf", "cgroup", "cgroup2", "configfs", "debugfs", "efivarfs", "fusectl", "pstore", "securityfs",
    "selinuxfs", "tracefs",
}  # fmt: skip
_FULL = (errno.ENOSPC, errno.EUSERS)
_DENIED = (errno.EPERM, errno.EACCES)


@dataclass(frozen=True, slots=True)
class Facts:
    """Traces of the rules that may refuse something to this process."""

    uid: int
    capabilities: int
    seccomp_mode: int
    no_new_privs: bool
    own_id_mapped: bool
    initial_user_namespace: bool
    chrooted: bool
    userns_clone_forbidden: bool
    apparmor_restricts: bool
    most_namespaces: dict[str, int]
    covered_proc: tuple[str, ...]
    covered_sys: tuple[str, ...]

    def has(self, capability: Capability) -> bool:
        """Tell whether the process has ``capability`` in its own user namespace."""
        return bool(self.capabilities >> capability & 1)


def read_facts() -> Facts:
    """Collect the traces, reading only."""
    status = read_status()
    mounts = read_mountinfo()
    uids, gids = read_uid_map(), read_gid_map()
    own = ((uids, os.geteuid()), (gids, os.getegid()))
    return Facts(
        uid=os.geteuid(),
        capabilities=status.capabilities.effective,
        seccomp_mode=status.seccomp_mode,
        no_new_privs=status.no_new_privs,
        own_id_mapped=all(any(m.inside <= number < m.inside + m.count for m in maps) for maps, number in own),
        initial_user_namespace=[(m.inside, m.outside, m.count) for m in uids] == [(0, 0, 2**32 - 1)],
        chrooted=all(mount.mount_point != "/" for mount in mounts),
        userns_clone_forbidden=_sysctl("kernel/unprivileged_userns_clone") == 0,
        apparmor_restricts=_sysctl("kernel/apparmor_restrict_unprivileged_userns") == 1,
        most_namespaces={name: _sysctl(f"user/max_{name}_namespaces") for name in NS_FILES.values()},
        covered_proc=_covered(mounts, "/proc/"),
        covered_sys=_covered(mounts, "/sys/"),
    )


def _covered(mounts: Iterable[Mount], below: str) -> tuple[str, ...]:
    """Return the mount points that hide something: those that the kernel itself keeps empty for mounting hide nothing."""
    points = {mount.mount_point for mount in mounts if mount.fstype not in _HARMLESS}
    return tuple(sorted(p for p in points if p.startswith(below) and not p.startswith("/sys/fs/cgroup")))


def _sysctl(name: str) -> int:
    """Return a sysctl's number, -1 where the kernel does not have it."""
    with suppress(OSError, ValueError), open(f"/proc/sys/{name}") as file:
        return int(file.read())
    return -1


def text_of(error: OSError) -> str:
    """Return what the errno means, without the call that an error's message may name."""
    return os.strerror(error.errno or 0)


def reaches_kernel(call: Callable[[], object], expected: tuple[int, ...]) -> bool:
    """Make a call so wrong that the kernel answers ``expected`` to anybody; another answer comes from a filter."""
    try:
        call()
    except OSError as error:
        return error.errno in expected
    return True


def _filtered(flags: NS) -> bool:
    return not reaches_kernel(lambda: unshare(NS(flags | _UNSHARE_NOTHING)), (errno.EINVAL,))


def why_user_namespace(error: OSError, facts: Facts) -> Answer:
    """Say why a user namespace could not be made."""
    detail = f"unshare(CLONE_NEWUSER): {text_of(error)}"
    if _filtered(NS.USER):
        return no(detail, rule="a seccomp filter refuses unshare(CLONE_NEWUSER)", remedy=SECCOMP_REMEDY)
    if error.errno in _FULL:
        return _full("user", detail, facts)
    if error.errno == errno.EINVAL:
        return no(
            detail,
            rule="this kernel was built without user namespaces (CONFIG_USER_NS)",
            remedy="Use a distribution's kernel.",
        )
    if facts.chrooted:
        return no(
            detail,
            rule="a process in a chroot may not make user namespaces",
            remedy="Enter the tree with pivot_root, as containers do, instead of chroot.",
        )
    if not facts.own_id_mapped:
        return no(
            detail,
            rule="this process's own user or group id has no mapping in its user namespace",
            remedy="Map the id in the container around this, or run as its root.",
        )
    if facts.userns_clone_forbidden and not facts.has(Capability.CAP_SYS_ADMIN):
        return no(
            detail,
            rule="kernel.unprivileged_userns_clone=0 keeps user namespaces for root",
            remedy="sudo sysctl -w kernel.unprivileged_userns_clone=1",
        )
    return _security_module(detail, facts)


def _full(name: str, detail: str, facts: Facts) -> Answer:
    setting = f"user.max_{name}_namespaces"
    most = facts.most_namespaces.get(name, -1)
    if most == 0:
        return no(
            detail,
            rule=f"{setting}=0 forbids them",
            remedy=f"sudo sysctl -w {setting}=10000 (outside, if this is a container)",
        )
    return no(
        detail,
        rule=f"{setting}={most} is used up, or a user namespace around this one has a lower limit"
        + (", or it is nested 32 deep" if name == "user" else ""),
        remedy=f"Raise {setting} in the outermost user namespace: sudo sysctl -w {setting}=10000",
    )  # fmt: skip


def _security_module(detail: str, facts: Facts) -> Answer:
    if facts.apparmor_restricts:
        return no(
            detail,
            rule="AppArmor: kernel.apparmor_restrict_unprivileged_userns=1 takes all power from user namespaces of ordinary programs",
            remedy="sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0, or an AppArmor profile with `userns,` for this Python",
        )
    return no(
        detail,
        rule="a security module (SELinux, AppArmor or another) refuses, or this process is in a chroot",
        remedy="Ask the machine's administrator; `journalctl -k | grep -i denied` often names the rule.",
    )


def why_mapping(error: OSError, facts: Facts) -> Answer:
    """Say why a new user namespace could not be given the caller's own id as its root."""
    detail = f"writing uid_map: {text_of(error)}"
    if facts.apparmor_restricts and error.errno in _DENIED:
        return _security_module(detail, facts)
    if facts.uid == 0 and not facts.has(Capability.CAP_SETFCAP) and error.errno == errno.EPERM:
        return no(
            detail,
            rule="missing capability: root without CAP_SETFCAP may not map uid 0",
            remedy="Give it to the container around this (--cap-add SETFCAP), or run as an ordinary user.",
        )
    return _security_module(detail, facts)


def why_namespace(kind: NS, error: OSError, facts: Facts, *, powerful: bool) -> Answer:
    """Say why a namespace of ``kind`` could not be made; ``powerful``: the caller had CAP_SYS_ADMIN in its user namespace."""
    name = NS_FILES[kind]
    detail = f"unshare(CLONE_NEW{'NS' if kind == NS.MNT else name.upper()}): {text_of(error)}"
    if _filtered(kind):
        return no(detail, rule=f"a seccomp filter refuses unshare for {name} namespaces", remedy=SECCOMP_REMEDY)
    if error.errno in _FULL:
        return _full(name, detail, facts)
    if error.errno == errno.EINVAL:
        return no(
            detail, rule=f"this kernel has no {name} namespaces", remedy="Use a newer kernel, or a distribution's own."
        )
    if not powerful:
        return no(
            detail,
            rule="missing capability: CAP_SYS_ADMIN",
            remedy="Run as root, or allow user namespaces (see the row 'user namespace').",
        )
    return _security_module(detail, facts)


def why_mount(error: OSError, facts: Facts, *, what: str) -> Answer:
    """Say why ``what`` could not be mounted by the root of a new user and mount namespace."""
    detail = f"mounting {what}: {text_of(error)}"
    if not _mount_reaches_kernel():
        return no(detail, rule="a seccomp filter refuses mount", remedy=SECCOMP_REMEDY)
    if error.errno == errno.ENODEV:
        return no(detail, rule=f"this kernel has no {what}", remedy=f"sudo modprobe {what}, or another kernel")
    covered = {"proc": facts.covered_proc, "sysfs": facts.covered_sys}.get(what, ())
    if error.errno == errno.EPERM and what in ("proc", "sysfs"):
        return _too_revealing(what, detail, covered)
    if error.errno == errno.EPERM and what == "overlay":
        rule = "Linux before 5.11 mounts overlays for the machine's root only, or a security module refuses"
        return no(detail, rule=rule, remedy="Use a newer kernel, or run as root.")
    if error.errno in _DENIED:
        return _security_module(detail, facts)
    return no(
        detail,
        rule=f"the kernel refuses it ({errno.errorcode.get(error.errno or 0, '?')})",
        remedy="Use a newer kernel.",
    )


def _mount_reaches_kernel() -> bool:
    # umount2 with flags that do not exist: EINVAL from the kernel, whoever asks.
    wrong = MountFlag(0x4000_0000)
    return reaches_kernel(lambda: umount2("/", wrong), (errno.EINVAL,)) and reaches_kernel(  # type: ignore[arg-type]
        lambda: mount(None, "/labkit-no-such-folder", None, MountFlag.BIND), (errno.ENOENT, errno.EINVAL)
    )


def _too_revealing(what: str, detail: str, covered: tuple[str, ...]) -> Answer:
    folder = {"proc": "/proc", "sysfs": "/sys"}[what]
    if covered:
        shown = ", ".join(covered[:3]) + (", ..." if len(covered) > 3 else "")
        rule = f"masked {folder}: {shown} {'is' if len(covered) == 1 else 'are'} mounted over; a new {folder} would show what is hidden"
    else:
        rule = f"no fully visible {folder} is mounted here (it is missing, read-only or restricted)"
    option = "--security-opt systempaths=unconfined" if what == "proc" else "--privileged"
    return no(detail, rule=rule, remedy=f"Start the container around this with {option}.")

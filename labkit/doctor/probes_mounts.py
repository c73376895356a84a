"""Probes: the file systems that a container is put together from.

All of them mount inside a mount namespace that goes away with the probe, over a folder that exists anyway: nothing is
made on any disk.

See: mount_namespaces(7), pivot_root(2), mount_setattr(2), Documentation/filesystems/overlayfs.rst in Linux.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

from labkit.doctor.answers import Answer, expect, limited, no, yes
from labkit.doctor.rules import SECCOMP_REMEDY, Facts, reaches_kernel, text_of, why_mount
from labkit.doctor.stage import WaitingChild, enter_user_namespace, in_namespaces, run_child, scratch_folder
from labkit.isolation.idmap import container_maps, own_maps, write_maps
from labkit.isolation.overlay import overlay_options
from labkit.linux.constants import NS, Capability, MountAttr, MountFlag, OpenTreeFlag, Umount
from labkit.linux.mountinfo import read_mountinfo
from labkit.linux.syscalls import AT_FDCWD, mount, mount_setattr, open_tree, pivot_root, umount2

__all__ = ["PROBES"]

_SAFE = MountFlag.NOSUID | MountFlag.NODEV | MountFlag.NOEXEC


def _with_mounts(act: Callable[[], Answer], facts: Facts, *, what: str, also: NS | None = None) -> Answer:
    def guarded() -> Answer:
        try:
            return act()
        except OSError as error:
            return why_mount(error, facts, what=what)

    return in_namespaces(NS.MNT if also is None else NS.MNT | also, facts, guarded)


def _private(facts: Facts) -> Answer:
    # An open mountinfo goes on showing the namespace that it was opened in.
    with open("/proc/self/mountinfo") as outside:

        def act() -> Answer:
            scratch_folder()
            inside = Path("/proc/self/mountinfo").read_text()
            apart = "labkit-doctor" in inside and "labkit-doctor" not in outside.read()
            return expect(holds=apart, otherwise="a mount showed outside")

        return _with_mounts(act, facts, what="tmpfs")


def _tmpfs(facts: Facts) -> Answer:
    def act() -> Answer:
        folder = scratch_folder(size="64k")
        try:
            Path(folder, "file").write_bytes(bytes(1 << 20))
        except OSError as error:
            if error.errno == errno.ENOSPC:
                return yes("its size limit holds")
            raise
        return expect(holds=False, otherwise="1 MiB fitted into 64 KiB")

    return _with_mounts(act, facts, what="tmpfs")


def _pivot_root(facts: Facts) -> Answer:
    def act() -> Answer:
        folder = scratch_folder()
        Path(folder, "labkit-doctor").touch()
        os.chdir(folder)
        try:
            pivot_root(".", ".")
        except OSError as error:
            return _why_no_pivot(error, facts)
        umount2(".", Umount.DETACH)
        os.chdir("/")
        return expect(holds=os.listdir("/") == ["labkit-doctor"], otherwise="the root did not change")

    return _with_mounts(act, facts, what="tmpfs")


def _why_no_pivot(error: OSError, facts: Facts) -> Answer:
    detail = f"pivot_root: {text_of(error)}"
    # The kernel looks at the paths before anything that could be forbidden to the root of a mount namespace.
    if not reaches_kernel(lambda: pivot_root("/labkit-no-such-folder", "/"), (errno.ENOENT,)):
        return no(detail, rule="a seccomp filter refuses pivot_root", remedy=SECCOMP_REMEDY)
    return no(
        detail,
        rule="the root of this machine is an initramfs, or this process is in a chroot",
        remedy="Boot from a disk, or enter the tree with pivot_root, as containers do.",
    )


def _overlay(facts: Facts) -> Answer:
    def act() -> Answer:
        folder = Path(scratch_folder())
        for name in ("lower", "upper", "work", "merged"):
            (folder / name).mkdir()
        (folder / "lower/kept").write_text("from below")
        (folder / "lower/deleted").write_text("from below")
        options = overlay_options([f"{folder}/lower"], upper=f"{folder}/upper", work=f"{folder}/work", userxattr=True)
        mount("labkit-doctor", f"{folder}/merged", "overlay", MountFlag(0), options)
        (folder / "merged/kept").write_text("changed")
        (folder / "merged/deleted").unlink()
        below = (folder / "lower/kept").read_text() == "from below" and (folder / "lower/deleted").exists()
        above = (folder / "merged/kept").read_text() == "changed" and os.listdir(folder / "merged") == ["kept"]
        return expect("copy up and whiteout", holds=below and above, otherwise="the layers do not behave")

    return _with_mounts(act, facts, what="overlay")


def _proc(facts: Facts) -> Answer:
    def act() -> Answer:
        folder = scratch_folder()

        def as_pid_1() -> int:
            try:
                mount("proc", folder, "proc", _SAFE)
            except OSError as error:
                return error.errno or 1
            return 0 if [name for name in os.listdir(folder) if name.isdigit()] == ["1"] else 126

        status = run_child(as_pid_1)
        if status and status < 125:
            raise OSError(status, os.strerror(status))
        return expect("it shows the new PID namespace alone", holds=status == 0, otherwise="it shows other processes")

    return _with_mounts(act, facts, what="proc", also=NS.PID)


def _sysfs(facts: Facts) -> Answer:
    def act() -> Answer:
        folder = scratch_folder()
        mount("sysfs", folder, "sysfs", _SAFE | MountFlag.RDONLY)
        alone = os.listdir(f"{folder}/class/net") == ["lo"]
        return expect("it shows the new network namespace", holds=alone, otherwise="it shows other interfaces")

    return _with_mounts(act, facts, what="sysfs", also=NS.NET)


def _devpts(facts: Facts) -> Answer:
    def act() -> Answer:
        folder = scratch_folder()
        mount("devpts", folder, "devpts", MountFlag.NOSUID | MountFlag.NOEXEC, "newinstance,ptmxmode=666,mode=620")
        os.close(os.open(f"{folder}/ptmx", os.O_RDWR | os.O_NOCTTY))
        return yes("terminals of its own")

    return _with_mounts(act, facts, what="devpts")


def _mapped(facts: Facts) -> Answer:
    if not (facts.has(Capability.CAP_SYS_ADMIN) and facts.initial_user_namespace):
        return no(
            "not for ordinary users",
            rule="missing capability: CAP_SYS_ADMIN in the user namespace that owns the file system",
            remedy="None needed: without it labkit uses an overlay or the user's own ids. Root has it.",
        )
    with WaitingChild() as child:
        if child.pid < 0:
            return enter_user_namespace(facts) or expect(holds=False, otherwise="no user namespace")
        write_maps(child.pid, container_maps(own_maps()))
        userns_fd = os.open(f"/proc/{child.pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    try:
        _map_mount("/", userns_fd)
    except OSError as error:
        if error.errno != errno.EINVAL:
            return why_mount(error, facts, what="ID-mapped mount")
        fstype = next((item.fstype for item in reversed(read_mountinfo()) if item.mount_point == "/"), "?")
        return limited(
            f"not on this machine's root file system ({fstype})",
            rule=f"{fstype} cannot be ID-mapped by this kernel",
            remedy="Keep root file systems for containers on ext4, xfs, btrfs or (Linux 6.3) tmpfs.",
        )
    return yes("on the root file system")


def _map_mount(path: str, userns_fd: int) -> None:
    tree_fd = open_tree(AT_FDCWD, path, OpenTreeFlag.CLONE | OpenTreeFlag.CLOEXEC)
    mount_setattr(tree_fd, "", set_attrs=MountAttr.IDMAP, userns_fd=userns_fd)
    os.close(tree_fd)


#: Name of the feature -> probe.
PROBES: dict[str, Callable[[Facts], Answer]] = {
    "private mounts": _private,
    "pivot_root": _pivot_root,
    "overlay": _overlay,
    "tmpfs": _tmpfs,
    "fresh /proc": _proc,
    "fresh /sys": _sysfs,
    "devpts": _devpts,
    "ID-mapped mounts": _mapped,
}

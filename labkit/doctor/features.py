"""What the doctor asks about, in the order of its table, and which lesson needs what.

A lesson *requires* features without which its main point cannot be shown here, and *uses* others that make it fuller. Where a
required one is missing, the lesson shows a recording.

Leaves out: versions of programs.
"""

from __future__ import annotations

import platform
from dataclasses import dataclass

from labkit.errors import InvalidSpec

__all__ = ["FEATURES", "LESSONS", "PACKAGES", "PROGRAMS", "QEMU", "Needs", "needs"]

#: Packages of Python that the course imports, by the names under which they are installed.
PACKAGES = (
    "ipykernel",
    "ipywidgets",
    "jupyter_client",
    "jupyterlab",
    "matplotlib",
    "nbval",
    "psutil",
    "pyroute2",
    "pyseccomp",
)
QEMU = f"qemu-system-{platform.machine()}"
#: Program -> what the course does with it, and the Debian package that brings it.
PROGRAMS: dict[str, tuple[str, str]] = {
    "unshare": ("peer: namespaces from a shell", "util-linux"),
    "nsenter": ("peer: entering namespaces", "util-linux"),
    "newuidmap": ("ranges of ids for ordinary users", "uidmap"),
    "busybox": ("a whole user land in one file", "busybox-static"),
    "bwrap": ("peer in the start-up race", "bubblewrap"),
    "runc": ("peer in the start-up race", "runc"),
    "crun": ("peer in the start-up race", "crun"),
    "podman": ("peer in the start-up race", "podman"),
    "docker": ("the client that drives labkit's engine", "docker.io"),
    QEMU: ("virtual machines", "qemu-system-x86" if platform.machine() == "x86_64" else "qemu-system-arm"),
    "slirp4netns": ("peer: networks of ordinary users", "slirp4netns"),
    "pasta": ("peer: networks of ordinary users", "passt"),
    "chromium": ("tests of the live views", "chromium"),
}
_NAMESPACES = tuple(f"{name} namespace" for name in ("user", "mount", "pid", "network", "ipc", "uts", "cgroup", "time"))
_CGROUPS = tuple(f"cgroup {name}" for name in ("cpu", "memory", "swap", "pids", "io", "cpuset", "freezer"))
_FILES = ("private mounts", "pivot_root", "overlay", "tmpfs", "fresh /proc", "fresh /sys", "devpts", "ID-mapped mounts")

#: Feature -> group, in the order of the table.
FEATURES: dict[str, str] = {
    **dict.fromkeys((*_NAMESPACES, "time offsets", "nested user namespace", "loopback"), "namespaces"),
    **dict.fromkeys(("one id mapped", "range of ids mapped"), "identity"),
    **dict.fromkeys(_FILES, "files"),
    **dict.fromkeys(("cgroups", *_CGROUPS, "cgroup.kill", "CLONE_INTO_CGROUP", "pressure (PSI)"), "control groups"),
    **dict.fromkeys(("capabilities dropped", "no_new_privs", "seccomp filter", "libseccomp"), "defences"),
    **dict.fromkeys(("clone3", "pidfd"), "processes"),
    **dict.fromkeys(("KVM", "guest kernel"), "virtual machines"),
    **dict.fromkeys(PROGRAMS, "programs"),
    **dict.fromkeys((f"package {name}" for name in PACKAGES), "Python packages"),
}


@dataclass(frozen=True, slots=True)
class Needs:
    """What a lesson needs of the machine; every name is one of `FEATURES`."""

    lesson: str
    title: str
    requires: tuple[str, ...]
    uses: tuple[str, ...] = ()


_BASE = ("user namespace", "clone3", "pidfd")
_CONTAINER = (
    *_BASE, "mount namespace", "pid namespace", "network namespace", "ipc namespace", "uts namespace", "cgroup namespace",
    "one id mapped", "private mounts", "pivot_root", "tmpfs", "fresh /proc",
)  # fmt: skip
_FULL = (
    *_CONTAINER,
    "overlay",
    "devpts",
    "loopback",
    "capabilities dropped",
    "no_new_privs",
    "seccomp filter",
    "libseccomp",
)
_MACHINE = (QEMU, "guest kernel")

LESSONS: tuple[Needs, ...] = (
    Needs("00", "Start here", ()),
    Needs("01", "What an operating system virtualizes", ("cgroup cpu",), ("cgroup memory", "cgroup swap", "pressure (PSI)")),
    Needs("02", "Virtual machines", _MACHINE, ("KVM",)),
    Needs("03", "Namespaces", (*_BASE, *_NAMESPACES[1:7], "one id mapped", "fresh /proc"),
          ("time namespace", "time offsets", "loopback", "unshare", "nsenter")),
    Needs("04", "Control groups", (*_BASE, "cgroups", "cgroup cpu", "cgroup memory", "cgroup pids"),
          ("cgroup swap", "cgroup io", "cgroup cpuset", "cgroup freezer", "cgroup.kill", "pressure (PSI)")),
    Needs("05", "Root filesystems", (*_BASE, "mount namespace", "private mounts", "pivot_root", "overlay", "tmpfs", "fresh /proc"),
          ("ID-mapped mounts", "range of ids mapped", "busybox")),
    Needs("06", "A container by hand", _FULL, ("cgroups", "cgroup memory", "cgroup pids", "range of ids mapped", "fresh /sys")),
    Needs("07", "Start-up and density", _FULL,
          ("cgroup memory", "cgroup cpu", "cgroup pids", "unshare", "bwrap", "runc", "crun", "podman", "docker", QEMU, "KVM")),
    Needs("08", "Architecture of Docker", _FULL, ("docker", "cgroup memory", "cgroup pids")),
    Needs("09", "Images and layers", (*_FULL, "busybox"), ("range of ids mapped", "docker")),
    Needs("10", "Container networks", (*_FULL, "package pyroute2"), ("slirp4netns", "pasta")),
    Needs("11", "Volumes", _FULL, ("ID-mapped mounts",)),
    Needs("12", "Registries", _FULL, ("docker",)),
    Needs("13", "Immutable infrastructure", _FULL, ("cgroup memory", "docker")),
    Needs("14", "Capstone", _FULL, ("cgroups", "cgroup memory", "cgroup pids")),
)  # fmt: skip


def needs(lesson: str) -> Needs:
    """Return what a lesson needs: ``needs("03")``. Raises: InvalidSpec for a number that no lesson has."""
    found = next((item for item in LESSONS if item.lesson == str(lesson)[:2]), None)
    if found is None:
        raise InvalidSpec(
            f"There is no lesson {lesson!r}: write a number from {LESSONS[0].lesson} to {LESSONS[-1].lesson}."
        )
    return found

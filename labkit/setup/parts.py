"""System parts: the programs and libraries that come from the distribution, and how each one is recognised.

A program is looked for on PATH, in the ``sbin`` folders (Debian keeps ``runc`` there and leaves them out of a user's
PATH), and in labkit's cache, where set-up unpacks what it can without root. `search_path` is that order as a PATH. A
busybox counts only if it is static: it is the single file of a root file system, where no loader and no library would be found.

Leaves out: versions. What a program can do on this machine is `labkit doctor`'s question.
See: elf(5) (PT_INTERP), ld.so(8), file-hierarchy(7).
"""

from __future__ import annotations

import os
import shutil
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

__all__ = [
    "PARTS",
    "SBIN_FOLDERS",
    "Part",
    "cache_folder",
    "find_busybox",
    "find_program",
    "has_distribution",
    "has_machines",
    "is_static",
    "missing",
    "search_path",
]

_LIBRARY_FOLDERS = (
    "/lib",
    "/usr/lib",
    "/lib64",
    "/usr/lib64",
    "/usr/local/lib",
    "/lib/*-linux-*",
    "/usr/lib/*-linux-*",
)
SBIN_FOLDERS = ("/usr/local/sbin", "/usr/sbin", "/sbin")
_PT_INTERP = 3  # linux/elf.h


@dataclass(frozen=True, slots=True)
class Part:
    """A part of the system: how to see whether it is there, what it is for, what each package manager calls it."""

    name: str
    purpose: str
    is_there: Callable[[], bool]
    packages: dict[str, str] = field(default_factory=dict)
    for_tests: bool = False
    portable: bool = False  # one file that also runs unpacked in a cache folder


def cache_folder() -> Path:
    """Return labkit's cache folder of this user, ``$XDG_CACHE_HOME/labkit`` or ``~/.cache/labkit``; it need not exist."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if base.startswith("/") else Path.home() / ".cache") / "labkit"


def search_path(path: str) -> str:
    """Return the PATH ``path`` with the folders added in which a part may also lie, last so that nothing is shadowed."""
    unpacked = [str(cache_folder() / "parts" / name) for name in ("usr/bin", "usr/sbin", "bin")]
    return os.pathsep.join(dict.fromkeys([*path.split(os.pathsep), *SBIN_FOLDERS, *unpacked]))


def find_program(*names: str) -> Path | None:
    """Return the first of ``names`` found on PATH, in the ``sbin`` folders or in the cache."""
    search = search_path(os.environ.get("PATH", os.defpath))
    found = (shutil.which(name, path=search) for name in names)
    return next((Path(path) for path in found if path is not None), None)


def find_busybox() -> Path | None:
    """Return a static busybox: the distribution's, or the one that set-up unpacked into the cache."""
    folders = search_path(os.environ.get("PATH", os.defpath)).split(os.pathsep)
    candidates = (Path(folder) / name for folder in folders for name in ("busybox", "busybox.static"))
    return next((path for path in candidates if os.access(path, os.X_OK) and is_static(path)), None)


def has_machines() -> bool:
    """Say whether the emulator and the guest kernels of the virtual machines are there; `labkit.vm.setup` gets them."""
    kernels = (cache_folder() / "kernels" / kind / "kernel.json" for kind in ("micro", "hostroot"))
    return find_program(f"qemu-system-{os.uname().machine}") is not None and all(path.is_file() for path in kernels)


def has_distribution() -> bool:
    """Say whether there is the disk with a distribution that `labkit.vm.setup_disk` makes."""
    return (cache_folder() / "distribution/disk.json").is_file()


def is_static(program: Path) -> bool:
    """Say whether ``program`` is an ELF file that asks for no loader (it has no PT_INTERP segment)."""
    try:
        head = program.read_bytes()[:4096]
    except OSError:
        return False
    if len(head) < 64 or head[:4] != b"\x7fELF":
        return False
    wide, order = head[4] == 2, "<" if head[5] == 1 else ">"
    start = struct.unpack_from(order + ("Q" if wide else "I"), head, 32 if wide else 28)[0]
    size, count = struct.unpack_from(order + "HH", head, 54 if wide else 42)
    offsets = (start + size * index for index in range(count))
    return all(
        struct.unpack_from(order + "I", head, offset)[0] != _PT_INTERP for offset in offsets if offset + 4 <= len(head)
    )


def missing(parts: Iterable[Part]) -> list[Part]:
    """Return those of ``parts`` that are not there now."""
    return [part for part in parts if not part.is_there()]


def _program(*names: str) -> Callable[[], bool]:
    return lambda: find_program(*names) is not None


def _library(name: str) -> Callable[[], bool]:
    return lambda: any(any(Path("/").glob(f"{folder[1:]}/{name}")) for folder in _LIBRARY_FOLDERS)


def _named(apt: str, *, dnf: str = "", pacman: str = "", zypper: str = "", apk: str = "") -> dict[str, str]:
    return {"apt-get": apt, "dnf": dnf or apt, "pacman": pacman or apt, "zypper": zypper or apt, "apk": apk or apt}


_WITNESS = "an independent witness of the tests"
PARTS = (
    Part(
        "busybox",
        "a root file system of one file, used by most lessons",
        lambda: find_busybox() is not None,
        _named("busybox-static", dnf="busybox", pacman="busybox"),
        portable=True,
    ),
    Part(
        "libseccomp",
        "system call filters",
        _library("libseccomp.so.2"),
        _named("libseccomp2", dnf="libseccomp", pacman="libseccomp", apk="libseccomp"),
    ),
    Part(
        "newuidmap",
        "ranges of user ids in containers made without root",
        _program("newuidmap"),
        _named("uidmap", dnf="shadow-utils", pacman="shadow", zypper="shadow", apk="shadow-uidmap"),
    ),
    Part(
        "unshare",
        "the command-line twins of the lessons, and witnesses of the tests",
        _program("unshare"),
        _named("util-linux"),
    ),
    Part("ip", "a look at network interfaces from outside", _program("ip"), _named("iproute2", dnf="iproute")),
    Part("bwrap", "a peer in the start-up race", _program("bwrap"), _named("bubblewrap"), portable=True),
    Part("runc", "a peer in the start-up race", _program("runc"), _named("runc"), portable=True),
    Part("crun", "a peer in the start-up race", _program("crun"), _named("crun")),
    Part("nft", "a way out for containers of the engine", _program("nft"), _named("nftables"), portable=True),
    Part(
        "slirp4netns",
        "a network for an ordinary user's engine",
        _program("slirp4netns", "pasta"),
        _named("slirp4netns"),
        portable=True,
    ),
    Part(
        "tini",
        "the init of `docker run --init`",
        _program("docker-init", "tini-static", "tini"),
        _named("tini"),
        portable=True,
    ),
    Part("ps", _WITNESS, _program("ps"), _named("procps", dnf="procps-ng", pacman="procps-ng"), for_tests=True),
    Part(
        "capsh",
        _WITNESS,
        _program("capsh"),
        _named("libcap2-bin", dnf="libcap", pacman="libcap", zypper="libcap-progs", apk="libcap-utils"),
        for_tests=True,
    ),
    Part("modinfo", _WITNESS, _program("modinfo"), _named("kmod"), for_tests=True),
    Part("objdump", _WITNESS, _program("objdump"), _named("binutils"), for_tests=True),
    Part(
        "aarch64-linux-gnu-objdump",
        _WITNESS,
        _program("aarch64-linux-gnu-objdump"),
        _named("binutils-aarch64-linux-gnu", pacman="aarch64-linux-gnu-binutils", zypper="cross-aarch64-binutils"),
        for_tests=True,
    ),
    Part(
        "scmp_sys_resolver",
        _WITNESS,
        _program("scmp_sys_resolver"),
        _named("seccomp", dnf="libseccomp-devel", pacman="libseccomp", zypper="libseccomp-tools", apk="libseccomp-dev"),
        for_tests=True,
    ),
    Part(
        "linux/sched.h",
        _WITNESS,
        lambda: Path("/usr/include/linux/sched.h").is_file(),
        _named(
            "linux-libc-dev",
            dnf="kernel-headers",
            pacman="linux-api-headers",
            zypper="linux-glibc-devel",
            apk="linux-headers",
        ),
        for_tests=True,
    ),
    *(
        Part(name, _WITNESS, _program(name), packages, for_tests=True)
        for name, packages in (
            ("skopeo", _named("skopeo")),
            ("umoci", _named("umoci")),
            ("buildah", _named("buildah")),
            ("podman", _named("podman")),
            ("docker", _named("docker.io", dnf="moby-engine", pacman="docker", zypper="docker", apk="docker")),
            ("dockerd", _named("docker.io", dnf="moby-engine", pacman="docker", zypper="docker", apk="docker")),
            ("nsenter", _named("util-linux")),
            ("docker-registry", _named("docker-registry", pacman="distribution", zypper="distribution-registry")),
        )
    ),
    Part("strace", _WITNESS, _program("strace"), _named("strace"), for_tests=True),
    Part(
        "chromium",
        "tests of the lessons in a browser",
        _program("chromium", "chromium-browser", "google-chrome"),
        _named("chromium"),
        for_tests=True,
    ),
    Part(
        "fonts",
        "legible pages in the browser tests",
        lambda: any(Path("/usr/share/fonts").rglob("*.[to]tf")),
        _named(
            "fonts-dejavu-core", dnf="dejavu-sans-fonts", pacman="ttf-dejavu", zypper="dejavu-fonts", apk="font-dejavu"
        ),
        for_tests=True,
    ),
)

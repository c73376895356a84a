"""Where guest kernels come from: the names of the distributions' packages, and which files of them a guest can use.

A distribution has a package that stands for the newest kernel (``linux-image-cloud-amd64``) and depends on the one that holds it
(``linux-image-6.1.0-56-cloud-amd64``; Ubuntu keeps modules apart in ``linux-modules-…``). Of a generic kernel's 400 MB nearly all
are drivers for devices that no guest has; `place_of` names what labkit keeps.

Leaves out: kernels that the host's owner has installed by hand; distributions that neither use apt nor keep a readable kernel.
See: `labkit.setup.archives`, file-hierarchy(7).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from labkit.vm.kernel import Kind

__all__ = ["CANDIDATES", "NEEDED_MODULES", "PATTERN", "QEMU_PACKAGES", "installed_kernels", "place_of"]

#: uname's machine: the packages that stand for a kernel, Debian's first, then Ubuntu's; the first that apt knows is taken.
CANDIDATES: Mapping[str, Mapping[Kind, tuple[str, ...]]] = {
    "x86_64": {
        "micro": ("linux-image-cloud-amd64", "linux-image-kvm", "linux-image-virtual"),
        "hostroot": ("linux-image-amd64", "linux-image-kvm", "linux-image-generic"),
    },
    "aarch64": {
        "micro": ("linux-image-cloud-arm64", "linux-image-virtual"),
        "hostroot": ("linux-image-arm64", "linux-image-generic"),
    },
}
#: What the packages behind those are called.
PATTERN = r"linux-(image|modules)-(unsigned-)?[0-9].*"
#: The emulator, by package manager; on arm64 Debian calls it qemu-system-arm.
QEMU_PACKAGES: Mapping[str, str] = {
    "apt-get": "qemu-system-x86",
    "dnf": "qemu-system-x86-core",
    "pacman": "qemu-system-x86",
    "zypper": "qemu-x86",
    "apk": "qemu-system-x86_64",
}
#: Without these the guests cannot do their work; built into the kernel is as good.
NEEDED_MODULES: Mapping[Kind, tuple[str, ...]] = {
    "micro": ("virtio_mmio", "virtio_console", "virtio_net", "overlay"),
    "hostroot": ("virtio_mmio", "virtio_console", "virtio_net", "overlay", "9p", "9pnet_virtio"),
}
_KEPT = (
    "kernel/arch/", "kernel/block/", "kernel/crypto/", "kernel/lib/", "kernel/mm/",
    "kernel/fs/9p/", "kernel/fs/ext4/", "kernel/fs/fscache/", "kernel/fs/fuse/", "kernel/fs/jbd2/", "kernel/fs/netfs/",
    "kernel/fs/overlayfs/", "kernel/fs/squashfs/",
    "kernel/net/9p/", "kernel/net/802/", "kernel/net/8021q/", "kernel/net/bridge/", "kernel/net/core/", "kernel/net/ipv4/",
    "kernel/net/ipv6/", "kernel/net/llc/", "kernel/net/netfilter/", "kernel/net/packet/", "kernel/net/sched/", "kernel/net/vmw_vsock/",
    "kernel/drivers/virtio/", "kernel/drivers/block/", "kernel/drivers/char/virtio_console.", "kernel/drivers/char/hw_random/",
)  # fmt: skip
#: Folders of which only the files at the top are kept.
_KEPT_TOPS = ("kernel/fs", "kernel/drivers/net")


def place_of(path: PurePosixPath) -> PurePosixPath | None:
    """Return where labkit keeps the file ``path`` of a kernel package: below ``modules``, or as ``vmlinuz``; None: not at all."""
    name = re.sub(r"^\./(usr/)?", "", f"./{path}".replace("././", "./"))
    if re.fullmatch(r"boot/vmlinu[xz]-[^/]+", name):
        return PurePosixPath("vmlinuz") / name.partition("-")[2]
    found = re.fullmatch(r"lib/modules/[^/]+/(.+)", name)
    if found is None:
        return None
    inner = PurePosixPath(found[1])
    is_kept = found[1].startswith(_KEPT) or str(inner.parent) in _KEPT_TOPS or inner.name == "modules.builtin"
    return "modules" / inner if is_kept else None


def installed_kernels() -> list[tuple[str, Path, Path]]:
    """Return the kernels of this machine that may be read, the newest file first: release, packed kernel, modules.

    Fedora and Arch keep a readable copy beside the modules; Ubuntu lets only root read the one in /boot.
    """
    found = []
    for modules in Path("/lib/modules").glob("*"):
        for image in (modules / "vmlinuz", Path(f"/boot/vmlinuz-{modules.name}")):
            try:
                with image.open("rb"):
                    found.append((image.stat().st_mtime_ns, modules.name, image, modules))
                break
            except OSError:
                continue  # not there, or not for this user
    return [(release, image, modules) for _, release, image, modules in sorted(found, reverse=True)]

"""What a guest is: its kernel, its first files, its memory, processors and devices, as data.

Nothing here starts anything. `labkit.vm.commandline` turns a `GuestSpec` into QEMU's command line, `labkit.vm.guest` runs it.
The spec is what two QEMU processes must have in common for a snapshot or a live migration: a saved machine only fits into an
equal one.

Leaves out: more than one disk, graphics, firmware other than QEMU's own; several guests sharing memory.
See: qemu(1), QEMU's documentation of microvm and of migration.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from labkit.errors import InvalidSpec

__all__ = ["MICRO_MOUNTS", "GuestMount", "GuestSpec", "Share"]

#: Less than this no distribution's kernel survives; more than this labkit's placing of the shared memory does not hold.
_LEAST_MEMORY_BYTES, _MOST_MEMORY_BYTES = 48 << 20, 3 << 30
_NOSUID, _NODEV, _NOEXEC = 2, 4, 8  # linux/mount.h


@dataclass(frozen=True, slots=True)
class Share:
    """A folder of the host that the guest can mount by its ``tag``: ``mount -t 9p -o trans=virtio,version=9p2000.L TAG``."""

    tag: str
    path: Path
    readonly: bool = True


@dataclass(frozen=True, slots=True)
class GuestMount:
    """A mount that is made in the guest before it counts as ready; ``options`` are the file system's own."""

    fstype: str
    target: str
    flags: int = 0
    options: str = ""
    source: str = ""


MICRO_MOUNTS = (
    GuestMount("proc", "/proc", _NOSUID | _NODEV | _NOEXEC),
    GuestMount("sysfs", "/sys", _NOSUID | _NODEV | _NOEXEC),
    GuestMount("devtmpfs", "/dev", _NOSUID | _NOEXEC),
    GuestMount("tmpfs", "/tmp", _NOSUID | _NODEV, "mode=1777"),
    GuestMount("tmpfs", "/run", _NOSUID | _NODEV, "mode=755"),
)


@dataclass(frozen=True, slots=True)
class GuestSpec:
    """A machine to start. ``kernel`` is an uncompressed ELF file (x86-64) or an Image (arm64).

    ``append`` are further words of the kernel's command line, ``devices`` further words of QEMU's. ``virtio`` gives the machine
    a bus for virtio devices, which costs the boot a third of a second under emulation: shares, disks and network cards need it.
    ``cards`` are the MAC addresses of its network cards. ``modules`` are paths of kernel modules in the guest, in loading order; ``mounts`` follow them.
    ``user`` is the user that QEMU becomes, for a caller that may choose: then kernel and shares are opened before.
    """

    kernel: Path
    initramfs: bytes = field(repr=False)
    memory_bytes: int = 128 << 20
    cpus: int = 1
    cpu_model: str = ""
    append: tuple[str, ...] = ()
    shares: tuple[Share, ...] = ()
    cards: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    virtio: bool = False
    disk: Path | None = None
    keeps_disk: bool = False
    modules: tuple[str, ...] = ()
    mounts: tuple[GuestMount, ...] = MICRO_MOUNTS
    hostname: str = "labkit-guest"
    user: int = -1
    machine: str = os.uname().machine

    def __post_init__(self) -> None:
        if not _LEAST_MEMORY_BYTES <= self.memory_bytes <= _MOST_MEMORY_BYTES:
            raise InvalidSpec(
                f"A guest with {self.memory_bytes >> 20} MiB of memory cannot be: "
                f"give it {_LEAST_MEMORY_BYTES >> 20} to {_MOST_MEMORY_BYTES >> 20} MiB."
            )
        if self.memory_bytes % (1 << 20):
            raise InvalidSpec(f"A guest's memory is counted in whole MiB, not in {self.memory_bytes} bytes.")
        if not 1 <= self.cpus <= 16:
            raise InvalidSpec(f"A guest has 1 to 16 CPUs, not {self.cpus}.")
        if (self.shares or self.cards or self.disk) and not self.virtio:
            raise InvalidSpec("Shared folders, disks and network cards need a virtio bus: set virtio=True.")

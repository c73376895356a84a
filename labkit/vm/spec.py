"""What a guest is: its kernel, its first files, its memory, processors and devices, as data.

Nothing here starts anything. `labkit.vm.commandline` turns a `GuestSpec` into QEMU's command line, `labkit.vm.guest` runs it.
The spec is what two QEMU processes must have in common for a snapshot or a live migration: a saved machine only fits into an
equal one.

Leaves out: disks, graphics, firmware other than QEMU's own; several guests sharing memory.
See: qemu(1), QEMU's documentation of microvm and of migration.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["GuestSpec", "Share"]


@dataclass(frozen=True, slots=True)
class Share:
    """A folder of the host that the guest can mount by its ``tag``: ``mount -t 9p -o trans=virtio TAG``."""

    tag: str
    path: Path
    readonly: bool = True


@dataclass(frozen=True, slots=True)
class GuestSpec:
    """A machine to start. ``kernel`` is an uncompressed ELF file (x86-64) or an Image (arm64).

    ``append`` are further words of the kernel's command line, ``devices`` further words of QEMU's. ``virtio`` gives the machine
    a bus for virtio devices, which costs a third of a second of the boot under emulation: shares and network cards need it.
    """

    kernel: Path
    initramfs: bytes = field(repr=False)
    memory_bytes: int = 128 << 20
    cpus: int = 1
    cpu_model: str = ""
    append: tuple[str, ...] = ()
    shares: tuple[Share, ...] = ()
    devices: tuple[str, ...] = ()
    virtio: bool = False
    boot_timeout_s: float = 60.0

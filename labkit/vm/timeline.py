"""Where the time of a boot goes: QEMU, firmware, the guest's kernel, its init.

All moments are the host's own, taken from outside. QEMU fills the guest's memory with the kernel and the initramfs; since that memory
is a file, the host sees how much of it is in use, and knows how much it will be. From there until more memory gets used the
firmware finds the kernel and jumps to it. The kernel runs until init rings for the first time, and init until the guest is ready.

Leaves out: what the firmware does; the guest's own clock, which under emulation counts ticks and loses some on a busy host.
See: fstat(2) (st_blocks), elf(5) (program headers).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

from labkit.errors import GuestError
from labkit.vm.spec import GuestSpec

__all__ = ["FIRMWARE_BYTES", "Phase", "Timeline", "loaded_bytes"]

#: What a firmware uses for itself at the most; a kernel uses more at once.
FIRMWARE_BYTES = 256 << 10
_PT_LOAD, _ELF_HEADER_BYTES = 1, 64  # linux/elf.h


@dataclass(frozen=True, slots=True)
class Phase:
    """A part of the boot: its name, when it began, counted from the start of QEMU, and how long it took."""

    name: str
    start_s: float
    elapsed_s: float


@dataclass(frozen=True, slots=True)
class Timeline:
    """The moments of a boot, in seconds since QEMU was started: kernel loaded, kernel runs, init runs, guest ready."""

    loaded_s: float
    kernel_s: float
    init_s: float
    ready_s: float

    def phases(self) -> tuple[Phase, ...]:
        """Return QEMU, firmware, kernel and init, one after another."""
        moments = (0.0, self.loaded_s, self.kernel_s, self.init_s, self.ready_s)
        names = ("QEMU", "firmware", "kernel", "init")
        return tuple(
            Phase(name, start, end - start) for name, start, end in zip(names, moments, moments[1:], strict=False)
        )


def loaded_bytes(spec: GuestSpec) -> int:
    """Return how much memory the kernel and the initramfs of ``spec`` take when they are loaded.

    Raises: GuestError if the kernel cannot be read or is none.
    """
    try:
        with spec.kernel.open("rb") as file:
            head = file.read(4096)
        size_bytes = spec.kernel.stat().st_size
    except OSError as error:
        raise GuestError(f"The guest's kernel {spec.kernel} cannot be read: {error.strerror}. {_AGAIN}") from error
    if head[:4] != b"\x7fELF":
        if head[0x38:0x3C] != b"ARM\x64":
            raise GuestError(f"{spec.kernel} is no kernel that a guest can boot: it is damaged, or packed. {_AGAIN}")
        return size_bytes + len(spec.initramfs)
    return sum(_segments(head, spec.kernel, size_bytes)) + len(spec.initramfs)


_AGAIN = "Run `labkit setup vm --again`."


def _segments(head: bytes, path: Path, size_bytes: int) -> list[int]:
    """Return the sizes of the parts of an ELF file that are loaded."""
    if len(head) < _ELF_HEADER_BYTES:
        raise GuestError(f"{path} is damaged: it has {len(head)} bytes. {_AGAIN}")
    start, entry_bytes, count = *struct.unpack_from("<Q", head, 32), *struct.unpack_from("<HH", head, 54)
    if start + entry_bytes * count > len(head) or entry_bytes < 56 or not count:
        raise GuestError(f"{path} is damaged: it does not say what to load. {_AGAIN}")
    rows = [struct.unpack_from("<I4xQ16xQ", head, start + entry_bytes * number) for number in range(count)]
    loaded = [(offset, length) for kind, offset, length in rows if kind == _PT_LOAD]
    if not loaded or any(offset + length > size_bytes for offset, length in loaded):
        raise GuestError(f"{path} is damaged: it ends before all of it is there. {_AGAIN}")
    return [length for _, length in loaded]

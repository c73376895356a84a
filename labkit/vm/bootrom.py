"""A boot ROM of 123 bytes, by hand: the smallest guest that tells whether a hypervisor can run one.

An x86 CPU wakes up in 16-bit mode and fetches its first instruction 16 bytes below 4 GiB, where the board has its ROM. This one
prints ``R`` (real mode) on the serial port, writes three page tables into the first pages of memory, switches to 64-bit mode as every
operating system's kernel does, prints ``L`` (long mode), and writes to QEMU's ``isa-debug-exit`` device, which ends QEMU. A
hypervisor that only pretends fails between the two letters, or before the first.

On arm64 the CPU starts in 64-bit mode at once; there the ROM of seven instructions prints ``R`` and asks the firmware interface (PSCI) to
switch the machine off, by an instruction that traps into the hypervisor.

Leaves out: interrupts (there is no table for them, so any would end in a triple fault).
See: Intel SDM volume 3, "Switching to 64-bit mode"; Arm DEN0022 (PSCI), SYSTEM_OFF; QEMU's hw/misc/debugexit.c.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass

__all__ = ["ROMS", "Rom", "arm64_rom", "x86_64_rom"]

_WRITTEN = 0x21
_ROM_BYTES = 0x10000  # the least that QEMU takes on a PC

# Where the last 64 KiB of the ROM also appear, for programs that are still in 16-bit mode.
_BASE = 0xF0000
_RESET_VECTOR = 0xFFF0
_CODE_SELECTOR = 8
_FLAT_64_BIT_CODE = 0x00209A0000000000  # present, code, long mode; in that mode base and limit do not count

_REAL_MODE = (
    "fa"  # cli
    "fc"  # cld
    "ba f803"  # mov $0x3f8,%dx         the first serial port
    "b0 52"  # mov $'R',%al
    "ee"  # out %al,(%dx)
    "31 c0"  # xor %ax,%ax
    "8e d8"  # mov %ax,%ds
    "c7 06 0010 0320"  # movw $0x2003,0x1000    level 4, first entry: table at 0x2000, present, writable
    "c7 06 0020 0330"  # movw $0x3003,0x2000    level 3: table at 0x3000
    "c7 06 0030 8300"  # movw $0x0083,0x3000    level 2: one page of 2 MiB, where it is (the memory starts as zeros)
)
_TO_LONG_MODE = (
    "66 b8 00100000"  # mov $0x1000,%eax
    "0f 22 d8"  # mov %eax,%cr3
    "66 b8 20000000"  # mov $0x20,%eax         PAE
    "0f 22 e0"  # mov %eax,%cr4
    "66 b9 800000c0"  # mov $0xc0000080,%ecx   EFER
    "0f 32"  # rdmsr
    "0d 0001"  # or $0x100,%ax          long mode enabled
    "0f 30"  # wrmsr
    "66 b8 01000080"  # mov $0x80000001,%eax   paging and protection: from here on it is active
    "0f 22 c0"  # mov %eax,%cr0
)
_LONG_MODE = (
    "66 ba f803"  # mov $0x3f8,%dx
    "b0 4c"  # mov $'L',%al
    "ee"  # out %al,(%dx)
    "66 ba 0105"  # mov $0x501,%dx         isa-debug-exit
    f"b0 {_WRITTEN:02x}"  # mov $0x21,%al
    "ee"  # out %al,(%dx)
    "f4"  # hlt                    never reached under QEMU
    "eb fd"  # jmp to the hlt
)


def x86_64_rom() -> bytes:
    """Return the ROM, 64 KiB with the code at its beginning and a jump to it at the reset vector."""
    load_gdt_bytes, far_jump_bytes = 6, 8
    real, switch, long = (bytes.fromhex(part) for part in (_REAL_MODE, _TO_LONG_MODE, _LONG_MODE))
    long_at = len(real) + load_gdt_bytes + len(switch) + far_jump_bytes
    gdt_pointer_at = long_at + len(long)
    gdt_at = gdt_pointer_at + 6
    code = (
        real
        + bytes.fromhex("2e 0f 01 16")  # lgdt %cs:...
        + struct.pack("<H", gdt_pointer_at)
        + switch
        + bytes.fromhex("66 ea")  # ljmp: loads the 64-bit code segment
        + struct.pack("<IH", _BASE + long_at, _CODE_SELECTOR)
        + long
        + struct.pack("<HI", 2 * 8 - 1, _BASE + gdt_at)
        + struct.pack("<QQ", 0, _FLAT_64_BIT_CODE)
    )
    rom = bytearray(_ROM_BYTES)
    rom[: len(code)] = code
    rom[_RESET_VECTOR : _RESET_VECTOR + 5] = b"\xea" + struct.pack("<HH", 0, _BASE >> 4)  # ljmp $0xf000,$0
    return bytes(rom)


def arm64_rom() -> bytes:
    """Return the ROM for QEMU's arm64 board ``virt``, whose serial port is at 0x9000000."""
    words = (
        0xD2A12001,  # movz x1, #0x900, lsl #16
        0x52800A40,  # movz w0, #'R'
        0x39000020,  # strb w0, [x1]
        0x52800100,  # movz w0, #0x0008
        0x72B08000,  # movk w0, #0x8400, lsl #16     PSCI: SYSTEM_OFF
        0xD4000002,  # hvc #0
        0x14000000,  # b .                           never reached
    )
    return struct.pack(f"<{len(words)}I", *words)


@dataclass(frozen=True, slots=True)
class Rom:
    """A ROM, the boards that it is for, what it prints, and the status with which QEMU ends when it ran to its end."""

    content: Callable[[], bytes]
    boards: tuple[str, ...]
    greeting: str
    status: int
    arguments: tuple[str, ...] = ()


#: By uname's name of the machine. The debug device makes twice what was written to it, plus one, the status of QEMU.
ROMS: Mapping[str, Rom] = {
    "x86_64": Rom(x86_64_rom, ("pc", "microvm"), "RL", 2 * _WRITTEN + 1, ("-device", "isa-debug-exit")),
    "aarch64": Rom(arm64_rom, ("virt",), "R", 0),
}

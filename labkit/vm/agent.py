"""The guest's first process: some thirty machine instructions that make the system calls the host sends.

Something in the guest must carry out what ``guest.exec(...)`` asks for. A shell would have to be told where each stream begins and
ends; a Python takes a second to start under emulation. This program is the init of the guest, starts in no time, and knows
nothing: it makes the calls of the list that lies in its own file, then rings (writes a byte to its port), waits until the host
rings back, makes the calls of the list that lies in the memory it shares with the host by then (`labkit.vm.calls`), rings, and
so on. How a command is started, fed, watched and killed is decided on the host, in Python.

The shared memory is a piece of the machine's RAM that the guest kernel was told to leave alone, mapped from /dev/mem. For the
host, all of a guest's RAM is a file in memory: it just looks. A megabyte costs a copy, where a serial port would take
seconds under emulation.

A command's process is made by clone with CLONE_VM and CLONE_VFORK: it goes through the next records of the same list (dup3,
execve) in the same memory, while its parent waits for the execve and then passes over them. It uses no stack.

If the port breaks the agent ends, which the kernel answers with a panic: a guest does not outlive its host's interest.

Leaves out: more than one list at a time.
See: clone(2) (CLONE_VFORK), mem(4), elf(5), syscall(2) (registers), Intel SDM volume 2, Arm Architecture
Reference Manual, chapter C6.
"""

from __future__ import annotations

import struct

from labkit.errors import FeatureMissing
from labkit.vm.calls import FIRST_LIST, CallList

__all__ = ["AGENT_MACHINES", "agent_program"]

_LOAD_ADDRESS = 0x400000
_HEADER_BYTES = 64 + 56
_X86_64 = bytes.fromhex(
    "bb00104000"  #         mov  ebx, 0x401000        FIRST_LIST
    "8b03"  #         next: mov  eax, [rbx]           the call's number
    "85c0"  #               test eax, eax
    "7836"  #               js   ring                 negative, the end of the list
    "488b7b08"  #           mov  rdi, [rbx+8]         and its six arguments
    "488b7310"  #           mov  rsi, [rbx+16]
    "488b5318"  #           mov  rdx, [rbx+24]
    "4c8b5320"  #           mov  r10, [rbx+32]
    "4c8b4328"  #           mov  r8,  [rbx+40]
    "4c8b4b30"  #           mov  r9,  [rbx+48]
    "0f05"  #               syscall
    "48894308"  #           mov  [rbx+8], rax         the answer
    "488b4b38"  #           mov  rcx, [rbx+56]        who else wants to know?
    "488901"  #             mov  [rcx], rax
    "4885c0"  #             test rax, rax
    "7406"  #               jz   step
    "8b4b04"  #             mov  ecx, [rbx+4]         skip what is not for the parent
    "4801cb"  #             add  rbx, rcx
    "4883c340"  #     step: add  rbx, 64              the next record
    "ebc4"  #               jmp  next
    "bf09000000"  #   ring: mov  edi, 9               PORT_FD
    "be00104000"  #         mov  esi, 0x401000        any byte
    "ba01000000"  #         mov  edx, 1
    "89d0"  #               mov  eax, edx             write it,
    "0f05"  #               syscall
    "31c0"  #               xor  eax, eax
    "0f05"  #               syscall                   read one
    "bb00000010"  #         mov  ebx, 0x10000000      MAILBOX
    "4883f801"  #           cmp  rax, 1
    "74a2"  #               je   next
    "bf01000000"  #         mov  edi, 1               nobody is there any more
    "b8e7000000"  #         mov  eax, 231             exit_group
    "0f05"  #               syscall
)
# The same for arm64, whose instructions are words of 4 bytes, here as they are read: the highest byte first.
_AARCH64 = b"".join(
    bytes.fromhex(word)[::-1]
    for word in (
        "d2820013",  #       mov  x19, #0x1000            FIRST_LIST
        "f2a00813",  #       movk x19, #0x40, lsl #16
        "b9400268",  # next: ldr  w8, [x19]               the call's number
        "37f801a8",  #       tbnz w8, #31, ring           negative, the end of the list
        "b9400674",  #       ldr  w20, [x19, #4]          what is not for the parent
        "a9408660",  #       ldp  x0, x1, [x19, #8]       and its six arguments
        "a9418e62",  #       ldp  x2, x3, [x19, #24]
        "a9429664",  #       ldp  x4, x5, [x19, #40]
        "d4000001",  #       svc  #0
        "f9000660",  #       str  x0, [x19, #8]           the answer
        "f9401e69",  #       ldr  x9, [x19, #56]          who else wants to know?
        "f9000120",  #       str  x0, [x9]
        "b4000040",  #       cbz  x0, step
        "8b140273",  #       add  x19, x19, x20           skip
        "91010273",  # step: add  x19, x19, #64           the next record
        "17fffff3",  #       b    next
        "d2800120",  # ring: mov  x0, #9                  PORT_FD
        "d2820001",  #       mov  x1, #0x1000             any byte
        "f2a00801",  #       movk x1, #0x40, lsl #16
        "d2800022",  #       mov  x2, #1
        "d2800808",  #       mov  x8, #64                 write it,
        "d4000001",  #       svc  #0
        "d2800120",  #       mov  x0, #9
        "d28007e8",  #       mov  x8, #63                 read one
        "d4000001",  #       svc  #0
        "d2a20013",  #       mov  x19, #0x10000000        MAILBOX
        "f100041f",  #       cmp  x0, #1
        "54fffce0",  #       b.eq next
        "d2800020",  #       mov  x0, #1                  nobody is there any more
        "d2800bc8",  #       mov  x8, #94                 exit_group
        "d4000001",  #       svc  #0
    )
)
_CODE = {"x86_64": (62, _X86_64), "aarch64": (183, _AARCH64)}
#: The machines for which there is an agent.
AGENT_MACHINES = tuple(_CODE)


def agent_program(first: CallList, machine: str = "x86_64") -> bytes:
    """Return the agent as an ELF file that begins with the calls of ``first``. Raises: FeatureMissing on other machines."""
    if machine not in _CODE:
        raise FeatureMissing(
            f"labkit has no agent for guests with a {machine} processor.",
            remedy=f"It has one for {' and '.join(_CODE)}: run the virtual machines there.",
        )
    elf_machine, code = _CODE[machine]
    text = _elf_header(elf_machine) + code
    text += bytes(FIRST_LIST - _LOAD_ADDRESS - len(text)) + first.pack(FIRST_LIST)
    return text[:64] + _segment(len(text)) + text[_HEADER_BYTES:]


def _elf_header(elf_machine: int) -> bytes:
    """Return the header of a static program with one segment, and room for the segment's description."""
    ident = b"\x7fELF" + bytes([2, 1, 1]) + bytes(9)  # 64 bits, little-endian
    fields = (2, elf_machine, 1, _LOAD_ADDRESS + _HEADER_BYTES, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    return ident + struct.pack("<HHIQQQIHHHHHH", *fields) + bytes(56)


def _segment(file_bytes: int) -> bytes:
    """Describe the one segment: the whole file, readable, writable (answers go into the list) and executable."""
    load, read_write_execute = 1, 7
    return struct.pack(
        "<IIQQQQQQ", load, read_write_execute, 0, _LOAD_ADDRESS, _LOAD_ADDRESS, file_bytes, file_bytes, 4096
    )

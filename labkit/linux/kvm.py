"""A virtual machine is a file descriptor: /dev/kvm, used by hand.

Opening ``/dev/kvm`` and asking for KVM_CREATE_VM gives a descriptor that *is* a machine without anything in it. Memory is put in by naming
a piece of this process's own; KVM_CREATE_VCPU gives another descriptor, a processor. KVM_RUN lets the real CPU execute the guest's
instructions, at full speed, until one of them needs somebody else: an access to a device's port comes back to this process as an *exit*,
and what the device is, this process decides. QEMU is, at heart, this loop and a great many devices.

Here there is one device, a port to write characters to, and the guest is a few bytes of 16-bit code. `run` does it in a process of its
own with a time limit, for a host that offers KVM may still hang in it.

Leaves out: interrupts, more than one processor, anything beyond 64 KiB of memory; arm64, whose processors start another way.
See: Documentation/virt/kvm/api.rst, linux/kvm.h.
"""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from labkit.linux.fds import Fd

__all__ = ["MEMORY_BYTES", "OUTPUT_PORT", "SIX_TIMES_SEVEN", "execute", "run"]

# linux/kvm.h, as ioctl(2) numbers: _IO(0xAE, n), and the ones that carry a structure with its size. ABI: x86-64.
_GET_API_VERSION, _CREATE_VM, _GET_VCPU_MMAP_SIZE = 0xAE00, 0xAE01, 0xAE04
_CREATE_VCPU, _RUN = 0xAE41, 0xAE80
_SET_USER_MEMORY_REGION, _SET_REGS, _GET_SREGS, _SET_SREGS = 0x4020AE46, 0x4090AE82, 0x8138AE83, 0x4138AE84
_EXIT_IO, _EXIT_HLT = 2, 5
_API_VERSION = 12  # has not changed since Linux 2.6.22
_SREGS_BYTES, _SEGMENT_BYTES = 0x138, 24
# struct kvm_run: the reason of the exit, and what is said about an exit to a port.
_EXIT_REASON_AT, _IO_AT = 8, 32
MEMORY_BYTES = 0x10000
OUTPUT_PORT = 0x3F8
_MOST_EXITS = 10_000
#: 16-bit code: the product of 6 and 7, as two digits and a newline, to the port; then the processor halts.
SIX_TIMES_SEVEN = bytes.fromhex(
    "ba f803"  # mov $0x3f8,%dx
    "b8 0600"  # mov $6,%ax
    "b3 07"  # mov $7,%bl
    "f6 e3"  # mul %bl          42 in %ax
    "d4 0a"  # aam              4 in %ah, 2 in %al
    "05 3030"  # add $0x3030,%ax  the digits as characters
    "86 c4"  # xchg %al,%ah
    "ee"  # out %al,(%dx)
    "86 c4"  # xchg %al,%ah
    "ee"  # out %al,(%dx)
    "b0 0a"  # mov $'\n',%al
    "ee"  # out %al,(%dx)
    "f4"  # hlt
)


def execute(code: bytes) -> bytes:
    """Run ``code`` as a guest until it halts; return what it wrote to `OUTPUT_PORT`.

    Raises: OSError as ioctl(2) does, with EPROTO for an exit that this loop does not know; ValueError for too much code.
    """
    if not 0 < len(code) <= MEMORY_BYTES:
        raise ValueError(f"{len(code)} bytes of code do not fit into {MEMORY_BYTES}")
    with ExitStack() as stack:
        device = stack.enter_context(Fd(os.open("/dev/kvm", os.O_RDWR | os.O_CLOEXEC)))
        if fcntl.ioctl(device, _GET_API_VERSION) != _API_VERSION:
            raise OSError(0, "KVM speaks another version of its interface", "/dev/kvm")
        machine = stack.enter_context(Fd(fcntl.ioctl(device, _CREATE_VM, 0)))
        memory = stack.enter_context(mmap.mmap(-1, MEMORY_BYTES))
        memory[: len(code)] = code
        with _address_of(memory) as address:
            # slot 0, no flags, guest's physical address 0, size, our address
            fcntl.ioctl(machine, _SET_USER_MEMORY_REGION, struct.pack("<IIQQQ", 0, 0, 0, MEMORY_BYTES, address))
            processor = stack.enter_context(Fd(fcntl.ioctl(machine, _CREATE_VCPU, 0)))
            shared_bytes = fcntl.ioctl(device, _GET_VCPU_MMAP_SIZE)
            with mmap.mmap(processor.number, shared_bytes) as shared:
                _start_at_zero(processor)
                output = b"".join(_exits(processor, shared))
            processor.close()
            machine.close()  # before the memory goes
    return output


def _start_at_zero(processor: Fd) -> None:
    """Point the code segment and the instruction pointer to address 0; a processor wakes up elsewhere."""
    special = bytearray(_SREGS_BYTES)
    fcntl.ioctl(processor, _GET_SREGS, special)
    struct.pack_into("<QIH", special, 0, 0, 0xFFFF, 0)  # cs comes first: base, limit, selector
    fcntl.ioctl(processor, _SET_SREGS, bytes(special))
    general = [0] * 16 + [0, 2]  # ..., rip, rflags, whose second bit is always 1
    fcntl.ioctl(processor, _SET_REGS, struct.pack("<18Q", *general))


def _exits(processor: Fd, shared: mmap.mmap) -> Iterator[bytes]:
    """Let the processor run, again and again; yield what it writes to the port."""
    for _ in range(_MOST_EXITS):
        fcntl.ioctl(processor, _RUN, 0)
        reason = struct.unpack_from("<I", shared, _EXIT_REASON_AT)[0]
        if reason == _EXIT_HLT:
            return
        is_out, size_bytes, port, count, data_at = struct.unpack_from("<BBHIQ", shared, _IO_AT)
        if (reason, is_out, port) != (_EXIT_IO, 1, OUTPUT_PORT):
            raise OSError(71, f"the guest stopped for a reason that nobody here can help with ({reason})", "/dev/kvm")
        yield shared[data_at : data_at + size_bytes * count]
    raise OSError(71, f"the guest wrote more than {_MOST_EXITS} times", "/dev/kvm")


@contextmanager
def _address_of(memory: mmap.mmap) -> Iterator[int]:
    view = ctypes.c_char.from_buffer(memory)
    try:
        yield ctypes.addressof(view)
    finally:
        del view  # it keeps the mapping from being closed


def run(code: bytes, *, limit_s: float = 2.0) -> bytes:
    """Return what `execute` returns, from a process that is killed after ``limit_s``.

    Raises: OSError if it was refused, TimeoutError if the guest did not halt in time.
    """
    package = str(Path(__file__).resolve().parents[2])
    program = "import sys; sys.path.insert(0, sys.argv[1]); from labkit.linux.kvm import main; main(sys.argv[2])"
    command = [sys.executable, "-I", "-S", "-c", program, package, code.hex()]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=limit_s, check=False)
    except subprocess.TimeoutExpired as error:
        raise TimeoutError(f"the guest on /dev/kvm did not halt within {limit_s:g} s") from error
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        number, _, text = (said[-1] if said else f"0 status {done.returncode}").partition(" ")
        raise OSError(int(number) if number.isdigit() else 0, text, "/dev/kvm")
    return done.stdout


def main(code_hex: str) -> None:
    """Run the code and write its output; an error goes to standard error as its number and text."""
    try:
        sys.stdout.buffer.write(execute(bytes.fromhex(code_hex)))
    except OSError as error:
        sys.stderr.write(f"{error.errno} {error.strerror}\n")
        raise SystemExit(1) from error


def demonstrate() -> int:
    """Let the guest of a few bytes multiply 6 by 7; return 0, or 1 where /dev/kvm is missing or hangs."""
    print(f"a guest of {len(SIX_TIMES_SEVEN)} bytes, in {MEMORY_BYTES // 1024} KiB of memory")
    try:
        print(f"it wrote {run(SIX_TIMES_SEVEN)!r} to port {OUTPUT_PORT:#x}")
    except OSError as error:
        print(f"labkit: not on this machine: {error}. Virtual machines then run under emulation.", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(demonstrate())

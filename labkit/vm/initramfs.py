"""The first file system of a guest, and what its init does before it says that it is ready.

The kernel unpacks an archive (`labkit.vm.cpio`) into a file system in memory and starts ``/init`` from it. For a micro guest that is
all there is: the agent as init, a static busybox with a link for each of its programs, and empty folders for what gets
mounted. The calls that init begins with stand in `first_calls`; modules and mounts follow from the host (`labkit.vm.boot`).

Leaves out: initramfs generators, early microcode, compressed archives (unpacking takes the guest longer than reading).
See: Documentation/filesystems/ramfs-rootfs-initramfs.rst, termios(3), init_module(2).
"""

from __future__ import annotations

import struct
import subprocess
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

from labkit.errors import FeatureMissing
from labkit.setup.parts import find_busybox
from labkit.vm.agent import agent_program
from labkit.vm.calls import MAILBOX, MAILBOX_BYTES, PORT_FD, CallList
from labkit.vm.cpio import Entry, device, file, folder, link, pack_cpio

__all__ = ["first_calls", "initramfs", "micro_files"]

# fcntl.h, sys/mman.h, asm/termbits.h: the same on x86-64 and arm64
_AT_FDCWD, _O_RDWR, _O_NOCTTY, _O_CLOEXEC = -100, 0o2, 0o400, 0o2000000
_READ_WRITE, _SHARED_FIXED = 3, 0x11
# struct termios: 8 bits, receive, no modem, 115200; no input, output or local habits; read returns from the first byte on.
_TCSETS, _CS8, _CREAD, _CLOCAL, _B115200, _VMIN = 0x5402, 0o60, 0o200, 0o4000, 0o10002, 6
_RAW = struct.pack("<4IB19s", 0, 0, _CS8 | _CREAD | _CLOCAL | _B115200, 0, 0, bytes(_VMIN) + b"\1" + bytes(12))


def first_calls(port: str, mailbox_address: int, machine: str) -> CallList:
    """Return the calls that make the guest's init reachable: map the shared memory, open the port, make it transparent.

    ``port`` is the device that leads to the host, ``mailbox_address`` where the shared memory lies in the guest's RAM.
    """
    calls = CallList(machine)
    memory = calls.call("openat", _AT_FDCWD, "/dev/mem", _O_RDWR | _O_CLOEXEC)
    calls.call("mmap", MAILBOX, MAILBOX_BYTES, _READ_WRITE, _SHARED_FIXED, memory, mailbox_address)
    opened = calls.call("openat", _AT_FDCWD, port, _O_RDWR | _O_NOCTTY | _O_CLOEXEC)
    calls.call("dup3", opened, PORT_FD, _O_CLOEXEC)
    calls.call("ioctl", PORT_FD, _TCSETS, _RAW)  # refused by a port that is no terminal, and needless there
    return calls


def initramfs(first: CallList, files: Iterable[Entry], machine: str) -> bytes:
    """Return the archive with the agent as ``/init``, the devices that it needs, and ``files``."""
    return pack_cpio(
        [
            folder("dev"),
            # The kernel opens the console for init's standard streams before init could mount anything.
            device("dev/console", 5, 1),
            device("dev/mem", 1, 1),
            device("dev/ttyS1", 4, 65),
            device("dev/ttyS0", 4, 64),
            file("init", agent_program(first, machine), permissions=0o755),
            *files,
        ]
    )


def micro_files(busybox: Path | None = None) -> list[Entry]:
    """Return busybox, a link for each of its programs, and the folders that the programs expect.

    Raises: FeatureMissing without a static busybox.
    """
    path = busybox or find_busybox()
    if path is None:
        raise FeatureMissing("This machine has no static busybox to put into a guest.", remedy="Run `labkit setup`.")
    return [
        *map(folder, ("bin", "etc", "proc", "root", "run", "sys")),
        folder("tmp", permissions=0o1777),
        file("etc/passwd", b"root:x:0:0:root:/root:/bin/sh\n"),
        file("etc/group", b"root:x:0:\n"),
        file("bin/busybox", path.read_bytes(), permissions=0o755),
        *(link(f"bin/{name}", "busybox") for name in _programs_of(path)),
    ]


@lru_cache(maxsize=4)
def _programs_of(busybox: Path) -> tuple[str, ...]:
    done = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True, timeout=10)
    return tuple(name for name in done.stdout.split() if name != "busybox")

"""What every attacking program can use; its source stands in front of each program, so it needs the standard library alone.

System calls by number, through the entry of 64-bit programs or the older one of 32-bit programs (``int 0x80``), which has other
numbers: a filter that knows only one of them has a hole.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import platform
import socket
import sys
from collections.abc import Callable, Iterator
from typing import Any

__all__ = [
    "abstract",
    "answer_of",
    "first_of",
    "libc",
    "low_memory",
    "mount",
    "pids",
    "private_mounts",
    "read",
    "scratch",
    "syscall",
    "syscall32",
]

libc = ctypes.CDLL(None, use_errno=True)
_X86 = platform.machine() == "x86_64"
#: mov the arguments of a C function to where the kernel looks for those of a 32-bit program, int 0x80, ret
_INT_80 = bytes.fromhex("53 89f8 89f3 4189ca 89d1 4489d2 4489c6 4489cf cd80 5b c3")


def syscall(number: int, *arguments: Any) -> int:
    """Make a system call; raise OSError with what the kernel answers."""
    result = libc.syscall(ctypes.c_long(number), *[ctypes.c_long(a) if isinstance(a, int) else a for a in arguments])
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return int(result)


def syscall32(number: int, *arguments: int) -> int:
    """Make a system call as a 32-bit program does; pointers must lie in `low_memory`."""
    if not _X86:
        raise OSError(errno.ENOSYS, "this machine has no 32-bit entry")
    page = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(_INT_80)
    address = ctypes.addressof(ctypes.c_char.from_buffer(page))
    call = ctypes.CFUNCTYPE(ctypes.c_int, *[ctypes.c_uint] * 6)(address)
    padded = [*arguments, 0, 0, 0, 0, 0][:5]
    result = int(call(number, *[argument & 0xFFFFFFFF for argument in padded]))
    if -4096 < result < 0:
        raise OSError(-result, os.strerror(-result))
    return result


def low_memory(content: bytes) -> int:
    """Return the address, below 4 GiB, of memory that starts with ``content``."""
    libc.mmap.restype = ctypes.c_void_p
    address = libc.mmap(None, ctypes.c_size_t(65536), 3, 0x22 | 0x40, -1, ctypes.c_long(0))  # MAP_32BIT
    ctypes.memmove(address, content, len(content))
    return int(address)


def read(path: str, length: int = 4096) -> str:
    """Return the start of a file."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        return os.read(fd, length).decode(errors="replace")
    finally:
        os.close(fd)


def mount(source: str, target: str, kind: str, flags: int = 0, data: str = "") -> None:
    """Mount, or raise OSError."""
    arguments = [source.encode(), target.encode(), kind.encode()]
    if libc.mount(*arguments, ctypes.c_ulong(flags), data.encode() or None) < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), target)


def private_mounts() -> None:
    """Do what follows in a mount namespace of this program's own: the others of the sandbox keep theirs."""
    if libc.unshare(0x00020000) < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    mount("none", "/", "none", (1 << 18) | 16384)  # MS_PRIVATE | MS_REC


def scratch(name: str) -> str:
    """Return a new folder for this program's own things."""
    path = f"{os.environ.get('LABKIT_SCRATCH', '/tmp')}/labkit-{name}"
    os.makedirs(path, exist_ok=True)
    return path


def pids() -> Iterator[int]:
    """Yield every process that /proc shows."""
    yield from (int(name) for name in os.listdir("/proc") if name.isdigit())


def answer_of(program: Callable[..., dict[str, Any] | None], arguments: dict[str, Any]) -> dict[str, Any]:
    """Run the program and return its answer; what the kernel refuses becomes ``errno``."""
    try:
        return {"errno": "", **(program(**arguments) or {})}
    except OSError as error:
        return {"errno": errno.errorcode.get(error.errno or 0, str(error))}
    except ValueError as error:  # what the interpreter makes of some refusals
        return {"errno": str(error)}
    except MemoryError:
        return {"errno": "ENOMEM"}


def abstract(name: str) -> socket.socket:
    """Return a socket connected to the abstract address ``name``."""
    connected = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connected.settimeout(2.0)
    connected.connect("\0" + name)
    return connected


def first_of(*attempts: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return what the first of the attempts brings that the kernel does not refuse."""
    refusals = []
    for attempt in attempts:
        try:
            return attempt()
        except OSError as error:
            refusals.append(errno.errorcode.get(error.errno or 0, str(error)))
    return {"errno": " ".join(dict.fromkeys(refusals))}


if sys.platform != "linux":
    raise ImportError("for Linux only")

"""ptrace(2): how one process takes hold of another one, to look into it and to change it.

Who may do it is decided by ids and capabilities, in the user namespace of the process that is traced, and by Yama, which on many
systems lets only parents trace their children.

Leaves out: everything that a debugger then does.
See: ptrace(2) ("Ptrace access mode checking"), yama in the kernel's Documentation/admin-guide/LSM.
"""

from __future__ import annotations

import ctypes
import os
import subprocess

from labkit.linux.proc import read_status

__all__ = ["seize"]

_PTRACE_SEIZE = 0x4206  # linux/ptrace.h

# ABI: glibc declares ptrace as variadic and its arguments are pointers or longs: they are all passed as longs.
_ptrace = ctypes.CDLL(None, use_errno=True)["ptrace"]
_ptrace.argtypes, _ptrace.restype = (ctypes.c_long,) * 4, ctypes.c_long


def seize(pid: int) -> None:
    """Become the tracer of ``pid`` without stopping it; it is let go when the caller ends.

    Raises: ProcessLookupError, PermissionError.
    """
    if _ptrace(_PTRACE_SEIZE, pid, 0, 0) < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"ptrace(PTRACE_SEIZE, {pid}): {os.strerror(number)}")


def main() -> int:
    """Seize a child that sleeps and read in /proc who traces it; return 0, or 1 where that is refused."""
    with subprocess.Popen(["sleep", "60"]) as child:
        try:
            seize(child.pid)
            print(
                f"process {child.pid} is traced by {read_status(child.pid).tracer_pid}; this program is {os.getpid()}"
            )
        except OSError as error:
            print(f"labkit: refused: {error}. Yama's ptrace_scope may say so.")
            return 1
        finally:
            child.kill()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

"""A child that carries out a list of system calls and becomes a program, without ever running Python.

A forked copy of a Python process is slow to make and slow to leave: its page tables are copied, every page it touches
is copied, and all of it is thrown away by execve. So on x86-64 the child shares the launcher's memory (CLONE_VM), as
vfork's children do, and runs only the 34 instructions below: load a record, make the call, look at the answer, go on. It uses
no stack, writes nothing but the records' result words and the header, and ends in execve or exit_group.

On other machines, and with ``LABKIT_CHILD=copy`` in the environment, the child is a copy that runs the same steps in Python.

Leaves out: machine code for other machines.
See: clone(2) (CLONE_VM), vfork(2), syscall(2) (registers), Intel SDM volume 2.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import signal
import sys
from typing import NoReturn

from labkit.linux.constants import NS, CloneFlag
from labkit.linux.steps import Arena, Program, Step
from labkit.linux.syscalls import CloneArgs, clone3, unshare

__all__ = ["shares_memory", "spawn_in_time", "spawn_program"]

# rdi: struct clone_args, rsi: its size, rdx: header {record under way, record refused}. rbx: the record; r12: the header.
_X86_64 = bytes.fromhex(
    "b8b3010000"  #         mov  eax, 435             clone3
    "0f05"  #               syscall
    "4885c0"  #             test rax, rax
    "7401"  #               jz   child
    "c3"  #                 ret                       the launcher goes on with the child's pid
    "4989d4"  #      child: mov  r12, rdx
    "498b1c24"  #           mov  rbx, [r12]           the first record
    "49891c24"  #     next: mov  [r12], rbx           say where we are
    "488b03"  #             mov  rax, [rbx]           the call's number
    "488b7b08"  #           mov  rdi, [rbx+8]         and its six arguments
    "488b7310"  #           mov  rsi, [rbx+16]
    "488b5318"  #           mov  rdx, [rbx+24]
    "4c8b5320"  #           mov  r10, [rbx+32]
    "4c8b4328"  #           mov  r8,  [rbx+40]
    "4c8b4b30"  #           mov  r9,  [rbx+48]
    "0f05"  #               syscall
    "48894338"  #           mov  [rbx+56], rax        keep the answer
    "483b4340"  #           cmp  rax, [rbx+64]        at least what was expected?
    "7c14"  #               jl   refused
    "488b4b48"  #           mov  rcx, [rbx+72]        is the answer the next step's first argument?
    "e304"  #               jrcxz done
    "48894368"  #           mov  [rbx+96+8], rax
    "48035b50"  #     done: add  rbx, [rbx+80]        skip what success makes needless
    "4883c360"  #     step: add  rbx, 96              the next record
    "ebc1"  #               jmp  next
    "48f7d8"  #    refused: neg  rax                  -errno becomes errno
    "4883f83f"  #           cmp  rax, 63
    "7707"  #               ja   fatal
    "480fa34358"  #         bt   [rbx+88], rax        is that errno tolerated?
    "72ea"  #               jc   step
    "49895c2408"  #  fatal: mov  [r12+8], rbx         say which step was refused
    "bf7f000000"  #         mov  edi, 127
    "b8e7000000"  #         mov  eax, 231             exit_group
    "0f05"  #               syscall
)


def _load_code() -> ctypes._CFunctionType | None:
    """Put the instructions into memory that may be executed; None where the machine is another or forbids it."""
    if os.uname().machine != "x86_64" or os.environ.get("LABKIT_CHILD") == "copy":
        return None
    try:
        page = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    except (OSError, PermissionError):
        return None  # a hardened kernel refuses memory that is writable and executable
    page.write(_X86_64)
    _pages.append(page)
    address = ctypes.addressof(ctypes.c_char.from_buffer(page))
    # PYFUNCTYPE keeps the interpreter lock: nothing of Python may run between here and the return in the launcher.
    return ctypes.PYFUNCTYPE(ctypes.c_long, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p)(address)


_pages: list[mmap.mmap] = []
_spawn = _load_code()


def shares_memory() -> bool:
    """Tell whether children share the caller's memory (machine code) or are copies that run Python."""
    return _spawn is not None


def spawn_program(
    program: Program, flags: int, *, exit_signal: int, cgroup_fd: int = -1, copy: bool = False
) -> tuple[int, int]:
    """Clone a child in the new namespaces of ``flags`` that carries out ``program``; return ``(pid, pidfd)`` at once.

    The caller must have one thread and must wait for the child's execve or end (watch a close-on-exec descriptor) before it
    touches ``program`` again. ``copy`` forces the Python way. Raises: OSError as `clone3` does.
    """
    if _spawn is None or copy:
        pid, pidfd = clone3(flags, exit_signal=exit_signal, cgroup_fd=cgroup_fd)
        if pid == 0:
            _perform_and_exit(program)
        return pid, pidfd
    pidfd_box = ctypes.c_int(-1)
    args = CloneArgs.make(
        flags | CloneFlag.VM, pidfd_address=ctypes.addressof(pidfd_box), exit_signal=exit_signal, cgroup_fd=cgroup_fd
    )
    pid = int(_spawn(ctypes.addressof(args), ctypes.sizeof(args), program.header_address))
    if pid < 0:
        raise OSError(-pid, f"clone3({NS(flags & 0x7E020080)!r}): {os.strerror(-pid)}")
    return pid, pidfd_box.value


def spawn_in_time(program: Program, flags: int, *, offset_s: int, cgroup_fd: int = -1) -> tuple[int, int]:
    """Do as `spawn_program` where execve does not enter a time namespace (before Linux 6.3): by way of a process between.

    Only a fork leads into the time namespace there, and only an empty one takes offsets (time_namespaces(7)). So a process in
    between makes it, sets it, and forks the child, whose parent is the caller (CLONE_PARENT). Raises: OSError.
    """
    read_fd, write_fd = os.pipe2(os.O_CLOEXEC)
    between = os.fork()
    if between == 0:
        os.close(read_fd)
        _fork_into_time(program, flags, write_fd, offset_s=offset_s, cgroup_fd=cgroup_fd)
    os.close(write_fd)
    # One read: the end of file comes only with the child's execve, as it has a copy of the other end.
    answer = os.read(read_fd, 32)
    os.close(read_fd)
    os.waitpid(between, 0)
    pid = int(answer or b"-1")
    if pid < 0:
        raise OSError(-pid, f"making a time namespace with offsets: {os.strerror(-pid)}")
    return pid, os.pidfd_open(pid)


def _fork_into_time(program: Program, flags: int, write_fd: int, *, offset_s: int, cgroup_fd: int) -> NoReturn:
    try:
        unshare(NS.TIME)
        with open("/proc/self/timens_offsets", "w") as file:
            file.write(f"monotonic {offset_s} 0\nboottime {offset_s} 0\n")
        # With CLONE_PARENT the signal at the child's end is the one that was agreed on for this process: SIGCHLD.
        wanted = (flags & ~NS.TIME) | CloneFlag.PARENT
        pid, _ = spawn_program(program, wanted, exit_signal=0, cgroup_fd=cgroup_fd, copy=True)
        os.write(write_fd, str(pid).encode())
    except OSError as error:
        os.write(write_fd, str(-(error.errno or 1)).encode())
    finally:
        os._exit(0)


def _perform_and_exit(program: Program) -> NoReturn:
    try:
        program.run()  # ends in execve, or in a note of what was refused
    finally:
        os._exit(127)


def main() -> int:
    """Spawn a shell that never was a Python: name a host in a namespace of its own, and become ``uname -n``."""
    steps = [
        Step("sethostname", ("labkit-moon", 11), "name the host"),
        Step("execve", ("/bin/uname", ("/bin/uname", "-n"), ()), "become the program"),
    ]
    print(*steps, sep="\n", flush=True)
    program = Program(steps, Arena())  # the child reads it: it must be there until the child has become another program
    try:
        pid, pidfd = spawn_program(program, NS.USER | NS.UTS, exit_signal=signal.SIGCHLD)
    except OSError as error:
        print(f"labkit: this machine refuses: {error}. `labkit doctor` says which rule it is.", file=sys.stderr)
        return 1
    os.close(pidfd)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    print(f"process {pid} shared our memory: {shares_memory()}; it ended with {code}")
    return code


if __name__ == "__main__":
    raise SystemExit(main())

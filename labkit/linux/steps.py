"""A container as a list of system calls, and two ways to carry such a list out.

A `Step` is one system call with its arguments and what to make of the answer. Making a container is a list of about a hundred
steps, put together before anything is started; so it can be printed, read and compared, and a refused step has a name.

`perform` carries the steps out one after another in Python. `Program` packs them into memory for `labkit.linux.spawn`, whose few
machine instructions do the same in a child that never runs Python at all.

Leaves out: loops and conditions, but for "skip the next N when this one worked".
See: syscalls(2), syscall(2).
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import struct
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum, IntFlag
from functools import lru_cache, wraps
from typing import Any, ParamSpec, TypeAlias, cast

__all__ = [
    "ANY_ERRNO",
    "Arena",
    "Arg",
    "Part",
    "Program",
    "Refused",
    "Step",
    "Struct",
    "kept",
    "part",
    "perform",
    "syscall_number",
]

#: An argument: a number, a text or path (passed as a C string), raw bytes or a structure (by address), a list (argv), NULL.
Arg: TypeAlias = "int | str | bytes | tuple[str, ...] | Struct | None"

# The numbers differ by machine; what is not listed for one is not guessed. asm/unistd_64.h, asm-generic/unistd.h
_X86_64 = {
    "read": 0, "write": 1, "close": 3, "ioctl": 16, "socket": 41, "sendto": 44, "recvfrom": 45, "sendmsg": 46, "execve": 59,
    "fcntl": 72, "chdir": 80, "umask": 95, "setsid": 112, "setgroups": 116, "setresuid": 117, "setresgid": 119,
    "capset": 126, "pivot_root": 155, "prctl": 157, "mount": 165, "umount2": 166, "sethostname": 170,
    "exit_group": 231, "keyctl": 250, "eventfd2": 290, "openat": 257, "mkdirat": 258, "mknodat": 259, "symlinkat": 266, "unshare": 272, "dup3": 292,
    "prlimit64": 302, "setns": 308, "seccomp": 317,
}  # fmt: skip
_GENERIC = {
    "eventfd2": 19, "dup3": 24, "fcntl": 25, "ioctl": 29, "mknodat": 33, "mkdirat": 34, "symlinkat": 36, "umount2": 39, "mount": 40,
    "pivot_root": 41, "chdir": 49, "openat": 56, "close": 57, "read": 63, "write": 64, "capset": 91, "exit_group": 94,
    "unshare": 97, "setresuid": 147, "setresgid": 149, "setsid": 157, "setgroups": 159, "sethostname": 161,
    "umask": 166, "prctl": 167, "socket": 198, "sendto": 206, "recvfrom": 207, "sendmsg": 211, "execve": 221,
    "prlimit64": 261, "setns": 268, "seccomp": 277, "keyctl": 219,
}  # fmt: skip
#: Calls since Linux 5.0 have one number everywhere.
_SINCE_5 = {
    "open_tree": 428, "move_mount": 429, "clone3": 435, "close_range": 436, "openat2": 437, "mount_setattr": 442,
}  # fmt: skip
_NUMBERS = {"x86_64": _X86_64 | _SINCE_5, "aarch64": _GENERIC | _SINCE_5, "riscv64": _GENERIC | _SINCE_5}

_OWN_NUMBERS = _NUMBERS.get(os.uname().machine, {})

#: For `Step.tolerate`: whatever the kernel answers, go on.
ANY_ERRNO = tuple(range(1, 64))

#: Which argument of a call is a file mode, shown in octal as people write it.
_MODE_ARGUMENT = {"mkdirat": 2, "mknodat": 2, "umask": 0}

P = ParamSpec("P")


def syscall_number(call: str) -> int:
    """Return the number of a system call on this machine. Raises: OSError with ENOSYS for a machine or call unknown here."""
    try:
        return _OWN_NUMBERS[call]
    except KeyError:
        raise OSError(errno.ENOSYS, f"labkit does not know the number of {call}(2) on {os.uname().machine}") from None


@dataclass(frozen=True, slots=True)
class Struct:
    """A C structure that holds pointers: ``data`` with zeros where the addresses of ``pointers`` (offset, argument) go."""

    data: bytes
    pointers: tuple[tuple[int, Arg], ...]


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """One system call. ``why`` names it for people; an answer below ``least`` is a refusal unless its errno is tolerated.

    ``skip_on_success`` steps are left out when it worked; ``result_to_next`` makes the answer the next step's first argument.
    """

    call: str
    args: tuple[Arg, ...]
    why: str
    tolerate: tuple[int, ...] = ()
    least: int = 0
    skip_on_success: int = 0
    result_to_next: bool = False
    is_kept: bool = False

    def __str__(self) -> str:
        words = [_show(arg) for arg in self.args]
        at = _MODE_ARGUMENT.get(self.call)
        if at is not None and isinstance(mode := self.args[at], int):
            words[at] = f"0{mode:o}"
        return f"{self.call}({', '.join(words)})"


def kept(make: Callable[P, list[Step]]) -> Callable[P, list[Step]]:
    """Remember the steps that ``make`` returns for the same arguments: equal parts of many plans are built and packed once."""

    @lru_cache(maxsize=256)
    def made(*args: Any, **named: Any) -> tuple[Step, ...]:
        return tuple(replace(step, is_kept=True) for step in make(*args, **named))

    @wraps(make)
    def steps(*args: P.args, **named: P.kwargs) -> list[Step]:
        return list(made(*args, **cast(dict[str, Hashable], named)))

    return steps


class Refused(OSError):
    """A step that the kernel refused; ``step`` says which."""

    def __init__(self, number: int, step: Step) -> None:
        super().__init__(number, f"{step.why}: {step}: {os.strerror(number) if number else 'end of file'}")
        self.step = step


def _show(arg: Arg) -> str:
    if arg is None:
        return "NULL"
    if isinstance(arg, Struct):
        return "{" + ", ".join(_show(target) for _, target in arg.pointers) + "}"
    if isinstance(arg, tuple):
        return "[" + ", ".join(map(repr, arg)) + "]"
    if isinstance(arg, bytes):
        return f"<{len(arg)} bytes>" if len(arg) > 16 else repr(arg)
    if isinstance(arg, IntFlag):
        return "|".join(str(flag.name) for flag in arg) or "0"
    if isinstance(arg, IntEnum):
        return arg.name
    if isinstance(arg, int) and not -4096 < arg < 4096:
        return f"{arg:#x}"
    return repr(arg) if isinstance(arg, str) else str(int(arg))


_NOTHING = Step("close", (-1,), "do nothing", tolerate=(errno.EBADF,), is_kept=True)


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """Steps that begin many programs, packed once for all of them; made by `part`."""

    steps: tuple[Step, ...]
    gate: int
    room: int


def part(steps: Sequence[Step], *, gate: int, room: int) -> Part:
    """Return ``steps`` as a `Part`; after the step ``gate``, in which the child will wait, leave ``room`` places free."""
    waiting = replace(steps[gate], skip_on_success=room)
    places = [*steps[:gate], waiting, *[_NOTHING] * room, *steps[gate + 1 :]]
    return Part(tuple(replace(step, is_kept=True) for step in places), gate, room)


class Arena:
    """The memory of programs: argument data and records, at addresses that do not move.

    It is shared with children even when they are copies (MAP_SHARED), so what a child notes there can be read here. The first
    half holds the data of steps that come again and again; the second is one program's, given back by `reset`.
    """

    def __init__(self, size_bytes: int = 1 << 20) -> None:
        self.pages = mmap.mmap(-1, size_bytes)
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(self.pages))
        self._half = size_bytes // 2
        self._end = size_bytes
        self._used = self._half
        self._kept_bytes = 0
        self._records: dict[Step, bytes] = {}
        self._parts: dict[Part, bytes] = {}

    def reset(self) -> None:
        """Forget the last program. What it had in common with others stays, unless that has grown too large."""
        if self._kept_bytes > self._half // 2:
            self._kept_bytes = 0
            self._records.clear()
            self._parts.clear()
        self._used = self._half

    def take(self, size_bytes: int) -> int:
        """Return the offset of ``size_bytes`` fresh bytes, aligned as structures need it. Raises: OSError with E2BIG."""
        offset = self._used
        self._used += -(-size_bytes // 8) * 8
        if self._used > self._end:
            raise OSError(errno.E2BIG, "the command and its environment are too long")
        return offset

    def place(self, data: bytes) -> int:
        """Copy ``data`` in and return its address."""
        offset = self.take(len(data))
        self.pages[offset : offset + len(data)] = data
        return self.address + offset

    def record(self, step: Step) -> bytes:
        """Return the packed ``step``, its data placed in memory; of one that comes again, the same each time."""
        if not step.is_kept:
            return self._pack(step)
        found = self._records.get(step)
        if found is None:
            found = self._records[step] = self._keep(step)
        return found

    def records(self, of: Part) -> bytes:
        """Return the packed steps of a part."""
        found = self._parts.get(of)
        if found is None:
            found = self._parts[of] = b"".join([self.record(step) for step in of.steps])
        return found

    def _keep(self, step: Step) -> bytes:
        of_program = (self._used, self._end)
        self._used, self._end = self._kept_bytes, self._half
        try:
            packed = self._pack(step)
            self._kept_bytes = self._used
        finally:
            self._used, self._end = of_program
        return packed

    def _pack(self, step: Step) -> bytes:
        values = [self.value(arg) for arg in step.args]
        mask = sum(1 << number for number in step.tolerate)
        return _RECORD.pack(
            syscall_number(step.call), *values, *_NO_ARGS[len(values) :], 0,
            step.least, step.result_to_next, step.skip_on_success * _RECORD.size, mask,
        )  # fmt: skip

    def value(self, arg: Arg) -> int:
        """Return what goes into one argument's register, placing in memory what it points to."""
        if isinstance(arg, int):
            return arg
        if arg is None:
            return 0
        if isinstance(arg, str):
            return self.place(os.fsencode(arg) + b"\0")
        if isinstance(arg, bytes):
            return self.place(arg)
        if isinstance(arg, Struct):
            data = bytearray(arg.data)
            for offset, target in arg.pointers:
                struct.pack_into("<Q", data, offset, self.value(target))
            return self.place(bytes(data))
        pointers = [self.value(word) for word in arg]
        return self.place(struct.pack(f"<{len(pointers) + 1}Q", *pointers, 0))


# ABI: one record of 12 words a step, read by the instructions in labkit/linux/spawn.py: number, six arguments, result,
# least (signed), whether the result goes to the next, bytes to skip on success, tolerated errnos (bit mask).
_RECORD = struct.Struct("<9q3Q")
_WORD = struct.Struct("<q")
_RESULT_OFFSET, _SKIP_OFFSET = 7 * 8, 10 * 8
_NO_ARGS = (0,) * 6


class Program:
    """Steps packed into an arena, with the notes of a run: the record under way and the record refused.

    The arena belongs to this program until the child has become something else.
    """

    def __init__(self, steps: Sequence[Step], arena: Arena, *, after: Part | None = None) -> None:
        """Pack ``steps``, which come ``after`` a part that may have places free for `fill`."""
        self.steps = [*(after.steps if after else ()), *steps]
        self.arena = arena
        self._gate, self._room = (after.gate, after.room) if after else (0, 0)
        arena.reset()
        self._header = arena.take(16)
        self._records = arena.take(len(self.steps) * _RECORD.size)
        self.header_address = arena.address + self._header
        self._note(0, 0)
        self._note(1, -1)
        data = (arena.records(after) if after else b"") + b"".join([arena.record(step) for step in steps])
        arena.pages[self._records : self._records + len(data)] = data

    def fill(self, steps: Sequence[Step]) -> None:
        """Put ``steps`` into the places left free, so that they are what follows the gate; the child may wait there already.

        Raises: OSError with E2BIG if they do not fit.
        """
        skipped = self._room - len(steps)
        if skipped < 0:
            raise OSError(errno.E2BIG, f"{len(steps)} steps do not fit into {self._room} places")
        first = self._gate + 1 + skipped
        self.steps[first : first + len(steps)] = steps
        self.steps[self._gate] = replace(self.steps[self._gate], skip_on_success=skipped)
        data = b"".join([self.arena.record(step) for step in steps])
        offset = self._records + first * _RECORD.size
        self.arena.pages[offset : offset + len(data)] = data
        # One word of the gate's record and no more: the kernel's answer to its call is being written there.
        _WORD.pack_into(
            self.arena.pages, self._records + self._gate * _RECORD.size + _SKIP_OFFSET, skipped * _RECORD.size
        )

    def _note(self, word: int, index: int) -> None:
        address = 0 if index < 0 else self.arena.address + self._records + index * _RECORD.size
        _WORD.pack_into(self.arena.pages, self._header + 8 * word, address)

    def _noted(self, word: int) -> int | None:
        (address,) = _WORD.unpack_from(self.arena.pages, self._header + 8 * word)
        return None if address == 0 else int(address - self.arena.address - self._records) // _RECORD.size

    @property
    def current(self) -> Step:
        """The step that the run reached last."""
        return self.steps[self._noted(0) or 0]

    @property
    def refused(self) -> tuple[Step, int] | None:
        """The step that ended the run and the errno it got (0: an end of file), if one was refused."""
        index = self._noted(1)
        return None if index is None else (self.steps[index], -min(0, self.result_of(index)))

    def result_of(self, index: int) -> int:
        """Return what the kernel answered to step ``index``: a result, or a negative errno."""
        return int(_WORD.unpack_from(self.arena.pages, self._records + index * _RECORD.size + _RESULT_OFFSET)[0])

    def run(self) -> None:
        """Carry the steps out here, in Python, with the same notes. Raises: Refused."""
        for index, result in _carry_out(self.steps, self.arena, before=lambda index: self._note(0, index)):
            _WORD.pack_into(self.arena.pages, self._records + index * _RECORD.size + _RESULT_OFFSET, result)
            if _is_refused(self.steps[index], result):
                self._note(1, index)


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value


def _is_refused(step: Step, result: int) -> bool:
    return result < step.least and -min(0, result) not in step.tolerate


# ABI: syscall(2) is variadic and takes longs; the arguments are wrapped one by one where it is called.
_syscall = ctypes.CDLL(None, use_errno=True)["syscall"]
_syscall.restype = ctypes.c_long


def _carry_out(steps: Sequence[Step], arena: Arena, *, before: Callable[[int], None]) -> Iterator[tuple[int, int]]:
    """Make the calls one after another; yield each step's index and answer, and raise after a refused one."""
    index, carried = 0, None
    while index < len(steps):
        step = steps[index]
        args = step.args if carried is None else (carried, *step.args[1:])
        values = [ctypes.c_long(arena.value(arg)) for arg in args]
        before(index)
        result = _syscall(ctypes.c_long(syscall_number(step.call)), *values)
        if result < 0:
            result = -ctypes.get_errno()
        yield index, result
        if step.call == "clone3" and result == 0:
            arena = Arena()  # this is the new process now: the two must not write their arguments into the same pages
        if _is_refused(step, result):
            raise Refused(-min(0, result), step)
        carried = result if step.result_to_next else None
        index += 1 + (step.skip_on_success if result >= step.least else 0)


def perform(steps: Sequence[Step]) -> None:
    """Carry ``steps`` out in the calling process. Raises: Refused (an OSError) at the first one that is refused."""
    for _ in _carry_out(steps, Arena(), before=lambda _: None):
        pass


def demonstrate() -> int:
    """Print a list of three steps, carry it out, and be refused at the third."""
    asked = [
        Step("umask", (0o027,), "set the mask for new files"),
        Step("mkdirat", (-100, "/proc/self", 0o755), "make a folder that is there", tolerate=(errno.EEXIST,)),
        Step("mkdirat", (-100, "/proc/labkit", 0o755), "make a folder where nobody may"),
    ]
    print(*(f"{step!s:<44} number {syscall_number(step.call):>4}  {step.why}" for step in asked), sep="\n")
    try:
        perform(asked)
    except Refused as refused:
        print(f"refused: {refused}")
    return 0


if __name__ == "__main__":
    raise SystemExit(demonstrate())

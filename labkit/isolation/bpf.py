"""Classic BPF: the small language in which seccomp filters are written.

A filter is a program that the kernel runs at every system call of the process. It sees 64 bytes (struct seccomp_data: the
call's number, the architecture, the instruction pointer and six arguments), has one register A, can only jump forwards, and ends
by returning an action. So it always ends, and what it answers can be found out here, without running it in the kernel:
`decide` does. `disassemble` prints it. `shorten` writes the same decisions down in fewer instructions.

Shortening pays because a container loads its filter while it starts, and the kernel checks, translates to machine code and tries
out each instruction: 1 to 2 microseconds for one. libseccomp compares the number with each call in turn; but allowed numbers lie
in runs (42 to 102 allowed, 103 closed, ...), so that a binary search over the runs' ends needs a third of the instructions.

Leaves out: instructions that libseccomp does not generate (arithmetic other than AND, scratch memory, register X).
See: seccomp(2), Documentation/networking/filter.rst and userspace-api/seccomp_filter.rst in Linux.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from labkit.errors import InvalidSpec

__all__ = ["Instruction", "action_name", "assemble", "decide", "disassemble", "parse", "shorten"]

# linux/bpf_common.h: class, mode and operation are packed into one number.
LOAD, AND, JUMP, RETURN = 0x20, 0x54, 0x05, 0x06
JEQ, JGT, JGE, JSET = 0x15, 0x25, 0x35, 0x45
_TESTS = {JEQ: "==", JGT: ">", JGE: ">=", JSET: "&"}
_NUMBER_OFFSET, _ARCH_OFFSET, _ARGUMENTS_OFFSET = 0, 4, 16
_FIELDS = {0: "call number", 4: "architecture", 8: "instruction pointer, low", 12: "instruction pointer, high"}
_FIELDS |= {16 + 4 * i: f"argument {i // 2}, {'high' if i % 2 else 'low'} half" for i in range(12)}
# linux/seccomp.h; the low 16 bits are data (an errno).
_ACTIONS = {0x7FFF: "allow", 0x0005: "errno", 0x8000: "kill the process", 0x0000: "kill the thread", 0x0003: "trap"}
_ACTIONS |= {0x7FF0: "trace", 0x7FFC: "log", 0x7FC0: "notify"}
_MOST_JUMP = 255


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction, struct sock_filter; ``jt`` and ``jf`` are how many to skip when a test holds or fails."""

    code: int
    jt: int
    jf: int
    k: int


def parse(program: bytes) -> tuple[Instruction, ...]:
    """Return the instructions of ``program``. Raises: InvalidSpec if its length is no multiple of 8 bytes."""
    if len(program) % 8:
        raise InvalidSpec(f"A BPF program has 8 bytes an instruction; {len(program)} bytes are none.")
    return tuple(Instruction(*fields) for fields in struct.iter_unpack("=HBBI", program))


def assemble(instructions: Iterable[Instruction]) -> bytes:
    """Return the bytes that the kernel loads."""
    return b"".join(struct.pack("=HBBI", i.code, i.jt, i.jf, i.k) for i in instructions)


def action_name(action: int) -> str:
    """Return what a filter's answer means: ``allow``, ``errno 1``, ``kill the process``."""
    name = _ACTIONS.get(action >> 16, f"{action:#010x}")
    return f"{name} {action & 0xFFFF}" if name == "errno" else name


def disassemble(program: bytes) -> str:
    """Return ``program`` as text, one line an instruction, jumps as line numbers."""
    return "\n".join(f"{at:4}  {_describe(i, at)}" for at, i in enumerate(parse(program)))


def _describe(i: Instruction, at: int) -> str:
    if i.code == LOAD:
        return f"A = {_FIELDS.get(i.k, f'data[{i.k}]')}"
    if i.code == AND:
        return f"A = A & {i.k:#x}"
    if i.code == JUMP:
        return f"go to {at + 1 + i.k}"
    if i.code == RETURN:
        return f"return {action_name(i.k)}"
    if i.code in _TESTS:
        return f"if A {_TESTS[i.code]} {i.k:#x} go to {at + 1 + i.jt}, else to {at + 1 + i.jf}"
    return f"instruction {i.code:#x} ({i.jt}, {i.jf}, {i.k:#x})"


def decide(program: bytes | Sequence[Instruction], number: int, *, arch: int, arguments: Sequence[int] = ()) -> int:
    """Return the action that ``program`` takes on system call ``number``, as the kernel would. See: `action_name`."""
    instructions = parse(program) if isinstance(program, bytes) else program
    padded = [*arguments, *[0] * (6 - len(arguments))]
    data = struct.pack("=IIQ6Q", number, arch, 0, *padded)
    at, a = 0, 0
    while (i := instructions[at]).code != RETURN:
        if i.code == LOAD:
            a = struct.unpack_from("=I", data, i.k)[0]
        elif i.code == AND:
            a &= i.k
        at += 1 + _skip(i, a)
    return i.k


def _skip(i: Instruction, a: int) -> int:
    if i.code == JUMP:
        return i.k
    if i.code in _TESTS:
        holds = {JEQ: a == i.k, JGT: a > i.k, JGE: a >= i.k, JSET: bool(a & i.k)}[i.code]
        return i.jt if holds else i.jf
    if i.code in (LOAD, AND):
        return 0
    raise InvalidSpec(f"labkit does not know the BPF instruction {i.code:#x}; libseccomp does not generate it.")


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What a program does with a call number: return ``value``, or look at arguments from instruction ``value`` on."""

    kind: Literal["return", "look"]
    value: int


def shorten(program: bytes, *, unknown_from: int | None = None, unknown_action: int = 0) -> bytes:
    """Return a program that answers as ``program`` does, found by binary search over the call numbers.

    Every number is tried out on ``program``: between two constants that it compares with, nothing can change. With
    ``unknown_from`` calls of that number and above that would be refused get ``unknown_action`` instead.
    """
    instructions = parse(program)
    writer = _Writer(instructions)
    arches = _architectures(instructions)
    # The code is written from its end, because jumps go forwards and need to know their target.
    other = writer.search(_runs(instructions, arch=0))
    entries = []
    for arch in arches:
        runs = _runs(instructions, arch=arch)
        if unknown_from is not None:
            runs = _with_unknown(runs, unknown_from, _Outcome("return", unknown_action))
        writer.search(runs)
        entries.append((arch, writer.put(Instruction(LOAD, 0, 0, _NUMBER_OFFSET))))
    for arch, entry in entries:
        other = writer.test(JEQ, arch, yes=entry, no=other)
    writer.put(Instruction(LOAD, 0, 0, _ARCH_OFFSET))
    return assemble(reversed(writer.code))


def _architectures(instructions: Sequence[Instruction]) -> list[int]:
    """Return the architectures that the program tells apart: what A is compared with while it holds the architecture."""
    found: dict[int, None] = {}
    ahead = [1]
    while ahead:
        at = ahead.pop()
        i = instructions[at]
        if i.code == JEQ:
            found[i.k] = None
            ahead += [at + 1 + i.jt, at + 1 + i.jf]
        elif i.code == JUMP:
            ahead.append(at + 1 + i.k)
    return list(found)


def _runs(instructions: Sequence[Instruction], *, arch: int) -> list[tuple[int, _Outcome]]:
    """Return where each run of call numbers with the same outcome begins, and the outcome."""
    constants = {i.k for i in instructions if i.code in (JEQ, JGT, JGE)}
    runs: list[tuple[int, _Outcome]] = []
    for number in sorted({0} | constants | {k + 1 for k in constants if k < 0xFFFF_FFFF}):
        outcome = _walk(instructions, number, arch)
        if not runs or runs[-1][1] != outcome:
            runs.append((number, outcome))
    return runs


def _walk(instructions: Sequence[Instruction], number: int, arch: int) -> _Outcome:
    at, a = 0, 0
    while (i := instructions[at]).code != RETURN:
        if i.code == LOAD and i.k not in (_NUMBER_OFFSET, _ARCH_OFFSET):
            return _Outcome("look", at)
        if i.code == LOAD:
            a = number if i.k == _NUMBER_OFFSET else arch
        elif i.code == AND:
            a &= i.k
        at += 1 + _skip(i, a)
    return _Outcome("return", i.k)


def _with_unknown(runs: Sequence[tuple[int, _Outcome]], first: int, unknown: _Outcome) -> list[tuple[int, _Outcome]]:
    """Replace the outcome of the run that ``first`` lies in, from ``first`` to the run's end."""
    index = max(i for i, (start, _) in enumerate(runs) if start <= first)
    if runs[index][0] == first:
        return [*runs[:index], (first, unknown), *runs[index + 1 :]]
    return [*runs[: index + 1], (first, unknown), *runs[index + 1 :]]


class _Writer:
    """Writes a program backwards: ``code[0]`` is the last instruction; labels are indexes into ``code``."""

    def __init__(self, source: Sequence[Instruction]) -> None:
        self.code: list[Instruction] = []
        self._source = source
        self._labels: dict[_Outcome, int] = {}
        self._copies: dict[int, int] = {}

    def put(self, instruction: Instruction) -> int:
        """Write ``instruction`` in front of all others; return its label."""
        self.code.append(instruction)
        return len(self.code) - 1

    def test(self, code: int, k: int, *, yes: int, no: int) -> int:
        """Write a test that goes to label ``yes`` or ``no``."""
        yes, no = self._near(yes), self._near(no)
        here = len(self.code)
        return self.put(Instruction(code, here - yes - 1, here - no - 1, k))

    def _near(self, label: int) -> int:
        # A test can skip 255 instructions, a plain jump any number; two more may come between here and the test.
        distance = len(self.code) - label - 1
        return label if distance + 2 <= _MOST_JUMP else self.put(Instruction(JUMP, 0, 0, distance))

    def search(self, runs: Sequence[tuple[int, _Outcome]]) -> int:
        """Write a binary search for the run that A, the call number, lies in; return its label, always the last one."""
        return self._last(self._half(runs))

    def _half(self, runs: Sequence[tuple[int, _Outcome]]) -> int:
        if len(runs) == 1:
            return self._outcome(runs[0][1])
        middle = len(runs) // 2
        high, low = self._half(runs[middle:]), self._half(runs[:middle])
        return self.test(JGE, runs[middle][0], yes=high, no=low)

    def _outcome(self, outcome: _Outcome) -> int:
        if outcome not in self._labels:
            self._labels[outcome] = (
                self._return(outcome.value) if outcome.kind == "return" else self._copy(outcome.value)
            )
        return self._labels[outcome]

    def _return(self, action: int) -> int:
        return self.put(Instruction(RETURN, 0, 0, action))

    def _copy(self, at: int) -> int:
        """Write the part of the source that begins at ``at`` and looks at arguments; each instruction once."""
        if at not in self._copies:
            self._copies[at] = self._copy_anew(at)
        return self._copies[at]

    def _copy_anew(self, at: int) -> int:
        i = self._source[at]
        if i.code == RETURN:
            return self._outcome(_Outcome("return", i.k))
        if i.code == JUMP:
            return self._copy(at + 1 + i.k)
        if i.code in _TESTS:
            return self.test(i.code, i.k, yes=self._copy(at + 1 + i.jt), no=self._copy(at + 1 + i.jf))
        self._last(self._copy(at + 1))
        return self.put(i)

    def _last(self, label: int) -> int:
        """Make sure that ``label`` is what the next instruction put falls through to."""
        distance = len(self.code) - label - 1
        return self.put(Instruction(JUMP, 0, 0, distance)) if distance else label


def main() -> int:
    """Print the default filter, shortened, and what it decides about some calls."""
    from labkit.isolation.seccomp import compile_filter, default_profile
    from labkit.linux.steps import syscall_number

    written = compile_filter(default_profile(), short=False)
    short = compile_filter(default_profile())
    lines = disassemble(short).splitlines()
    print(*lines[:24], f"... {len(lines) - 24} more", sep="\n")
    print(f"libseccomp wrote {len(written) // 8} instructions; the same decisions take {len(lines)}")
    print("system call numbers of this machine: mount", syscall_number("mount"), "openat", syscall_number("openat"))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

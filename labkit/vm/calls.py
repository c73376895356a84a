"""A message to the guest: a list of system calls that its agent makes one after another.

`labkit.vm.agent` can do one thing: make the system calls of a list and note the answers. So the host decides what happens in
the guest, call by call, and everything that is hard (streams, time limits, errors) is Python on the host's side. A list::

    a record for each call: number, skip | six arguments | address to note       64 bytes each
    -1                                                                           8 bytes
    notes: structures that calls fill in                                         as declared
    what the arguments point to: paths, arguments, structures

Each answer takes the place of its call's first argument. It also goes to ``address to note``: that is how the descriptor of
an openat becomes the argument of a later call. ``skip`` bytes of records are passed over when the answer is not 0; the
parent of a vfork passes over what its child does.

Leaves out: loops.
See: syscall(2), syscalls(2), `labkit.linux.spawn` for the same idea without a machine in between.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TypeAlias

from labkit.errors import InvalidSpec

__all__ = ["FIRST_LIST", "MAILBOX", "MAILBOX_BYTES", "PORT_FD", "Answer", "Arg", "CallList", "Note", "Slot"]

#: Where lists lie in the agent's memory: the first one in its file, later ones in the memory that it shares with the host.
FIRST_LIST, MAILBOX = 0x401000, 0x10000000
#: The shared memory: the lower half for lists, the upper one for what calls read.
MAILBOX_BYTES = 1 << 20
_BUFFERS = MAILBOX_BYTES // 2
#: The descriptor of the agent's port to the host.
PORT_FD = 9
_RECORD_BYTES = 64
_NUMBERS = {
    "x86_64": {
        "read": 0, "write": 1, "close": 3, "mmap": 9, "poll": 7, "ioctl": 16, "kill": 62, "fcntl": 72, "chdir": 80, "chroot": 161,
        "wait4": 61, "reboot": 169, "sethostname": 170, "setsid": 112, "mount": 165, "umount2": 166, "execve": 59,
        "clock_gettime": 228, "clock_settime": 227, "exit_group": 231, "openat": 257, "mkdirat": 258, "mknodat": 259,
        "symlinkat": 266, "unlinkat": 263, "renameat": 264, "fchmodat": 268, "ppoll": 271, "dup3": 292, "pipe2": 293,
        "finit_module": 313, "rt_sigaction": 13, "pread64": 17, "clone": 56, "sync": 162, "pivot_root": 155, "getpid": 39,
    },
    "aarch64": {
        "read": 63, "write": 64, "close": 57, "mmap": 222, "ioctl": 29, "kill": 129, "fcntl": 25, "chdir": 49, "chroot": 51,
        "wait4": 260, "reboot": 142, "sethostname": 161, "setsid": 157, "mount": 40, "umount2": 39, "execve": 221,
        "clock_gettime": 113, "clock_settime": 112, "exit_group": 94, "openat": 56, "mkdirat": 34, "mknodat": 33,
        "symlinkat": 36, "unlinkat": 35, "renameat": 38, "fchmodat": 53, "ppoll": 73, "dup3": 24, "pipe2": 59,
        "finit_module": 273, "rt_sigaction": 134, "pread64": 67, "clone": 220, "sync": 81, "pivot_root": 41, "getpid": 172,
    },
}  # fmt: skip
#: Since Linux 5.0 a call has one number on every machine.
_SINCE_5 = {"pidfd_open": 434, "close_range": 436, "pidfd_send_signal": 424}


@dataclass(frozen=True, slots=True)
class Slot:
    """The answer of the call with this number in its list; as an argument: what that call will have answered."""

    index: int


@dataclass(frozen=True, slots=True)
class Note:
    """A few bytes that a call may fill in and that can be read afterwards: the two descriptors of pipe2, say."""

    offset: int
    size: int


#: A number, a C string or structure (by address), a list of strings (argv), an earlier answer, a note, NULL.
Arg: TypeAlias = "int | str | bytes | tuple[str, ...] | Slot | Note | None"


@dataclass(slots=True)
class _Call:
    number: int
    args: list[Arg]
    skip: int = 0
    noted_at: tuple[int, int] | Note | None = None  # which argument of which call, or which note, gets the answer


class Answer:
    """What came of a list: each call's answer (-errno for an error), the notes, and what was read."""

    def __init__(self, memory: memoryview, calls: CallList) -> None:
        self._results = [struct.unpack_from("<q", memory, _RECORD_BYTES * index + 8)[0] for index in range(len(calls))]
        at = calls.notes_at
        self._notes = bytes(memory[at : at + calls.note_bytes])
        self._data = {
            slot.index: bytes(memory[start : start + max(0, min(size, self._results[slot.index]))])
            for slot, start, size in calls.reads
        }

    def __getitem__(self, slot: Slot) -> int:
        return int(self._results[slot.index])

    def note(self, note: Note) -> bytes:
        """Return the bytes of a note."""
        return self._notes[note.offset : note.offset + note.size]

    def data(self, slot: Slot) -> bytes:
        """Return what the read with this slot gave; nothing if it failed or the file has ended."""
        return self._data[slot.index]


class CallList:
    """System calls to send: `call` adds one, `pack` makes the bytes."""

    def __init__(self, machine: str = "x86_64") -> None:
        self._numbers = _NUMBERS[machine] | _SINCE_5
        self._calls: list[_Call] = []
        self._notes = bytearray()
        self._buffer_end = _BUFFERS
        #: The reads: slot, where in the shared memory, how many bytes at most.
        self.reads: list[tuple[Slot, int, int]] = []

    def __len__(self) -> int:
        return len(self._calls)

    @property
    def notes_at(self) -> int:
        """Where the notes lie, from the beginning of the list."""
        return _RECORD_BYTES * len(self._calls) + 8

    @property
    def note_bytes(self) -> int:
        """How many bytes the notes take together."""
        return len(self._notes)

    def call(self, name: str, *args: Arg) -> Slot:
        """Add a system call; return the place of its answer."""
        index = len(self._calls)
        for position, arg in enumerate(args):
            if isinstance(arg, Slot):
                self._calls[arg.index].noted_at = (index, position)
        self._calls.append(_Call(self._numbers[name], list(args)))
        return Slot(index)

    def read(self, fd: int | Slot, size: int, offset: int | None = None) -> Slot:
        """Add a read(2) of up to ``size`` bytes, or a pread(2) at ``offset``, whose data come back.

        Raises: InvalidSpec for more than the shared memory holds.
        """
        start = self._buffer_end
        self._buffer_end += -(-size // 8) * 8
        if self._buffer_end > MAILBOX_BYTES:
            raise InvalidSpec(f"One list cannot read more than {MAILBOX_BYTES - _BUFFERS} bytes: split it.")
        name, more = ("read", ()) if offset is None else ("pread64", (offset,))
        slot = self.call(name, fd, MAILBOX + start, size, *more)
        self.reads.append((slot, start, size))
        return slot

    def skip_from(self, slot: Slot) -> None:
        """Let ``slot``'s call pass over everything added since, when its answer is not 0."""
        self._calls[slot.index].skip = (len(self._calls) - slot.index - 1) * _RECORD_BYTES

    def note(self, content: int | bytes) -> Note:
        """Reserve room for what a call fills in: so many zeros, or bytes that are there before."""
        data = content if isinstance(content, bytes) else bytes(content)
        made = Note(len(self._notes), len(data))
        self._notes += data + bytes(-len(data) % 8)
        return made

    def keep(self, slot: Slot, note: Note) -> None:
        """Put the answer of ``slot``'s call into ``note`` too; the note stays as it was if the call is never made."""
        self._calls[slot.index].noted_at = note

    def pack(self, address: int = MAILBOX) -> bytes:
        """Return the bytes of the list, to lie at ``address``. Raises: InvalidSpec when it is too long."""
        data = _Data(address + self.notes_at, bytes(self._notes))
        records = b"".join(self._record(index, call, address, data) for index, call in enumerate(self._calls))
        packed = records + struct.pack("<q", -1) + bytes(data.content)
        if len(packed) > _BUFFERS:
            raise InvalidSpec(
                f"The command and its environment take {len(packed)} bytes; at most {_BUFFERS} fit: shorten them."
            )
        return packed

    def _record(self, index: int, call: _Call, address: int, data: _Data) -> bytes:
        at = call.noted_at
        if isinstance(at, Note):
            noted_address = data.address + at.offset
        else:
            other, position = at or (index, 0)
            noted_address = address + _RECORD_BYTES * other + 8 + 8 * position
        words = [self._address_of(arg, data) for arg in call.args]
        words += [0] * (6 - len(words))
        return struct.pack("<iI6qQ", call.number, call.skip, *words, noted_address)

    def _address_of(self, arg: Arg, data: _Data) -> int:
        if arg is None or isinstance(arg, Slot):
            return 0
        if isinstance(arg, int):
            return arg
        if isinstance(arg, Note):
            return data.address + arg.offset
        if isinstance(arg, tuple):
            return data.add(struct.pack(f"<{len(arg) + 1}Q", *(data.add(_c_string(word)) for word in arg), 0))
        return data.add(arg if isinstance(arg, bytes) else _c_string(arg))


class _Data:
    """What arguments point to, behind the records: the notes first; equal texts are stored once."""

    def __init__(self, address: int, notes: bytes) -> None:
        self.address = address
        self.content = bytearray(notes)
        self._known: dict[bytes, int] = {}

    def add(self, item: bytes) -> int:
        """Return the address at which ``item`` will lie."""
        if item not in self._known:
            self._known[item] = self.address + len(self.content)
            self.content += item + bytes(-len(item) % 8)
        return self._known[item]


def _c_string(text: str) -> bytes:
    encoded = text.encode(errors="surrogateescape")
    if b"\0" in encoded:
        raise InvalidSpec(f"{text!r} holds a zero byte, which ends a text for the kernel: take it out.")
    return encoded + b"\0"

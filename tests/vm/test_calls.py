"""Lists of system calls: what they are as bytes, and what comes of them when the agent makes them."""

from __future__ import annotations

import errno
import os
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from labkit.errors import InvalidSpec
from labkit.vm.calls import MAILBOX, MAILBOX_BYTES, Answer, CallList
from tests.vm.local_agent import LocalAgent, local_agent

_AT_FDCWD = -100


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalAgent]:
    """An agent for all tests of this module."""
    if os.uname().machine != "x86_64":
        pytest.skip("the agent is written for x86-64")
    with local_agent(tmp_path_factory.mktemp("agent")) as made:
        yield made


def exchange(agent: LocalAgent, calls: CallList) -> Answer:
    return agent.port.exchange(calls, time.monotonic() + 10)


def test_a_record_is_number_arguments_and_the_place_of_the_answer() -> None:
    calls = CallList("x86_64")
    calls.call("kill", -5, 9)
    packed = calls.pack()
    assert struct.unpack_from("<iI6qQ", packed) == (62, 0, -5, 9, 0, 0, 0, 0, MAILBOX + 8)
    assert struct.unpack_from("<q", packed, 64) == (-1,)


def test_texts_lie_behind_the_records_once_each() -> None:
    calls = CallList("x86_64")
    calls.call("mkdirat", _AT_FDCWD, "/some/folder", 0o755)
    calls.call("chdir", "/some/folder")
    packed = calls.pack()
    assert packed.count(b"/some/folder\0") == 1
    address = struct.unpack_from("<q", packed, 16)[0]
    assert packed[address - MAILBOX :].startswith(b"/some/folder\0")
    assert struct.unpack_from("<q", packed, 64 + 8)[0] == address


@pytest.mark.parametrize(
    ("call", "x86_64", "aarch64"), [("openat", 257, 56), ("ppoll", 271, 73), ("pidfd_open", 434, 434)]
)
def test_each_machine_has_its_own_numbers(call: str, x86_64: int, aarch64: int) -> None:
    for machine, number in (("x86_64", x86_64), ("aarch64", aarch64)):
        calls = CallList(machine)
        calls.call(call)
        assert struct.unpack_from("<i", calls.pack())[0] == number


def test_the_numbers_are_those_of_the_kernels_headers() -> None:
    path = Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h")
    generic = Path("/usr/include/asm-generic/unistd.h")
    if not path.exists():
        pytest.skip("there are no kernel headers (package linux-libc-dev)")
    from labkit.vm import calls as module

    for name, number in (module._NUMBERS["x86_64"] | module._SINCE_5).items():
        assert f"#define __NR_{name} {number}\n" in path.read_text(), name
    # The generic list gives some calls another macro; the name is in it all the same.
    said = generic.read_text()
    for name, number in (module._NUMBERS["aarch64"] | module._SINCE_5).items():
        found = [f"#define __NR_{name} {number}\n", f"#define __NR3264_{name} {number}\n"]
        assert any(line in said for line in found), name


def test_an_answer_becomes_the_argument_of_a_later_call(agent: LocalAgent, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    calls = CallList()
    opened = calls.call("openat", _AT_FDCWD, str(tmp_path / "file"), 0)
    read = calls.read(opened, 100)
    answer = exchange(agent, calls)
    assert answer[opened] > 2
    assert answer.data(read) == b"content"


def test_a_refused_call_answers_with_its_errno_and_reads_nothing(agent: LocalAgent) -> None:
    calls = CallList()
    opened = calls.call("openat", _AT_FDCWD, "/no/such/file", 0)
    read = calls.read(opened, 100)
    answer = exchange(agent, calls)
    assert answer[opened] == -errno.ENOENT
    assert (answer[read], answer.data(read)) == (-errno.EBADF, b"")


def test_notes_are_filled_in_and_come_back(agent: LocalAgent) -> None:
    calls = CallList()
    ends, clock = calls.note(8), calls.note(16)
    calls.call("pipe2", ends, 0)
    calls.call("clock_gettime", 1, clock)
    answer = exchange(agent, calls)
    reading, writing = struct.unpack("<2i", answer.note(ends))
    assert os.readlink(f"/proc/{agent.process.pid}/fd/{writing}") == os.readlink(
        f"/proc/{agent.process.pid}/fd/{reading}"
    )
    seconds, nanoseconds = struct.unpack("<2q", answer.note(clock))
    assert abs(seconds + nanoseconds / 1e9 - time.clock_gettime(time.CLOCK_MONOTONIC)) < 10


def test_what_is_skipped_is_not_made_and_keeps_its_note(agent: LocalAgent) -> None:
    calls = CallList()
    kept = calls.note(struct.pack("<q", 77))
    asked = calls.call("getpid")
    calls.keep(calls.call("chdir", "/no/such/folder"), kept)
    calls.skip_from(asked)
    made = calls.call("getpid")
    answer = exchange(agent, calls)
    assert answer[asked] == answer[made] == agent.process.pid
    assert answer.note(kept) == struct.pack("<q", 77)


def test_a_list_that_is_too_long_is_refused_before_it_is_sent() -> None:
    calls = CallList()
    calls.call("chdir", "x" * MAILBOX_BYTES)
    with pytest.raises(InvalidSpec, match="at most"):
        calls.pack()
    with pytest.raises(InvalidSpec, match="cannot read more"):
        CallList().read(0, MAILBOX_BYTES)

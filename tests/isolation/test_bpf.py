"""The BPF interpreter, printer and shortener; libseccomp's own programs and the kernel are the witnesses."""

from __future__ import annotations

import errno
import platform
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labkit.errors import InvalidSpec
from labkit.isolation import bpf, seccomp
from tests.support import requires

X86_64, X86, AARCH64 = 0xC000_003E, 0x4000_0003, 0xC000_00B7
ALLOW, EPERM, ENOSYS = 0x7FFF_0000, 0x5_0000 | errno.EPERM, 0x5_0000 | errno.ENOSYS
KILL = 0x8000_0000
pytestmark = [requires("pyseccomp"), pytest.mark.skipif(platform.machine() != "x86_64", reason="numbers of x86-64")]


@cache
def _pair(*architectures: str) -> tuple[tuple[bpf.Instruction, ...], tuple[bpf.Instruction, ...]]:
    profile = seccomp.default_profile(architectures=architectures)
    programs = (seccomp.compile_filter(profile, short=short) for short in (False, True))
    own, short = map(bpf.parse, programs)
    return own, short


def _expected(own: int, number: int, arch: int = X86_64) -> int:
    # The one wanted difference: calls newer than the profile are said not to exist. From 2**30 on, x86-64 has x32.
    newer = number >= 457 and (arch != X86_64 or number < 0x4000_0000)
    return ENOSYS if newer and own == EPERM else own


@pytest.mark.parametrize("architectures", [(), ("x86",), ("x86", "x32"), ("aarch64",)], ids=str)
def test_the_short_program_decides_every_number_as_libseccomps_own_does(architectures: tuple[str, ...]) -> None:
    own, short = _pair(*architectures)
    numbers = [
        *range(1200),
        *range(0x4000_0000 - 2, 0x4000_0000 + 1200),
        0x7FFF_FFFF,
        0x8000_0000,
        0xFFFF_FFFE,
        0xFFFF_FFFF,
    ]
    named = (
        {X86_64} | ({X86} if "x86" in architectures else set()) | ({AARCH64} if "aarch64" in architectures else set())
    )
    for arch in (X86_64, X86, AARCH64, 0):
        for number in numbers:
            wanted = bpf.decide(own, number, arch=arch)
            wanted = _expected(wanted, number, arch) if arch in named else wanted
            assert bpf.decide(short, number, arch=arch) == wanted, (hex(arch), hex(number))


@given(
    number=st.sampled_from([16, 41, 56, 135, 435, 0, 39, 101, 272]),
    arguments=st.lists(
        st.one_of(
            st.sampled_from([0, 1, 2, 8, 10, 16, 17, 40, 0x20008, 0xFFFF_FFFF, 0x1_0000_0028, 0x1000_0011, 0x2_0000]),
            st.integers(0, 2**64 - 1),
        ),
        min_size=6, max_size=6,
    ),
    architectures=st.sampled_from([(), ("x86", "x32")]),
)  # fmt: skip
def test_the_short_program_looks_at_arguments_as_libseccomps_own_does(
    number: int, arguments: list[int], architectures: tuple[str, ...]
) -> None:
    own, short = _pair(*architectures)
    for arch in (X86_64, X86):
        wanted = bpf.decide(own, number, arch=arch, arguments=arguments)
        assert bpf.decide(short, number, arch=arch, arguments=arguments) == _expected(wanted, number)


@pytest.mark.parametrize("architectures", [(), ("x86", "x32")], ids=str)
def test_the_short_program_has_less_than_half_the_instructions(architectures: tuple[str, ...]) -> None:
    own, short = _pair(*architectures)
    assert len(short) < len(own) / 2


@given(st.lists(st.integers(0, 1 << 31), min_size=1, max_size=600, unique=True))
def test_a_program_with_far_jumps_still_decides_alike(numbers: list[int]) -> None:
    # Each number has an answer of its own, so nothing can be merged and the program is long.
    program = [bpf.Instruction(0x20, 0, 0, 4), bpf.Instruction(0x15, 1, 0, X86_64), bpf.Instruction(6, 0, 0, KILL)]
    program.append(bpf.Instruction(0x20, 0, 0, 0))
    for index, number in enumerate(numbers):
        program += [bpf.Instruction(0x15, 0, 1, number), bpf.Instruction(6, 0, 0, 0x5_0000 + index)]
    program.append(bpf.Instruction(6, 0, 0, ALLOW))
    short = bpf.parse(bpf.shorten(bpf.assemble(program)))
    for number in {0, 1, 1 << 31, *numbers, *(n + 1 for n in numbers)}:
        assert bpf.decide(short, number, arch=X86_64) == bpf.decide(program, number, arch=X86_64)
        assert bpf.decide(short, number, arch=X86) == KILL


def test_a_disassembled_program_can_be_followed_by_hand() -> None:
    text = bpf.disassemble(bpf.assemble(_pair()[1])).splitlines()
    assert text[0] == "   0  A = architecture"
    assert "if A == 0xc000003e go to 2" in text[1]
    assert any("return allow" in line for line in text) and any("return errno 1" in line for line in text)
    assert bpf.action_name(KILL) == "kill the process"


def test_bytes_that_are_no_program_are_refused() -> None:
    with pytest.raises(InvalidSpec, match="8 bytes"):
        bpf.parse(b"123")
    unknown = (bpf.Instruction(0x07, 0, 0, 0), bpf.Instruction(6, 0, 0, ALLOW))
    with pytest.raises(InvalidSpec, match="0x7"):
        bpf.decide(unknown, 0, arch=X86_64)

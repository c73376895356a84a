"""The boot ROM: the bytes are the instructions that stand beside them, and it runs to its end under emulation."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from labkit.vm import bootrom
from labkit.vm.accel import find_qemu, rom_command, software_emulation
from tests.support import requires


def disassembled(code: bytes, machine: str, folder: Path) -> list[str]:
    """Return the mnemonics that objdump finds in ``code``."""
    path = folder / "code"
    path.write_bytes(code)
    command = ["objdump", "-D", "-b", "binary", "-m", machine, str(path)]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    rows = [line.split("\t") for line in listed.splitlines() if re.match(r"^ +[0-9a-f]+:\t", line)]
    return [row[2].split()[0] for row in rows if len(row) > 2]


@requires("program:objdump")
def test_the_bytes_are_the_instructions_that_the_listing_says(tmp_path: Path) -> None:
    rom = bootrom.x86_64_rom()
    assert len(rom) == 0x10000
    code = rom[: rom.index(bytes.fromhex("f4ebfd")) + 3]
    begin = disassembled(code, "i8086", tmp_path)
    expected = "cli cld mov mov out xor mov movw movw movw lgdtw mov mov mov mov mov rdmsr or wrmsr mov mov ljmpl"
    assert begin[: len(expected.split())] == expected.split()
    long_mode = disassembled(code[code.index(b"\x66\xba\xf8\x03") :], "i386:x86-64", tmp_path)
    assert long_mode == ["mov", "mov", "out", "mov", "mov", "out", "hlt", "jmp"]


@requires("vm")
@pytest.mark.parametrize("board", ["pc", "microvm", "q35"])
def test_the_rom_runs_to_its_end_under_emulation(board: str, tmp_path: Path) -> None:
    rom = bootrom.ROMS["x86_64"]
    (tmp_path / "rom").write_bytes(rom.content())
    command = rom_command(find_qemu("x86_64"), rom, board, str(tmp_path / "rom"), software_emulation().qemu_arguments)
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert (done.stdout, done.returncode) == ("RL", 67), done.stderr


def test_the_arm64_rom_asks_for_power_off_by_a_hypervisor_call() -> None:
    words = [bootrom.arm64_rom()[at : at + 4] for at in range(0, 28, 4)]
    assert len(bootrom.arm64_rom()) == 28
    assert words[5] == bytes.fromhex("020000d4")  # hvc #0, as the Arm manual encodes it
    # movz and movk put 0x84000008 together: PSCI's SYSTEM_OFF.
    low, high = (int.from_bytes(word, "little") >> 5 & 0xFFFF for word in words[3:5])
    assert high << 16 | low == 0x84000008


@requires("program:qemu-system-aarch64")
def test_the_arm64_rom_runs_to_its_end_under_emulation(tmp_path: Path) -> None:
    rom = bootrom.ROMS["aarch64"]
    (tmp_path / "rom").write_bytes(rom.content())
    command = rom_command(find_qemu("aarch64"), rom, "virt", str(tmp_path / "rom"), software_emulation().qemu_arguments)
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert (done.stdout, done.returncode) == ("R", 0), done.stderr

"""The agent's instructions, compared with a disassembler, and the file that holds them."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from labkit.errors import FeatureMissing
from labkit.vm import agent
from labkit.vm.agent import agent_program
from labkit.vm.calls import FIRST_LIST, MAILBOX, PORT_FD, CallList
from tests.support import requires


@requires("program:objdump")
def test_the_instructions_are_what_the_comments_say(tmp_path: Path) -> None:
    code = Path(agent.__file__).read_text().split("_X86_64 = bytes.fromhex(")[1].split("\n)\n")[0]
    listed = [line.split("#", 1)[1].split(":")[-1].split() for line in code.splitlines() if "#" in line]
    (tmp_path / "code").write_bytes(agent._X86_64)
    command = ["objdump", "-D", "-b", "binary", "-m", "i386:x86-64", "-M", "intel", str(tmp_path / "code")]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    real = [line.split("\t")[2].split() for line in printed.splitlines() if line.count("\t") >= 2]
    same = {"je": "jz"}
    assert [same.get(words[0], words[0]) for words in real] == [same.get(words[0], words[0]) for words in listed]
    assert len(real) == 33
    operands = [words[1] for words in real if words[0] == "mov"]
    assert {f"esi,{FIRST_LIST:#x}", f"ebx,{MAILBOX:#x}", f"edi,{PORT_FD:#x}"} <= set(operands)


@requires("program:aarch64-linux-gnu-objdump")
def test_the_arm64_instructions_are_what_the_comments_say(tmp_path: Path) -> None:
    code = Path(agent.__file__).read_text().split("_AARCH64 = b")[1].split("\n    )\n")[0]
    lines = [line.split("#", 1)[1] for line in code.splitlines() if '",  #' in line]
    listed = [_plain(re.split(r"\s{5,}", re.sub(r"^\s*(\w+:)?\s*", "", line))[0]) for line in lines]
    (tmp_path / "code").write_bytes(agent._AARCH64)
    command = ["aarch64-linux-gnu-objdump", "-D", "-b", "binary", "-m", "aarch64"]
    printed = subprocess.run([*command, str(tmp_path / "code")], capture_output=True, text=True, check=True).stdout
    real = [_plain(" ".join(line.split("\t")[2:4])) for line in printed.splitlines() if line.count("\t") >= 2]
    targets = {"ring": "0x40", "step": "0x38", "next": "0x8"}
    expected = [re.sub(r"\b(ring|step|next)$", lambda found: targets[found[0]], words) for words in listed]
    assert real == expected
    assert len(real) == 31


def _plain(words: str) -> str:
    """Return an instruction with its numbers in one notation."""
    text = " ".join(words.split("//")[0].split())
    return re.sub(r"#(0x[0-9a-f]+|\d+)", lambda found: f"#{int(found[1], 0)}", text)


@requires("program:readelf")
def test_the_file_is_a_static_program_of_one_segment(tmp_path: Path) -> None:
    path = tmp_path / "agent"
    path.write_bytes(agent_program(CallList()))
    shown = subprocess.run(["readelf", "-hlW", str(path)], capture_output=True, text=True, check=True)
    assert shown.stderr == ""
    assert "EXEC (Executable file)" in shown.stdout
    assert "Number of program headers:         1" in shown.stdout
    assert "INTERP" not in shown.stdout
    path.write_bytes(agent_program(CallList("aarch64"), "aarch64"))
    shown = subprocess.run(["readelf", "-hW", str(path)], capture_output=True, text=True, check=True)
    assert "AArch64" in shown.stdout


def test_another_machine_is_refused_with_the_ones_that_work() -> None:
    with pytest.raises(FeatureMissing, match=r"no agent for guests with a riscv64 processor.*x86_64"):
        agent_program(CallList("x86_64"), "riscv64")

"""/dev/kvm by hand: the guest's arithmetic, its exits, and a guest that does not end."""

from __future__ import annotations

import re
import subprocess
import time
from pathlib import Path

import pytest

from labkit.linux import kvm
from tests.support import requires


@requires("program:objdump")
def test_the_bytes_are_the_instructions_that_the_listing_says(tmp_path: Path) -> None:
    (tmp_path / "code").write_bytes(kvm.SIX_TIMES_SEVEN)
    command = ["objdump", "-D", "-b", "binary", "-m", "i8086", str(tmp_path / "code")]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    words = re.findall(r"^ +[0-9a-f]+:\t[^\t]+\t(\w+)", listed, re.MULTILINE)
    assert words == ["mov", "mov", "mov", "mul", "aam", "add", "xchg", "out", "xchg", "out", "mov", "out", "hlt"]


@requires("kvm")
def test_the_processor_multiplies_and_its_output_comes_back() -> None:
    assert kvm.run(kvm.SIX_TIMES_SEVEN) == b"42\n"


@requires("kvm")
def test_a_guest_that_never_halts_is_ended_in_time() -> None:
    began_s = time.monotonic()
    with pytest.raises(TimeoutError, match="did not halt"):
        kvm.run(bytes.fromhex("ebfe"), limit_s=0.5)
    assert time.monotonic() - began_s < 5


@requires("kvm")
def test_an_exit_that_nobody_handles_is_an_error() -> None:
    with pytest.raises(OSError, match="nobody here can help"):
        kvm.run(bytes.fromhex("e460f4"))  # in $0x60,%al


@pytest.mark.parametrize("code", [b"", b"\xf4" * (kvm.MEMORY_BYTES + 1)])
def test_code_that_does_not_fit_is_refused(code: bytes) -> None:
    with pytest.raises(ValueError, match="do not fit"):
        kvm.execute(code)


def test_a_missing_device_is_an_error_with_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        kvm.os, "open", lambda *_: (_ for _ in ()).throw(FileNotFoundError(2, "No such file", "/dev/kvm"))
    )
    with pytest.raises(FileNotFoundError):
        kvm.execute(kvm.SIX_TIMES_SEVEN)

"""The phases of a boot, and what is read from a kernel's file before it is booted."""

from __future__ import annotations

import itertools
import struct
import subprocess
from pathlib import Path

import pytest

from labkit.errors import GuestError
from labkit.vm.kernel import find_kernel
from labkit.vm.spec import GuestSpec
from labkit.vm.timeline import Timeline, loaded_bytes
from tests.support import requires


def test_the_phases_follow_one_another_without_a_gap() -> None:
    phases = Timeline(0.1, 0.15, 0.9, 1.0).phases()
    assert [phase.name for phase in phases] == ["QEMU", "firmware", "kernel", "init"]
    assert phases[0].start_s == 0
    for before, after in itertools.pairwise(phases):
        assert before.start_s + before.elapsed_s == pytest.approx(after.start_s)
    assert sum(phase.elapsed_s for phase in phases) == pytest.approx(1.0)


@requires("vm", "program:readelf")
def test_the_size_is_that_of_the_segments_that_readelf_lists() -> None:
    kernel = find_kernel("micro").path
    shown = subprocess.run(["readelf", "-lW", str(kernel)], capture_output=True, text=True, check=True).stdout
    sizes = [int(line.split()[4], 16) for line in shown.splitlines() if line.strip().startswith("LOAD")]
    assert loaded_bytes(GuestSpec(kernel, bytes(1000), machine="x86_64")) == sum(sizes) + 1000


def elf(*segments: tuple[int, int]) -> bytes:
    """Return the head of an ELF file with segments at (offset, length)."""
    rows = b"".join(struct.pack("<IIQQQQQQ", 1, 5, offset, 0, 0, size, size, 4096) for offset, size in segments)
    fields = struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, 0, 64, 0, 0, 64, 56, len(segments), 0, 0, 0)
    return b"\x7fELF\x02\x01\x01" + bytes(9) + fields + rows


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "no kernel"),
        (b"\x7fELF", "damaged"),
        (bytes(5000), "no kernel"),
        (elf((4096, 10_000)), "ends before all of it is there"),
        (elf(), "does not say what to load"),
        (elf((0, 1)).replace(b"\x38\x00\x01\x00", b"\x38\x00\xff\xff"), "does not say what to load"),
    ],
)
def test_a_damaged_kernel_is_a_sentence_with_the_remedy(tmp_path: Path, content: bytes, sentence: str) -> None:
    (tmp_path / "vmlinux").write_bytes(content)
    with pytest.raises(GuestError, match=sentence) as caught:
        loaded_bytes(GuestSpec(tmp_path / "vmlinux", b""))
    assert "labkit setup vm" in str(caught.value)


def test_a_missing_kernel_is_a_sentence_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(GuestError, match=r"cannot be read: No such file.*labkit setup vm"):
        loaded_bytes(GuestSpec(tmp_path / "vmlinux", b""))


def test_an_arm64_image_is_loaded_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "Image").write_bytes(bytes(0x38) + b"ARM\x64" + bytes(1000))
    assert loaded_bytes(GuestSpec(tmp_path / "Image", b"12345")) == 0x3C + 1000 + 5

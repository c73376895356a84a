"""Unpacking a kernel: every packing there is, from a bzImage made here, and damaged ones as one sentence."""

from __future__ import annotations

import bz2
import gzip
import lzma
import shutil
import struct
import subprocess
from collections.abc import Callable

import pytest

from labkit.errors import GuestError, LabkitError
from labkit.vm.kernel import find_kernel
from labkit.vm.vmlinux import unpack_kernel
from tests.support import requires

ELF = b"\x7fELF" + bytes(range(256)) * 500


def bzimage(payload: bytes) -> bytes:
    """Return a bzImage around ``payload``: 4 sectors of setup code, a bit of the program that unpacks, the payload, and more."""
    head = bytearray(5 * 512)
    head[0x1F1] = 4
    head[0x202:0x206] = b"HdrS"
    struct.pack_into("<II", head, 0x248, 100, len(payload))
    return bytes(head) + b"\x90" * 100 + payload + b"behind it" * 100


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "xz": lzma.compress,
    "lzma": lambda data: lzma.compress(data, format=lzma.FORMAT_ALONE),
    "bzip2": bz2.compress,
}


@pytest.mark.parametrize("name", PACKERS)
def test_a_bzimage_is_unpacked_whatever_it_was_packed_with(name: str) -> None:
    # The kernel's own build appends the unpacked size to what the packer wrote.
    assert unpack_kernel(bzimage(PACKERS[name](ELF) + struct.pack("<I", len(ELF)))) == ELF


@pytest.mark.parametrize("program", ["zstd", "lz4"])
def test_what_python_cannot_unpack_a_program_does(program: str) -> None:
    if shutil.which(program) is None:
        pytest.skip(f"there is no program {program} here")
    legacy = ["-l"] if program == "lz4" else []
    packed = subprocess.run([program, *legacy, "-c"], input=ELF, capture_output=True, check=True).stdout
    assert unpack_kernel(bzimage(packed + struct.pack("<I", len(ELF)))) == ELF


def test_an_unpacked_kernel_and_the_arm64_forms_are_understood() -> None:
    image = bytearray(4096)
    image[0x38:0x3C] = b"ARM\x64"
    packed = gzip.compress(bytes(image))
    zboot = bytearray(64)
    zboot[:2], zboot[4:8] = b"MZ", b"zimg"
    struct.pack_into("<II", zboot, 8, 64, len(packed))
    assert unpack_kernel(ELF) == ELF
    assert unpack_kernel(bytes(image)) == bytes(image)
    assert unpack_kernel(packed) == bytes(image)
    assert unpack_kernel(bytes(zboot) + packed) == bytes(image)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0" * 4096,
        b"\x7fEL",
        bzimage(gzip.compress(ELF))[:3000],
        bzimage(b"\xfd7zXZ\0" + b"\1" * 500),
        bzimage(b"\x1f\x8b" + b"\xff" * 500),
        bzimage(gzip.compress(b"no kernel" * 100)),
        bzimage(b"unknown packing"),
    ],
)
def test_a_damaged_kernel_is_one_sentence(data: bytes) -> None:
    with pytest.raises(LabkitError) as raised:
        unpack_kernel(data, name="vmlinuz")
    assert isinstance(raised.value, GuestError)
    assert str(raised.value).startswith("vmlinuz ")
    assert "\n" not in str(raised.value)


@requires("vm", "program:readelf")
@pytest.mark.parametrize("kind", ["micro", "hostroot"])
def test_the_kernels_here_are_elf_files_with_the_entry_point_that_qemu_looks_for(kind: str) -> None:
    kernel = find_kernel(kind)  # type: ignore[arg-type]
    notes = subprocess.run(["readelf", "-n", str(kernel.path)], capture_output=True, text=True, check=False).stdout
    assert "Xen" in notes
    # XEN_ELFNOTE_PHYS32_ENTRY (xen/interface/elfnote.h): where a PVH boot begins.
    assert "0x00000012" in notes
    assert kernel.release.encode() in kernel.path.read_bytes()

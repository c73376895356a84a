"""From the kernel that a distribution ships to the one that QEMU boots fastest.

``/boot/vmlinuz-*`` is a *bzImage*: a small program that unpacks the kernel proper in memory and jumps to it. In an emulated guest that
unpacking takes half of the boot. The kernel proper is an ELF file, ``vmlinux``, which QEMU can load itself (its entry point is
named in a PVH note); so labkit unpacks once what every guest would unpack again. The header of a bzImage says where the packed
part lies, and its first bytes say how it was packed.

Leaves out: kernels packed with LZO; signatures, which nobody checks here.
See: Documentation/arch/x86/boot.rst (payload_offset, payload_length), Documentation/arch/arm64/booting.rst, elf(5).
"""

from __future__ import annotations

import bz2
import lzma
import struct
import subprocess
import zlib
from collections.abc import Callable, Sequence

from labkit.errors import FeatureMissing, GuestError
from labkit.setup.parts import find_program

__all__ = ["ELF_MAGIC", "decompress", "unpack_kernel"]

ELF_MAGIC = b"\x7fELF"
_ZSTD_MAGIC, _LZ4_MAGIC = b"\x28\xb5\x2f\xfd", b"\x02\x21\x4c\x18"
_SETUP_SECTS, _HEADER_MAGIC, _PAYLOAD = 0x1F1, 0x202, 0x248


def unpack_kernel(data: bytes, *, name: str = "the kernel") -> bytes:
    """Return the unpacked kernel in ``data``: the ELF file of an x86 bzImage, the flat image of an arm64 kernel.

    Raises: GuestError if ``data`` is damaged or no kernel, FeatureMissing if the packer's program is not installed.
    """
    if data[:4] == ELF_MAGIC or data[0x38:0x3C] == b"ARM\x64":
        return data
    if data[_HEADER_MAGIC : _HEADER_MAGIC + 4] == b"HdrS":
        offset_bytes, length_bytes = struct.unpack_from("<II", data, _PAYLOAD)
        begin = (data[_SETUP_SECTS] + 1) * 512 + offset_bytes
        payload = data[begin : begin + length_bytes]
    elif data[4:8] == b"zimg":  # arm64 behind a small EFI program
        begin, length_bytes = struct.unpack_from("<II", data, 8)
        payload = data[begin : begin + length_bytes]
    else:
        payload, length_bytes = data, len(data)
    if len(payload) < length_bytes:
        raise GuestError(f"{name} is cut short: {len(data)} bytes. Run `labkit setup vm --again`.")
    unpacked = decompress(payload, name=name)
    if unpacked[:4] != ELF_MAGIC and unpacked[0x38:0x3C] != b"ARM\x64":
        raise GuestError(f"{name} holds no Linux kernel. Run `labkit setup vm --again`.")
    return unpacked


def decompress(data: bytes, *, name: str) -> bytes:
    """Return ``data`` unpacked by what its first bytes say; what stands behind the packed part is left away.

    Raises: GuestError for damaged or unknown data, FeatureMissing where a program for it is not installed.
    """
    packers: Sequence[tuple[bytes, Callable[[bytes], bytes]]] = (
        (b"\xfd7zXZ\x00", lambda packed: lzma.LZMADecompressor(lzma.FORMAT_XZ).decompress(packed)),
        (b"\x1f\x8b", lambda packed: zlib.decompressobj(31).decompress(packed)),
        (b"BZh", lambda packed: bz2.BZ2Decompressor().decompress(packed)),
        (b"\x5d\x00\x00", lambda packed: lzma.LZMADecompressor(lzma.FORMAT_ALONE).decompress(packed)),
        (_ZSTD_MAGIC, lambda packed: _by_program("zstd", packed, name)),
        (_LZ4_MAGIC, lambda packed: _by_program("lz4", packed, name)),
    )
    unpack = next((unpack for magic, unpack in packers if data.startswith(magic)), None)
    if unpack is None:
        raise GuestError(f"{name} is packed in no way that labkit knows (it begins with {data[:6].hex()}).")
    try:
        return unpack(data)
    except (lzma.LZMAError, zlib.error, OSError, EOFError) as error:
        raise GuestError(f"{name} is damaged: {error}. Run `labkit setup vm --again`.") from error


def _by_program(program: str, packed: bytes, name: str) -> bytes:
    """Unpack with ``zstd`` or ``lz4``: Python has neither before 3.14, and both complain of what stands behind, after all is out."""
    found = find_program(program)
    if found is None:
        raise FeatureMissing(
            f"{name} is packed with {program}.", remedy=f"Install {program}, then run `labkit setup vm`."
        )
    done = subprocess.run([str(found), "-d", "-c"], input=packed, capture_output=True, check=False)
    if not done.stdout:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        raise GuestError(f"{name} is damaged: {said[-1] if said else program}. Run `labkit setup vm --again`.")
    return done.stdout

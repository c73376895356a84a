"""Kernel modules for an initramfs: which files, in which order, so that each finds what it needs already there.

A distribution's kernel is built for all machines, so most of it is modules: ELF files that are loaded when needed. On a running system
``modprobe`` looks up dependencies in an index that ``depmod`` has made at installation. labkit unpacks packages without installing
them, so there is no index; but every module says itself what it needs, in its section ``.modinfo`` (``depends=virtio_ring,virtio``).

The signature that distributions append is cut off: a guest of labkit does not demand one, and checking it takes long under emulation.

Leaves out: aliases (which module drives which device), soft dependencies, parameters.
See: modules.dep(5), init_module(2), Documentation/kbuild/modules.rst, Documentation/admin-guide/module-signing.rst.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from labkit.errors import FeatureMissing, GuestError
from labkit.vm.kernel import GuestKernel
from labkit.vm.vmlinux import ELF_MAGIC, decompress

__all__ = ["ModuleFile", "built_in", "depends_of", "modinfo", "with_dependencies"]

_SUFFIXES = (".ko", ".ko.xz", ".ko.gz", ".ko.zst")
_SIGNATURE_END = b"~Module signature appended~\n"
# Behind the signature, before the closing words: eight bytes about it, then its length, big-endian (linux/module_signature.h).
_SIGNATURE_INFO_BYTES = 12


@dataclass(frozen=True, slots=True)
class ModuleFile:
    """A module as it can be given to init_module(2): its name, and its content, unpacked and without signature."""

    name: str
    content: bytes


def with_dependencies(kernel: GuestKernel, names: Iterable[str]) -> list[ModuleFile]:
    """Return the modules ``names`` and all that they need, in an order in which they can be loaded.

    What is built into the kernel is left out. Raises: FeatureMissing for a module that this kernel does not have.
    """
    there = _index(kernel.modules)
    inside = built_in(kernel)
    loaded: dict[str, ModuleFile] = {}

    def load(name: str, needed_by: Sequence[str]) -> None:
        if name in loaded or name in inside or name in needed_by:
            return
        if name not in there:
            chain = f", which {needed_by[-1]} needs" if needed_by else ""
            raise FeatureMissing(
                f"The guest kernel {kernel.release} has no module {name}{chain}.",
                remedy="Run `labkit setup vm --again`.",
            )
        module = ModuleFile(name, _read(there[name]))
        for other in depends_of(module.content):
            load(other, (*needed_by, name))
        loaded[name] = module

    for name in names:
        load(_plain(name), ())
    return list(loaded.values())


def built_in(kernel: GuestKernel) -> frozenset[str]:
    """Return the names of the modules that are part of the kernel itself, as its package lists them."""
    try:
        lines = (kernel.modules / "modules.builtin").read_text().splitlines()
    except FileNotFoundError:
        return frozenset()
    return frozenset(_plain(Path(line).name.removesuffix(".ko")) for line in lines)


def depends_of(module: bytes) -> tuple[str, ...]:
    """Return the names of the modules that ``module`` (an ELF file) says it needs."""
    needed = next((text for key, text in modinfo(module) if key == "depends"), "")
    return tuple(_plain(name) for name in needed.split(",") if name)


def modinfo(module: bytes) -> list[tuple[str, str]]:
    """Return the pairs of the section ``.modinfo`` of a 64-bit ELF file, as modinfo(8) prints them. Raises: GuestError."""
    try:
        section = _section(module, b".modinfo")
    except (struct.error, IndexError, OverflowError, ValueError) as error:
        raise GuestError(f"A kernel module is damaged: {error}. Run `labkit setup vm --again`.") from error
    pairs = (text.partition("=") for text in section.decode(errors="replace").split("\0") if text)
    return [(key, value) for key, _, value in pairs]


def _section(elf: bytes, wanted: bytes) -> bytes:
    """Return the content of one section: its name stands in a section of names, which the file's header points to."""
    if elf[:5] != ELF_MAGIC + b"\x02":
        raise GuestError("A kernel module is no 64-bit ELF file. Run `labkit setup vm --again`.")
    table_at = struct.unpack_from("<Q", elf, 0x28)[0]
    entry_bytes, count, names_index = struct.unpack_from("<HHH", elf, 0x3A)
    # linux/elf.h, Elf64_Shdr: name (4 bytes), offset at 24, size at 32.
    headers = [
        (*struct.unpack_from("<I", elf, at), *struct.unpack_from("<QQ", elf, at + 24))
        for at in range(table_at, table_at + count * entry_bytes, entry_bytes)
    ]
    _, names_at, names_bytes = headers[names_index]
    names = elf[names_at : names_at + names_bytes]
    for name_at, offset, size_bytes in headers:
        if names[name_at : names.index(b"\0", name_at)] == wanted:
            return elf[offset : offset + size_bytes]
    return b""


def _index(folder: Path) -> dict[str, Path]:
    """Return every module file below ``folder`` by its module's name."""
    files = (path for path in folder.rglob("*.ko*") if path.name.endswith(_SUFFIXES))
    return {_plain(path.name.partition(".ko")[0]): path for path in files}


def _read(path: Path) -> bytes:
    packed = path.read_bytes()
    return _without_signature(packed if path.suffix == ".ko" else decompress(packed, name=str(path)))


def _without_signature(module: bytes) -> bytes:
    if not module.endswith(_SIGNATURE_END):
        return module
    info_end = len(module) - len(_SIGNATURE_END)
    length_bytes = int.from_bytes(module[info_end - 4 : info_end], "big")
    return module[: info_end - _SIGNATURE_INFO_BYTES - length_bytes]


def _plain(name: str) -> str:
    # Files are called virtio-rng.ko or 9pnet_virtio.ko; the kernel itself knows underscores only.
    return name.replace("-", "_")

"""The micro guest: a kernel and an archive with busybox, nothing else.

It is what a "micro VM" is in the cloud: no firmware to speak of, no disk, no services, a program ready within a second of
emulation. Its file system lives in its memory and goes with it.

Leaves out: a package manager, users other than root.
See: `labkit.vm.initramfs`, `labkit.vm.modules`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from labkit.errors import FeatureMissing
from labkit.setup.parts import find_busybox
from labkit.vm.accel import accelerator
from labkit.vm.commandline import board_of
from labkit.vm.cpio import file, folder
from labkit.vm.initramfs import first_calls, initramfs, micro_files
from labkit.vm.kernel import find_kernel
from labkit.vm.modules import with_dependencies
from labkit.vm.spec import GuestSpec

__all__ = ["VIRTIO_NETWORK", "micro_spec"]

#: What a guest needs for a network card on its virtio bus.
VIRTIO_NETWORK = ("virtio_mmio", "virtio_net")
#: No security modules but capabilities and no audit, for nobody in there has a profile or reads the log; and memory is handed out
#: as it is. A tenth of the boot.
_WORDS = ("lsm=", "audit=0", "init_on_alloc=0")
#: Under emulation: a kernel that finds fewer features has less to set up, a tenth of the boot; busybox needs none of them.
_PLAIN_CPU = {"x86_64": "qemu64"}


def micro_spec(
    *, memory_mib: int = 128, cpus: int = 1, modules: Sequence[str] = (), append: Sequence[str] = (),
    cards: Sequence[str] = (),
) -> GuestSpec:  # fmt: skip
    """Return the spec of a micro guest; ``modules`` are names of kernel modules to load, with all that they need.

    ``cards`` are the MAC addresses of its network cards, for which it gets a virtio bus and drivers.
    Raises: FeatureMissing without a guest kernel or busybox.
    """
    machine = os.uname().machine
    board = board_of(machine)
    busybox = find_busybox()
    if busybox is None:
        raise FeatureMissing("This machine has no static busybox to put into a guest.", remedy="Run `labkit setup`.")
    kernel = find_kernel("micro")
    memory_bytes = memory_mib << 20
    address = board.ram_address + board.mailbox_offset(memory_bytes)
    wanted = (*modules, *(VIRTIO_NETWORK if cards else ()))
    archive, paths = _archive(busybox, busybox.stat().st_mtime_ns, kernel.path, wanted, board.port, address, machine)
    return GuestSpec(
        kernel=kernel.path, initramfs=archive, memory_bytes=memory_bytes, cpus=cpus, append=(*_WORDS, *append),
        cpu_model=_PLAIN_CPU.get(machine, "") if not accelerator().is_kvm else "",
        modules=paths, cards=tuple(cards), virtio=bool(cards),
    )  # fmt: skip


@lru_cache(maxsize=4)
def _archive(
    busybox: Path,
    _busybox_mtime_ns: int,
    _kernel: Path,
    modules: tuple[str, ...],
    port: str,
    address: int,
    machine: str,
) -> tuple[bytes, tuple[str, ...]]:
    """Return the archive and the paths of its modules; kept, because it is the same for each micro guest of a program."""
    files = with_dependencies(find_kernel("micro"), modules) if modules else []
    entries = [folder("modules"), *(file(f"modules/{one.name}.ko", one.content) for one in files)]
    packed = initramfs(first_calls(port, address, machine), [*micro_files(busybox), *entries], machine)
    return packed, tuple(f"/modules/{one.name}.ko" for one in files)

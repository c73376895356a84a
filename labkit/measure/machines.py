"""The contenders of the race that are virtual machines: booted, woken up from a file, and on the host's files; and virtme-ng.

Each is asked for the same as everybody: run ``/bin/true`` and be gone. A machine has a kernel to start before; what a snapshot saves is
just that. Machines take part only when asked for, since they take a hundred times as long as everybody else.

virtme-ng does what `labkit.vm.hostroot` does: a guest on the host's own files. It is given the same kernel, unpacked, and the same modules.

Leaves out: machines with a disk and firmware of the usual kind.
See: `labkit.vm.guest`, `labkit.vm.snapshot`, `labkit.vm.hostroot`, https://github.com/arighi/virtme-ng.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from labkit.errors import GuestError
from labkit.measure.contenders import Contender
from labkit.measure.programs import outside, program
from labkit.measure.scratch import scratch_folder
from labkit.setup.parts import search_path
from labkit.vm.accel import accelerator
from labkit.vm.distribution import Distribution, find_disk
from labkit.vm.guest import Guest
from labkit.vm.hostroot import HostRoot
from labkit.vm.kernel import find_kernel

__all__ = ["MACHINES", "MICRO_MIB"]

MICRO_MIB, HOSTROOT_MIB, DISTRIBUTION_MIB = 128, 512, 256
_TRUE = ["/bin/true"]
_VIRTME_NG_S = 180.0  # under emulation, on a busy machine


def _ask(guest: Guest) -> None:
    """Run ``true`` in a guest. Raises: GuestError unless it does."""
    done = guest.exec(_TRUE)
    if done.status:
        raise GuestError(f"/bin/true ended with status {done.status} in a guest.")


@contextmanager
def _microvm(_: Path) -> Iterator[Contender]:
    def start() -> None:
        with Guest(MICRO_MIB) as guest:
            _ask(guest)

    yield Contender("microvm", start, f"a kernel and busybox under {accelerator()}, {MICRO_MIB} MiB")


@contextmanager
def _restored(_: Path) -> Iterator[Contender]:
    with scratch_folder() as folder:
        path = folder / "booted"
        with Guest(MICRO_MIB) as guest:
            _ask(guest)
            guest.snapshot(path)

        def start() -> None:
            with Guest.restore(path) as guest:
                _ask(guest)

        yield Contender("vm-restore", start, "the same machine, saved after its boot, read from a file")


@contextmanager
def _hostroot(_: Path) -> Iterator[Contender]:
    def start() -> None:
        with HostRoot(HOSTROOT_MIB, cpus=1) as guest:
            _ask(guest)

    yield Contender("vm-hostroot", start, f"a generic kernel on the host's files, {HOSTROOT_MIB} MiB")


@contextmanager
def _distribution(_: Path) -> Iterator[Contender]:
    disk = find_disk()

    def start() -> None:
        with Distribution(DISTRIBUTION_MIB) as guest:
            _ask(guest)

    yield Contender("vm-distribution", start, f"{disk.system} on a disk with systemd, {DISTRIBUTION_MIB} MiB")


@contextmanager
def _virtme_ng(_: Path) -> Iterator[Contender]:
    vng = program("vng")
    kernel = find_kernel("hostroot")
    with scratch_folder() as folder:
        # It finds modules beside a kernel by these names, and writes an index (depmod) and settings into folders of ours.
        image = folder / f"boot/vmlinuz-{kernel.release}"
        image.parent.mkdir()
        image.symlink_to(kernel.path)
        shutil.copytree(kernel.modules, folder / f"lib/modules/{kernel.release}")
        how = () if accelerator().is_kvm else ("--disable-kvm",)
        words = ["--run", str(image), *how, "--memory", f"{HOSTROOT_MIB}M", "--cpus", "1", "--exec", "/bin/true"]
        path = f"{Path(vng).parent}:{search_path(os.environ.get('PATH', os.defpath))}"
        variables = {"PATH": path, "HOME": str(folder), "XDG_CONFIG_HOME": str(folder), "XDG_CACHE_HOME": str(folder)}
        note = f"a guest on the host's files with the same kernel, {HOSTROOT_MIB} MiB"
        yield outside("virtme-ng", [vng, *words], note, variables=variables, timeout_s=_VIRTME_NG_S)


#: How each machine is prepared.
MACHINES: Mapping[str, Callable[[Path], AbstractContextManager[Contender]]] = {
    "microvm": _microvm,
    "vm-restore": _restored,
    "vm-hostroot": _hostroot,
    "vm-distribution": _distribution,
    "virtme-ng": _virtme_ng,
}

"""QEMU's command line for a guest: every word has its reason here.

On x86-64 the machine is ``microvm``: no PCI, no ISA but for a clock, an interrupt controller and serial ports, so that neither QEMU nor
the guest kernel spends time on what a guest in a data centre never uses. Without a virtio bus it goes without ACPI, too, which
saves the guest kernel an interpreter. On arm64 it is ``virt``, whose devices are listed in a device tree.

The guest has two serial ports: the console, where the kernel and whoever writes to /dev/console are heard, and the agent's
line. QEMU gets its ends of the socket pairs and the guest's memory as open descriptors; it opens no path but the kernel's,
the initramfs's, and those of a disk and of shared folders.

Leaves out: firmware settings, machines other than these two.
See: qemu(1); QEMU's documentation of microvm; Documentation/admin-guide/kernel-parameters.txt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from labkit.errors import FeatureMissing
from labkit.vm.accel import Accelerator
from labkit.vm.calls import MAILBOX_BYTES
from labkit.vm.spec import GuestSpec, Share

__all__ = ["Board", "Ends", "board_of", "kernel_words", "machine_bytes", "qemu_command"]


@dataclass(frozen=True, slots=True)
class Board:
    """A kind of machine: its QEMU name, its serial ports as the guest names them, and where its memory begins."""

    machine: str
    console: str
    port: str
    ram_address: int

    def mailbox_offset(self, memory_bytes: int) -> int:
        """Return where in the guest's memory file the part lies that host and guest share.

        x86-64: 8 MiB, below where its kernel is loaded. arm64: behind the memory that the guest kernel is told of.
        """
        return 8 << 20 if self.machine == "microvm" else memory_bytes

    def reserved(self, memory_bytes: int) -> str:
        """Return the word that keeps the guest kernel off the shared part."""
        if self.machine == "microvm":
            return f"memmap={MAILBOX_BYTES >> 20}M${self.mailbox_offset(memory_bytes) >> 20}M"
        return f"mem={memory_bytes >> 20}M"


_BOARDS = {
    "x86_64": Board("microvm", "ttyS0", "/dev/ttyS1", 0),
    "aarch64": Board("virt", "ttyAMA0", "/dev/ttyS0", 1 << 30),
}

_ODD_BYTES = 8 << 10  # QEMU rounds a machine's memory up to this


def board_of(machine: str) -> Board:
    """Return the board for guests with this processor. Raises: FeatureMissing for processors without one."""
    try:
        return _BOARDS[machine]
    except KeyError:
        raise FeatureMissing(
            f"labkit has no virtual machine for a {machine} processor.",
            remedy=f"It has one for {' and '.join(_BOARDS)}: run the lessons about machines there.",
        ) from None


@dataclass(frozen=True, slots=True)
class Ends:
    """The descriptors that QEMU inherits: console, the agent's line, monitor, memory, initramfs; and its network cards."""

    console: int
    port: int
    monitor: int
    memory: int
    initramfs: int
    networks: tuple[tuple[int, str], ...] = ()  # descriptor and MAC address

    @property
    def all(self) -> tuple[int, ...]:
        """All of them, for pass_fds."""
        return (self.console, self.port, self.monitor, self.memory, self.initramfs, *(fd for fd, _ in self.networks))


def qemu_command(
    qemu: Path, accelerated: Accelerator, spec: GuestSpec, ends: Ends, *, incoming: str = ""
) -> tuple[str, ...]:
    """Return the whole command line; ``incoming`` makes QEMU wait for a saved or migrating machine instead of booting."""
    board = board_of(spec.machine)
    size_kib = machine_bytes(spec) >> 10
    words = [
        str(qemu), "-nodefaults", "-no-user-config", "-display", "none", *accelerated.qemu_arguments,
        "-machine", _machine_words(board, spec),
        "-m", f"{size_kib}K", "-smp", str(spec.cpus), *(("-cpu", spec.cpu_model) if spec.cpu_model else ()),
        # share=on: what the guest writes is in the file, where the host can see it.
        "-object", f"memory-backend-file,id=ram,mem-path=/proc/self/fd/{ends.memory},size={size_kib}K,share=on",
        *(("-incoming", incoming) if incoming else _kernel(spec, ends, accelerated.kernel_words)),
        # A guest that restarts itself (panic=-1) ends its QEMU instead of going round for ever.
        "-no-reboot",
        *_serial("console", ends.console, board, 0), *_serial("port", ends.port, board, 1),
        "-chardev", f"socket,id=monitor,fd={ends.monitor}", "-mon", "chardev=monitor,mode=control",
        *(word for number, (fd, mac) in enumerate(ends.networks) for word in _network_card(number, fd, mac)),
        *(word for number, share in enumerate(spec.shares) for word in _share(number, share)),
        *(_disk(spec.disk, is_kept=spec.keeps_disk) if spec.disk is not None else ()),
        *spec.devices,
    ]  # fmt: skip
    return tuple(words)


def _kernel(spec: GuestSpec, ends: Ends, words: Sequence[str]) -> list[str]:
    """Return what to boot; a machine that comes in has it in its memory already."""
    append = " ".join([kernel_words(spec), *words])
    return ["-kernel", str(spec.kernel), "-initrd", f"/proc/self/fd/{ends.initramfs}", "-append", append]


def machine_bytes(spec: GuestSpec) -> int:
    """Return the size of the machine's memory: the guest's, what it shares with the host, and a little more.

    QEMU before 9.0 takes a short cut through its list of changed pages where memory is a multiple of 256 KiB, and forgets there to
    tell the emulated CPU; a migration then misses what the CPU goes on writing. 8 KiB more, and it goes the long way.
    """
    return spec.memory_bytes + MAILBOX_BYTES + _ODD_BYTES


def kernel_words(spec: GuestSpec) -> str:
    """Return the guest kernel's command line."""
    board = board_of(spec.machine)
    words = [
        f"console={board.console}", "quiet", board.reserved(spec.memory_bytes),
        # A panic restarts at once, and the triple fault that restarts a machine without firmware ends QEMU.
        "panic=-1", "oops=panic", *(("reboot=t",) if board.machine == "microvm" else ()),
        # The kernel's tests of its own cryptography, and patching itself for one CPU, take a quarter of the boot under emulation.
        "cryptomgr.notests", "noreplace-smp",
        *spec.append,
    ]  # fmt: skip
    return " ".join(words)


def _machine_words(board: Board, spec: GuestSpec) -> str:
    if board.machine == "microvm":
        return f"microvm,isa-serial=off,acpi={'on' if spec.virtio else 'off'},memory-backend=ram"
    return f"{board.machine},gic-version=max,memory-backend=ram"


def _serial(name: str, fd: int, board: Board, number: int) -> list[str]:
    words = ["-chardev", f"socket,id={name},fd={fd}"]
    if board.machine == "microvm":
        return [*words, "-device", f"isa-serial,chardev={name},index={number}"]
    # QEMU before 9.1 gives this board one serial port of its own; the other one is a card.
    return [*words, *(("-serial", f"chardev:{name}") if number == 0 else ("-device", f"pci-serial,chardev={name}"))]


def _network_card(number: int, fd: int, mac: str) -> list[str]:
    return [
        "-netdev", f"socket,id=net{number},fd={fd}",
        "-device", f"virtio-net-device,netdev=net{number},mac={mac}",
    ]  # fmt: skip


def _disk(path: Path, *, is_kept: bool) -> list[str]:
    # snapshot=on: what the guest writes goes into a file without a name, so several guests can start from one disk.
    options = f"if=none,id=disk,format=raw,file={str(path).replace(',', ',,')},snapshot={'off' if is_kept else 'on'}"
    return ["-drive", options, "-device", "virtio-blk-device,drive=disk"]


def _share(number: int, share: Share) -> list[str]:
    # multidevs=remap: a tree with several file systems in it, with inode numbers that stay distinct.
    path = str(share.path).replace(",", ",,")
    options = f"local,id=fs{number},path={path},security_model=none,multidevs=remap"
    return [
        "-fsdev", options + (",readonly=on" if share.readonly else ""),
        "-device", f"virtio-9p-device,fsdev=fs{number},mount_tag={share.tag}",
    ]  # fmt: skip

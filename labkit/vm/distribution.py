"""A guest with a whole distribution: a disk, systemd as its first process, services, a login.

This is what people mean by "a virtual machine". The micro guest leaves away everything that takes time; this one has it all, so it is
what the others are compared with. Its disk comes from `labkit.vm.debian`; each guest starts from the same one and keeps nothing.

It boots as distributions do. The kernel starts the init of an initramfs, here labkit's agent, which loads the disk's drivers and
mounts the disk. Then that process *becomes* systemd, because process 1 must be. So the agent first makes a copy of itself to answer the host
from then on. Both read their next calls from one memory: the copy waits on a pipe, whose other end execve(2) closes in the
original, and only then tells the host that it is there.

Leaves out: networks; modules other than those that the boot needs; a boot loader and firmware settings.
See: bootup(7), systemd(1), switch_root(8), fork(2), execve(2) (close-on-exec), `labkit.vm.hostroot` for the root folder's change.
"""

from __future__ import annotations

import json
import os
import signal
import struct
import time
from dataclasses import dataclass, replace
from pathlib import Path

from labkit.errors import DeadlineExceeded, FeatureMissing, GuestError
from labkit.setup.parts import cache_folder
from labkit.vm.boot import raise_if_refused
from labkit.vm.calls import CallList, Slot
from labkit.vm.commandline import board_of
from labkit.vm.cpio import file, folder
from labkit.vm.guest import Guest
from labkit.vm.initramfs import first_calls, initramfs
from labkit.vm.kernel import find_kernel
from labkit.vm.modules import with_dependencies
from labkit.vm.spec import GuestMount, GuestSpec

__all__ = ["DISTRIBUTION_MODULES", "Disk", "Distribution", "disk_folder", "distribution_spec", "find_disk"]

DISTRIBUTION_MODULES = ("virtio_mmio", "virtio_blk", "ext4")
_AT_FDCWD, _O_CLOEXEC = -100, 0o2000000
_MOVE, _DETACH = 8192, 2  # linux/mount.h, linux/fs.h
_SYSTEMD = "/lib/systemd/systemd"
_ENVIRONMENT = ("HOME=/", "TERM=linux", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
_MOUNTS = (GuestMount("devtmpfs", "/dev"), GuestMount("ext4", "/root", source="/dev/vda"))
_SIG_IGN = struct.pack("<4Q", 1, 0, 0, 0)  # struct sigaction: handler, flags, restorer, mask
#: systemctl answers this before systemd listens, and while it starts.
_NOT_YET = ("", "offline", "initializing", "starting")
_ASK_AGAIN_S = 0.2


@dataclass(frozen=True, slots=True)
class Disk:
    """The disk that set-up has made: the file, what is on it, and how many packages of which distribution."""

    path: Path
    system: str
    packages: int


class Distribution(Guest):
    """A guest with Debian on a disk, as a context manager; ready when systemd says that everything has started."""

    def __init__(
        self, memory_mib: int = 256, *, cpus: int = 1, name: str = "", boot_timeout_s: float = 120.0,
        spec: GuestSpec | None = None,
    ) -> None:  # fmt: skip
        spec = spec or distribution_spec(memory_mib=memory_mib, cpus=cpus)
        super().__init__(spec=spec, name=name, boot_timeout_s=boot_timeout_s)

    def start(self) -> None:
        """Boot the machine until systemd has started every service. Raises: FeatureMissing, GuestError, DeadlineExceeded."""
        began_s = time.monotonic()
        super().start()
        try:
            self._become_systemd()
            self._wait_for_services(began_s + self._boot_timeout_s)
        except BaseException:
            self.close()
            raise
        self._timeline = replace(self.timeline, ready_s=time.monotonic() - began_s)

    def _become_systemd(self) -> None:
        calls, purposes = _enter_disk(self.spec.machine)
        ends = calls.note(8)
        purposes[calls.call("pipe2", ends, _O_CLOEXEC)] = "make a pipe"
        answer = self.perform(calls)
        raise_if_refused(answer, purposes)
        read_end, write_end = struct.unpack("<ii", answer.note(ends))
        self.perform(_split(self.spec.machine, read_end, write_end))

    def _wait_for_services(self, deadline_s: float) -> None:
        """Ask systemd until it has started everything. Raises: GuestError naming what failed, DeadlineExceeded."""
        state = ""
        while state in _NOT_YET:
            left_s = deadline_s - time.monotonic()
            if left_s <= 0:
                raise DeadlineExceeded(f"systemd was not ready in {self._boot_timeout_s:g} s: give it more time.")
            asked = self.exec(["systemctl", "is-system-running", "--wait"], timeout_s=left_s)
            state = asked.text.strip()
            if state in _NOT_YET:
                time.sleep(_ASK_AGAIN_S)
        if state != "running":
            failed = self.exec(["systemctl", "list-units", "--failed", "--plain", "--no-legend"]).text
            names = ", ".join(line.split()[0] for line in failed.splitlines() if line.strip())
            raise GuestError(
                f"systemd says {state!r}: {names or 'it names no unit'} did not start. Set the disk up anew."
            )


def _enter_disk(machine: str) -> tuple[CallList, dict[Slot, str]]:
    """Return the calls that make the disk the root of everything to come, and what each is for."""
    calls = CallList(machine)
    purposes = {calls.call("umount2", "/dev", _DETACH): "let go of /dev"}
    purposes[calls.call("chdir", "/root")] = "find the disk's root"
    purposes[calls.call("mount", ".", "/", None, _MOVE, None)] = "move the disk to the root"
    purposes[calls.call("chroot", ".")] = "change its root"
    calls.call("chdir", "/")
    return calls, purposes


def _split(machine: str, read_end: int, write_end: int) -> CallList:
    """Return the calls by which the agent makes a copy that goes on, and itself becomes systemd."""
    calls = CallList(machine)
    clone = calls.call("clone", signal.SIGCHLD, 0, 0, 0, 0)
    calls.call("setsid")
    # Only init is spared a signal's default action: writing to a command that reads no more would end the copy.
    calls.call("rt_sigaction", signal.SIGPIPE, _SIG_IGN, None, 8)
    calls.call("close", write_end)
    calls.read(read_end, 1)
    calls.call("close", read_end)
    pid = calls.call("getpid")
    calls.skip_from(clone)
    calls.call("execve", _SYSTEMD, (_SYSTEMD,), _ENVIRONMENT)
    calls.call("exit_group", 1)
    calls.skip_from(pid)
    return calls


def distribution_spec(
    *, memory_mib: int = 256, cpus: int = 1, disk: Path | None = None, keeps_disk: bool = False
) -> GuestSpec:
    """Return the spec of a guest with the distribution on ``disk``, by default the one that set-up has made.

    Raises: FeatureMissing without a disk or a guest kernel.
    """
    machine = os.uname().machine
    board = board_of(machine)
    path = disk or find_disk().path
    kernel = find_kernel("micro")
    memory_bytes = memory_mib << 20
    files = with_dependencies(kernel, DISTRIBUTION_MODULES)
    entries = [*map(folder, ("modules", "root")), *(file(f"modules/{one.name}.ko", one.content) for one in files)]
    address = board.ram_address + board.mailbox_offset(memory_bytes)
    return GuestSpec(
        kernel=kernel.path, initramfs=initramfs(first_calls(board.port, address, machine), entries, machine),
        memory_bytes=memory_bytes, cpus=cpus, virtio=True, disk=path, keeps_disk=keeps_disk,
        modules=tuple(f"/modules/{one.name}.ko" for one in files), mounts=_MOUNTS, hostname="labkit-debian",
    )  # fmt: skip


def disk_folder() -> Path:
    """Return the folder of the cache in which the disk lies; it need not exist."""
    return cache_folder() / "distribution"


def find_disk() -> Disk:
    """Return the disk that set-up has made. Raises: FeatureMissing if there is none."""
    described, path = disk_folder() / "disk.json", disk_folder() / "disk.ext4"
    try:
        facts = json.loads(described.read_text())
        found = Disk(path, str(facts["system"]), int(facts["packages"]))
        if path.stat().st_size == facts["size_bytes"]:
            return found
    except (OSError, ValueError, KeyError, TypeError):
        pass  # without either file, or with a damaged one, there is no disk
    raise FeatureMissing(
        "There is no disk with a distribution for guests on this machine.",
        remedy="Run `labkit setup vm --distribution`.",
    )

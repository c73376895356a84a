"""One QEMU process with everything that belongs to it: memory, console, agent's line, monitor.

A `labkit.vm.guest.Guest` has one at a time; when it migrates it moves into another one. All ends are made before QEMU is started and
inherited by it as open descriptors: the guest's memory is a file without a name (memfd), the lines are socket pairs. So an
instance has no path anywhere, but for an entry in the run folder by which ``labkit ps`` and ``labkit clean`` know it.

Leaves out: what the guest does.
See: memfd_create(2), socketpair(2), `labkit.container.runfolder`.
"""

from __future__ import annotations

import mmap
import os
import secrets
import select
import socket
import time
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path

from labkit.container import leftovers, runfolder
from labkit.errors import GuestError
from labkit.linux.fds import Fd
from labkit.units import format_bytes
from labkit.vm.accel import accelerator, find_qemu
from labkit.vm.calls import MAILBOX_BYTES
from labkit.vm.commandline import Ends, board_of, machine_bytes, qemu_command
from labkit.vm.monitor import Monitor
from labkit.vm.network import Network
from labkit.vm.port import Port
from labkit.vm.process import QemuProcess
from labkit.vm.spec import GuestSpec
from labkit.vm.timeline import FIRMWARE_BYTES, loaded_bytes

__all__ = ["Instance"]

MEMORY_FACTS = "/proc/meminfo"
#: What QEMU itself takes beside the guest's memory.
_QEMU_BYTES = 96 << 20
_LAST_WORDS_S = 2.0
_LOOK_AGAIN_MS = 1
_BY_DESCRIPTOR = "/proc/self/fd/"


class Instance:
    """A QEMU that runs ``spec``, or waits for its state to come in by the descriptor ``incoming_fd``."""

    def __init__(self, name: str, spec: GuestSpec, *, incoming_fd: int = -1, network: Network | None = None) -> None:
        _demand_memory(spec)
        self.spec = spec
        self._stack = ExitStack()
        try:
            self._start(name, incoming_fd, network)
        except BaseException:
            self._stack.close()
            raise

    def _start(self, name: str, incoming_fd: int, network: Network | None) -> None:
        spec, stack = self.spec, self._stack
        qemu, accelerated = find_qemu(), accelerator()
        folder = _run_folder(stack)
        memory = stack.enter_context(_memory_file("labkit-guest", machine_bytes(spec)))
        self._memory = memory
        line, monitor, console = (socket.socketpair() for _ in range(3))
        with ExitStack() as theirs, line[1], monitor[1], console[1], _memory_file("labkit-initramfs", 0) as archive:
            self.monitor = Monitor(monitor[0], partial(self.why_silent, is_gone=True))
            stack.callback(monitor[0].close)
            self.port = Port(line[0], self._map(memory), self.why_silent)
            stack.callback(self.port.close)
            os.write(archive.number, spec.initramfs)
            ends = Ends(
                console=console[1].fileno(), port=line[1].fileno(), monitor=monitor[1].fileno(),
                memory=memory.number, initramfs=archive.number, networks=tuple((_cable(theirs, network), mac) for mac in spec.cards),
            )  # fmt: skip
            incoming = f"fd:{incoming_fd}" if incoming_fd >= 0 else ""
            opened = _opened(theirs, spec) if spec.user >= 0 else spec
            command = qemu_command(qemu, accelerated, opened, ends, incoming=incoming)
            inherit = [*ends.all, *([incoming_fd] if incoming else []), *_fds_of(opened)]
            env = {"PATH": os.environ.get("PATH", os.defpath), leftovers.LAUNCHER_VARIABLE: folder.path}
            self.process = QemuProcess(name, command, inherit=inherit, env=env, console=console[0], user=spec.user)
        stack.callback(self.process.close)
        stack.callback(self.monitor.close)
        self.command = command
        entry = {"name": name, "pid": self.process.pid, "started_s": time.time(), "hostname": spec.hostname}
        folder.write_entry(name, entry | {"command": ["(virtual machine)", spec.kernel.name]})

    @property
    def touched_bytes(self) -> int:
        """How much of its memory the guest has used so far: the rest has never been written to and takes no room."""
        return os.fstat(self._memory.number).st_blocks * 512

    def _map(self, memory: Fd) -> memoryview:
        """Return the part of the guest's memory that its agent and we share."""
        offset = board_of(self.spec.machine).mailbox_offset(self.spec.memory_bytes)
        pages = self._stack.enter_context(mmap.mmap(memory.number, MAILBOX_BYTES, offset=offset))
        return self._stack.enter_context(memoryview(pages))

    def watch_boot(self, deadline_s: float) -> tuple[float, float]:
        """Watch the guest's memory fill; return the moments when its kernel was loaded, and when it began to run.

        Returns at the deadline, too, and when the guest is there already or QEMU has ended: what follows will notice.
        """
        poll = select.poll()
        poll.register(self.port, select.POLLIN)
        poll.register(self.monitor, 0)
        loaded_s, kernel_bytes = 0.0, loaded_bytes(self.spec)
        while not poll.poll(_LOOK_AGAIN_MS) and time.monotonic() < deadline_s:
            used = self.touched_bytes
            if used >= kernel_bytes:
                loaded_s = loaded_s or time.monotonic()
                if used > kernel_bytes + FIRMWARE_BYTES:
                    break
        now_s = time.monotonic()
        return loaded_s or now_s, now_s

    def why_silent(self, *, is_gone: bool = False) -> str:
        """Say what is known of a guest that does not answer, in a sentence or two; nothing if its QEMU runs.

        ``is_gone``: something has told already that QEMU is ending, so its status is waited for.
        """
        self.process.ended.wait(_LAST_WORDS_S if is_gone or self._has_hung_up() else 0)
        code, panic = self.process.code, self.process.console.panic()
        if code is None:
            return ""
        if panic is not None:
            return f"The guest's kernel panicked: {panic}. What led to it stands on its console."
        if code == -9:
            return (
                "QEMU was killed (SIGKILL), by somebody or by the kernel for lack of memory; the guest is gone with it."
            )
        if code < 0:
            return f"QEMU was ended by signal {-code}; the guest is gone with it."
        if code == 0:
            return "The guest has shut itself down."
        return f"QEMU ended with status {code}: {self.process.complaints or 'it gave no reason'}."

    def _has_hung_up(self) -> bool:
        """Tell whether QEMU has closed its end of the agent's line, which only its end does."""
        poll = select.poll()
        if self.port.fileno() >= 0:
            poll.register(self.port, 0)
        return any(events & select.POLLHUP for _, events in poll.poll(0))

    def close(self) -> None:
        """End QEMU and give everything back; safe to call twice."""
        self._stack.close()


def _run_folder(stack: ExitStack) -> runfolder.RunFolder:
    """Make the folder by which other processes know that this guest has a living owner."""
    base = runfolder.base_folder()
    try:
        if any(runfolder.dead_folders(base)):
            leftovers.remove(leftovers.find(base))
        folder = runfolder.RunFolder.create(base, f"labkit-vm-{os.getpid()}-{secrets.token_hex(3)}")
    except OSError as error:
        raise GuestError(f"The guest's folder below {base} could not be made: {error.strerror}.") from error
    stack.callback(folder.remove)
    return folder


def _opened(stack: ExitStack, spec: GuestSpec) -> GuestSpec:
    """Return ``spec`` with descriptors in place of paths, for a QEMU whose user may not go to where these lead."""

    def by_descriptor(path: Path, flags: int) -> Path:
        fd = stack.enter_context(Fd(os.open(path, flags | os.O_RDONLY | os.O_CLOEXEC)))
        return Path(f"{_BY_DESCRIPTOR}{fd.number}")

    shares = tuple(replace(share, path=by_descriptor(share.path, os.O_DIRECTORY)) for share in spec.shares)
    return replace(spec, kernel=by_descriptor(spec.kernel, 0), shares=shares)


def _fds_of(spec: GuestSpec) -> list[int]:
    paths = [str(path) for path in (spec.kernel, *(share.path for share in spec.shares))]
    return [int(path.removeprefix(_BY_DESCRIPTOR)) for path in paths if path.startswith(_BY_DESCRIPTOR)]


def _cable(theirs: ExitStack, network: Network | None) -> int:
    """Return the end of a network cable for QEMU; without a network it leads nowhere."""
    if network is not None:
        return theirs.enter_context(network.plug_in()).fileno()
    ours, end = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    ours.close()
    return theirs.enter_context(end).fileno()


def _memory_file(name: str, size_bytes: int) -> Fd:
    """Return a file without a path, whose content is memory; pages that nobody has written to take none."""
    fd = Fd(os.memfd_create(name, os.MFD_CLOEXEC))
    os.ftruncate(fd.number, size_bytes)
    return fd


def _demand_memory(spec: GuestSpec) -> None:
    """Raise GuestError if the machine has not enough memory left for the guest to touch all of its own."""
    with open(MEMORY_FACTS) as file:
        available = next(int(line.split()[1]) << 10 for line in file if line.startswith("MemAvailable:"))
    needed = spec.memory_bytes + _QEMU_BYTES
    if needed > available:
        raise GuestError(
            f"A guest with {format_bytes(spec.memory_bytes)} of memory needs {format_bytes(needed)}, and this machine has "
            f"{format_bytes(available)} left: give the guest less, or end other programs."
        )

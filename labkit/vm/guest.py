"""A virtual machine as a context manager: boot it, run commands in it, look at it, end it.

::

    with Guest(memory_mib=128) as guest:
        guest.exec(["uname", "-r"]).text      # the guest's own kernel
        guest.timeline.phases()               # where the boot's time went
        guest.console.tail()                  # what its kernel said

A guest ends with its block, with the program, or by itself (a panic, a shutdown, a kill of its QEMU); then every method that
needs it raises GuestError with what is known. Nothing is left of it in any case.

Leaves out: shutting down in order (a micro guest has nothing to save); more than one CPU under emulation is possible, and slow.
See: `labkit.vm.spec`, `labkit.vm.instance`, `labkit.vm.agent`.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Literal

from labkit.errors import DeadlineExceeded, GuestError, InvalidState
from labkit.vm.boot import make_ready
from labkit.vm.calls import Answer, CallList
from labkit.vm.console import Console
from labkit.vm.execution import Execution, GuestResult, Streams
from labkit.vm.files import read_file, write_file
from labkit.vm.instance import Instance
from labkit.vm.micro import micro_spec
from labkit.vm.migration import Migration, move
from labkit.vm.monitor import Monitor
from labkit.vm.network import Network
from labkit.vm.snapshot import load_state, open_snapshot, save_state
from labkit.vm.spec import GuestSpec
from labkit.vm.timeline import Timeline

__all__ = ["Guest", "State"]

#: ``created`` before the block, ``ended`` after it or when the guest is gone.
State = Literal["created", "running", "paused", "ended"]
_numbers = itertools.count(1)


class Guest:
    """A virtual machine. ``Guest()`` is a micro guest; ``Guest(spec=...)`` any other. Used once, as a context manager."""

    def __init__(
        self, memory_mib: int = 128, *, cpus: int = 1, spec: GuestSpec | None = None, name: str = "",
        network: Network | None = None, boot_timeout_s: float = 60.0,
    ) -> None:  # fmt: skip
        self.name = name or f"guest-{os.getpid()}-{next(_numbers)}"
        self._network = network
        #: The guest's IP address in its network; empty without one.
        self.address = ""
        cards: tuple[str, ...] = ()
        if network is not None and spec is None:
            mac, self.address = network.next_address()
            cards = (mac,)
        self.spec = spec or micro_spec(memory_mib=memory_mib, cpus=cpus, cards=cards)
        self._boot_timeout_s = boot_timeout_s
        self._instance: Instance | None = None
        self._timeline: Timeline | None = None
        self._is_paused = self._is_closed = False
        self._owner_pid = os.getpid()

    def start(self) -> None:
        """Boot the machine; return when it is ready.

        Raises: FeatureMissing without QEMU, GuestError when the guest does not get ready within its time limit, with the reason.
        """
        if self._instance is not None:
            raise InvalidState(f"{self.name} was started before: make a new guest.")
        self._instance = instance = Instance(self.name, self.spec, network=self._network)
        deadline_s = instance.process.started_s + self._boot_timeout_s
        try:
            loaded_s, kernel_s = instance.watch_boot(deadline_s)
            instance.port.wait(deadline_s)
            init_s = time.monotonic()
            make_ready(instance.port, self.spec, time.time(), deadline_s)
            if self.address:
                self._set_address(deadline_s)
        except BaseException as error:
            last_words = instance.process.console.tail(3)
            self.close()
            if isinstance(error, GuestError):
                raise GuestError(f"{self.name} did not get ready: {error} {_quoted(last_words)}".strip()) from error
            raise
        moments = (loaded_s, kernel_s, init_s, time.monotonic())
        self._timeline = Timeline(*(moment - instance.process.started_s for moment in moments))

    def _set_address(self, deadline_s: float) -> None:
        for words in (["ip", "addr", "add", self.address, "dev", "eth0"], ["ip", "link", "set", "eth0", "up"]):
            done = self.exec(words, timeout_s=max(0.1, deadline_s - time.monotonic()))
            if done.status:
                raise GuestError(
                    f"The guest's network card could not be set up: {done.stderr.decode(errors='replace').strip()}."
                )
        self.address = self.address.partition("/")[0]

    @classmethod
    def restore(cls, path: Path, *, name: str = "", network: Network | None = None, timeout_s: float = 30.0) -> Guest:
        """Return a running guest with the state that `snapshot` saved to ``path``; it is its own context manager.

        Raises: GuestError if the file is none, is damaged, or belongs to another QEMU.
        """
        spec, state_fd = open_snapshot(path)
        guest = cls(spec=spec, name=name, network=network)
        try:
            with state_fd:
                guest._instance = load_state(guest.name, spec, state_fd, time.monotonic() + timeout_s, network)
        except GuestError as error:
            raise GuestError(f"{path} could not be brought back: {error} Make a new snapshot.") from error
        return guest

    @property
    def state(self) -> State:
        """What the guest does now."""
        if self._instance is None:
            return "created"
        if self._is_closed or self._instance.process.ended.is_set():
            return "ended"
        return "paused" if self._is_paused else "running"

    @property
    def pid(self) -> int:
        """The pid of the guest's QEMU."""
        return self._alive().process.pid

    @property
    def timeline(self) -> Timeline:
        """Where the time of the boot went. Raises: InvalidState for a guest that was restored, not booted."""
        if self._timeline is None:
            raise InvalidState(
                f"{self.name} has not booted: only `start` does, a restored guest goes on from where it was."
            )
        return self._timeline

    @property
    def console(self) -> Console:
        """What the guest writes to its console; it can be read after the guest's end, too."""
        if self._instance is None:
            raise InvalidState(f"{self.name} has not been started.")
        return self._instance.process.console

    def type_text(self, text: str) -> None:
        """Type ``text`` at the guest's console; what reads from there gets it (`labkit.measure.guest_console` has a shell do it).

        Raises: GuestError if the guest is gone or reads nothing.
        """
        self._alive().process.write_console(text.encode())

    @property
    def qmp(self) -> Monitor:
        """QEMU's monitor, for everything that this class does not offer."""
        return self._alive().monitor

    @property
    def command(self) -> tuple[str, ...]:
        """The command line of the guest's QEMU."""
        return self._alive().command

    def exec(
        self, command: Sequence[str], *, stdin: bytes = b"", timeout_s: float = 30.0, cwd: str = "/",
        env: Mapping[str, str] | None = None, streams: Streams | None = None,
    ) -> GuestResult:  # fmt: skip
        """Run ``command`` in the guest and wait for its end; its output comes back byte for byte, or as it comes by ``streams``.

        Raises: DeadlineExceeded after ``timeout_s`` (the command is killed), SetupError if there is no such program,
        GuestError if the guest is gone or hangs, InvalidState if it is paused.
        """
        port = self._awake().port
        execution = Execution(port, self.spec.machine, command, stdin=stdin, cwd=cwd, env=env or {}, streams=streams)
        return execution.run(timeout_s)

    def perform(self, calls: CallList, *, timeout_s: float = 10.0) -> Answer:
        """Let the guest's init make system calls (`labkit.vm.calls`) and return the answers. Raises: as `exec`."""
        return self._awake().port.exchange(calls, time.monotonic() + timeout_s)

    def copy_in(
        self, source: Path | bytes, path: str, *, permissions: int | None = None, timeout_s: float = 60.0
    ) -> None:
        """Make a file in the guest from a file of the host, with its permissions, or from bytes. Raises: as `exec`."""
        content = source if isinstance(source, bytes) else source.read_bytes()
        if permissions is None:
            permissions = 0o644 if isinstance(source, bytes) else source.stat().st_mode & 0o777
        port = self._awake().port
        write_file(port, self.spec.machine, content, path, permissions=permissions, timeout_s=timeout_s)

    def copy_out(self, path: str, *, timeout_s: float = 60.0) -> bytes:
        """Return the content of a file in the guest. Raises: GuestError with the guest kernel's answer."""
        return read_file(self._awake().port, self.spec.machine, path, timeout_s=timeout_s)

    def pause(self) -> None:
        """Stop the machine between two instructions: its clock, its programs, everything in it stands still."""
        self._alive().monitor.execute("stop")
        self._is_paused = True

    def resume(self) -> None:
        """Let a paused machine go on."""
        self._alive().monitor.execute("cont")
        self._is_paused = False

    def snapshot(self, path: Path, *, timeout_s: float = 60.0) -> None:
        """Save the machine, memory and all, to the file ``path``; it stands still meanwhile and goes on afterwards.

        Raises: GuestError when the disk is full, with nothing left of the file; InvalidState for a guest with a disk.
        """
        instance = self._alive()
        self._demand_no_disk()
        with instance.port.lock:
            instance.port.wait(time.monotonic() + timeout_s)
            if not self._is_paused:
                instance.monitor.execute("stop")
            try:
                save_state(instance, path, time.monotonic() + timeout_s)
            finally:
                if not self._is_paused:
                    instance.monitor.execute("cont")

    def migrate(self, *, timeout_s: float = 60.0) -> Migration:
        """Move the running machine into a new QEMU process, and end the old one; return what it took.

        Raises: GuestError if the machine could not move; then it runs on where it is. InvalidState for a guest with a disk.
        """
        old = self._alive()
        self._demand_no_disk()
        with old.port.lock:
            old.port.wait(time.monotonic() + timeout_s)
            self._instance, migration = move(old, self.name, time.monotonic() + timeout_s, self._network)
        return migration

    def wait(self, timeout_s: float) -> str:
        """Wait until the guest ends by itself; return why. Raises: DeadlineExceeded if it does not."""
        instance = self._started()
        if not instance.process.ended.wait(timeout_s):
            raise DeadlineExceeded(f"{self.name} still ran after {timeout_s:g} s.")
        return instance.why_silent()

    def close(self) -> None:
        """End the machine at once and give everything back; safe to call twice, and after the guest's own end."""
        if self._instance is not None and self._owner_pid == os.getpid():
            self._is_closed = True
            self._instance.close()

    def _demand_no_disk(self) -> None:
        if self.spec.disk is not None:
            raise InvalidState(f"{self.name} has a disk, which its state does not hold: use a guest without one.")

    def _started(self) -> Instance:
        if self._instance is None:
            raise InvalidState(f"{self.name} has not been started: use it as `with Guest() as guest:`.")
        return self._instance

    def _alive(self) -> Instance:
        """Return the instance of a guest that runs. Raises: InvalidState, or GuestError with the reason of its end."""
        instance = self._started()
        if self._is_closed:
            raise InvalidState(f"{self.name} has been closed: make a new guest.")
        if instance.process.ended.is_set():
            raise GuestError(instance.why_silent())
        return instance

    def _awake(self) -> Instance:
        instance = self._alive()
        if self._is_paused:
            raise InvalidState(f"{self.name} is paused: call resume() first.")
        return instance

    def __enter__(self) -> Guest:
        if self._instance is None:
            self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Guest({self.name!r}, {self.spec.memory_bytes >> 20} MiB, {self.state})"


def _quoted(last_words: str) -> str:
    return f"Its console ends with: {last_words!r}" if last_words.strip() else ""

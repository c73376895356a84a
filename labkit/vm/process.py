"""QEMU as a process of ours: started by a thread that stays, heard until it ends, never outliving us.

The kernel can send a process a signal when its parent ends (PR_SET_PDEATHSIG), and "parent" means the thread that forked it. So
each guest has a thread of its own: it starts QEMU (by setpriv(1), which sets the signal and becomes QEMU), reads the guest's
console and QEMU's complaints, and collects the exit status. When the program is killed, its threads end, and the kernel
kills QEMU. Should both be killed in the same moment, before QEMU has the signal set, `labkit clean` finds it by its environment.

Leaves out: restarting; confining QEMU.
See: prctl(2) (PR_SET_PDEATHSIG), setpriv(1), pidfd_open(2).
"""

from __future__ import annotations

import os
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from labkit.errors import FeatureMissing, GuestError
from labkit.linux.fds import Fd
from labkit.vm.console import Console

__all__ = ["QemuProcess"]

_MOST_COMPLAINT_BYTES = 4096
_SHIM = """import os, sys; sys.path.insert(0, sys.argv[1])
from labkit.linux.constants import Prctl; from labkit.linux.syscalls import prctl
prctl(Prctl.SET_PDEATHSIG, 9); os.execv(sys.argv[2], sys.argv[2:])"""


class QemuProcess:
    """A running QEMU. ``console`` is our end of the guest's console; it is closed when QEMU has ended."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        inherit: Sequence[int],
        env: Mapping[str, str],
        console: socket.socket,
        user: int = -1,
    ) -> None:
        self.console = Console()
        self.started_s = 0.0
        self.ended = threading.Event()
        self._socket = console
        self._complaints = bytearray()
        self._popen: subprocess.Popen[bytes] | None = None
        self._pidfd = Fd(-1)
        self._failure: OSError | None = None
        is_started = threading.Event()

        def spawn() -> None:
            try:
                self.started_s = time.monotonic()
                self._popen = subprocess.Popen(
                    [*_bound_to_parent(user), *command], pass_fds=inherit, env=dict(env), cwd="/",
                    stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                    # Ctrl-C and "interrupt the kernel" signal the whole group: that is for the program, not for its machines.
                    start_new_session=True,
                )  # fmt: skip
                self._pidfd = Fd(os.pidfd_open(self._popen.pid))
            except OSError as error:
                self._failure = error
            finally:
                is_started.set()

        self._thread = threading.Thread(target=self._live, args=(spawn,), name=f"labkit-{name}", daemon=True)
        self._thread.start()
        is_started.wait()
        if self._failure is not None:
            self._thread.join()
            raise GuestError(f"QEMU could not be started: {self._failure.strerror}: {command[0]}.") from self._failure

    @property
    def pid(self) -> int:
        """QEMU's pid; -1 if it could not be started."""
        return -1 if self._popen is None else self._popen.pid

    @property
    def complaints(self) -> str:
        """The last line that QEMU wrote to standard error."""
        lines = [line for line in self._complaints.decode(errors="replace").splitlines() if line.strip()]
        return "".join(letter for letter in lines[-1] if letter.isprintable())[:300] if lines else ""

    @property
    def code(self) -> int | None:
        """QEMU's exit status, -N for signal N; None while it runs."""
        return self._popen.returncode if self._popen is not None and self.ended.is_set() else None

    def write_console(self, data: bytes) -> None:
        """Send ``data`` to the guest's console, as a keyboard would. Raises: GuestError if nobody there takes it."""
        try:
            self._socket.sendall(data, socket.MSG_DONTWAIT)
        except OSError as error:
            raise GuestError(f"The guest's console takes no more input: {error.strerror}.") from error

    def kill(self) -> None:
        """End QEMU at once, and the guest with it. Nothing happens if it has ended."""
        if not self.ended.is_set() and self._pidfd.number >= 0:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd.number, signal.SIGKILL)

    def close(self) -> None:
        """Kill QEMU if it runs and wait until nothing of it is left; safe to call twice."""
        self.kill()
        self._thread.join()
        self._pidfd.close()

    def _live(self, spawn: Callable[[], None]) -> None:
        """Be QEMU's parent: start it, listen until it closes its ends, collect it."""
        spawn()
        if self._popen is None:
            self._socket.close()
            return
        try:
            self._listen(self._popen)
        finally:
            self._popen.wait()
            self._socket.close()
            self.ended.set()
            self.console.end()

    def _listen(self, popen: subprocess.Popen[bytes]) -> None:
        complaints = popen.stderr
        if complaints is None:
            return
        with selectors.DefaultSelector() as selector, complaints:
            selector.register(self._socket, selectors.EVENT_READ)
            selector.register(complaints, selectors.EVENT_READ)
            while selector.get_map():
                for key, _ in selector.select():
                    data = os.read(key.fd, 1 << 16)
                    if not data:
                        selector.unregister(key.fileobj)
                    elif key.fileobj is self._socket:
                        self.console.feed(data)
                    else:
                        self._complaints = (self._complaints + data)[-_MOST_COMPLAINT_BYTES:]


def _bound_to_parent(user: int) -> list[str]:
    """Return the words before a command that let the kernel kill it when the thread that starts it ends.

    With a ``user`` (not -1) the command runs as that one, without a capability and without a way to gain any.
    """
    setpriv = shutil.which("setpriv")
    if setpriv is not None and not os.path.realpath(setpriv).endswith("busybox"):
        becoming = [f"--reuid={user}", f"--regid={user}", "--clear-groups", "--bounding-set=-all", "--no-new-privs"]
        return [setpriv, *(becoming if user >= 0 else ()), "--pdeathsig", "KILL", "--"]
    if user >= 0:
        raise FeatureMissing("labkit runs this QEMU as another user by setpriv.", remedy="Install util-linux.")
    return [sys.executable, "-I", "-S", "-c", _SHIM, str(Path(__file__).resolve().parents[2])]

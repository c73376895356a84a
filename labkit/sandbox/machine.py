"""A sandbox that is a virtual machine: for machines that refuse namespaces, and for policies that want a kernel of Linux in between.

::

    Jupyter server            QEMU                      the guest
    127.0.0.1:port  --------  hostfwd (restrict=on) --  10.0.2.15:port   the kernel: process 2, root of a machine of its own

QEMU's user-mode network passes five ports of the loopback interface in, and with ``restrict=on`` nothing out: no packet of the guest's reaches
the machine or a network, except as an answer. What the student sees as files is `machine_tree`. Memory, processes and CPU
time have their limits in a cgroup of the guest, as elsewhere; its root could lift them, but not take more than the guest has. QEMU itself
runs as the user of the sandboxes, not as root, and under its own seccomp filter.

The guest cannot tell the server anything, so its last line on the console says how the kernel ended, and QEMU is ended then.

Leaves out: outgoing connections; changes to the notebook folder that are kept; more than 3 GiB.
See: `labkit.sandbox.sandbox` for the one made of namespaces; qemu(1) (-netdev user, -sandbox); `labkit.vm.guest`.
"""

from __future__ import annotations

import math
import os
import secrets
import signal
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from labkit.errors import DeadlineExceeded, InvalidState, LabkitError, SetupError
from labkit.isolation import idmap
from labkit.linux.fds import Fd
from labkit.sandbox import init, view
from labkit.sandbox.inside import BUSY_FILE
from labkit.sandbox.machine_tree import MachineTree, make_tree
from labkit.sandbox.policy import Policy
from labkit.sandbox.sandbox import SandboxEnd, make_work, owner
from labkit.sandbox.usage import DiskWatch
from labkit.units import MiB
from labkit.vm.boot import raise_if_refused
from labkit.vm.calls import CallList
from labkit.vm.commandline import board_of
from labkit.vm.cpio import file, folder
from labkit.vm.guest import Guest
from labkit.vm.hostroot import HOSTROOT_MODULES, NETWORK_MODULES
from labkit.vm.initramfs import first_calls, initramfs
from labkit.vm.kernel import find_kernel
from labkit.vm.modules import with_dependencies
from labkit.vm.spec import GuestSpec

__all__ = ["ADDRESS", "MOST_MEMORY_BYTES", "MachineSandbox"]

#: The guest's address in QEMU's network of two.
ADDRESS = "10.0.2.15"
#: What the guest's kernel and its view of the machine's files take beside the student's memory; and the most that a guest has.
_OWN_BYTES, _MOST_GUEST_BYTES = 192 * MiB, 3 << 30
MOST_MEMORY_BYTES = _MOST_GUEST_BYTES - _OWN_BYTES
_MODULES = (*HOSTROOT_MODULES, *NETWORK_MODULES, "virtio_net")
_BOOT_TIMEOUT_S, _STEP_TIMEOUT_S, _SIGNAL_TIMEOUT_S = 120.0, 60.0, 2.0
_PERIOD_USEC = 100_000
_KEPT_LETTERS = 16 * 1024
_CONFINED = ("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny")
# $1 memory, $2 pids, $3 CPU time, $4 the word that begins the report, $5 open files, $6 largest file in KiB; then the kernel's command.
_SUPERVISOR = f"""set -e
trap '' INT
ip link set lo up; ip address add {ADDRESS}/24 dev eth0; ip link set eth0 up
group=/sys/fs/cgroup/labkit-sandbox view=/run/labkit-cgroup
mkdir $group $view
echo '+cpuset +cpu +io +memory +pids' > $group/cgroup.subtree_control
echo $1 > $group/memory.max; echo $2 > $group/pids.max; echo "$3" > $group/cpu.max
mkdir $group/labkit-payload
( echo 0 > $group/labkit-payload/cgroup.procs; exec unshare --cgroup mount -t cgroup2 -o nsdelegate labkit $view )
word=$4; ulimit -c 0; ulimit -n $5; ulimit -f $(($6 * 2))
shift 6
# Only what has a number in the kernel's PID namespace may be in its group: else nobody in there could move it out.
export inner='unset inner; echo 0 > /sys/fs/cgroup/cgroup.procs && exec unshare --cgroup "$@"'
outer="mount --bind $view /sys/fs/cgroup && umount $view && rmdir $view"
outer=$outer' && exec unshare --pid --fork --mount-proc --kill-child sh -c "$inner" sh "$@"'
{{
  set +e
  unshare --mount sh -c "$outer" sh "$@"
  status=$?
  request=$(head -c 4096 {BUSY_FILE} | tr -d '\\n')
  echo; echo "$word $status $(sed -n 's/^oom //p' $group/memory.events.local) $request $word"
}} < /dev/null > /dev/console 2>&1 &
echo $$
"""


class MachineSandbox:
    """One sandbox in a guest, with the methods of `labkit.sandbox.sandbox.Sandbox`."""

    def __init__(self, name: str, policy: Policy, ports: Sequence[int]) -> None:
        self.name = name
        self.policy = policy
        self.pid = self.kernel_pid = -1
        self._ports = tuple(ports)
        self._guest: Guest | None = None
        self._pidfd = Fd(-1)
        self._group = 0
        self._disk: DiskWatch | None = None
        self._is_too_full = False
        self._word = f"labkit-end-{secrets.token_hex(8)}"
        self._report = ""
        self._listener: threading.Thread | None = None
        self._ended = threading.Event()
        self._closing = threading.Lock()

    def start(
        self, command: Sequence[str], *, env: Mapping[str, str], cwd: str, files: Mapping[str, str], output_fd: int
    ) -> None:  # fmt: skip
        """Boot the guest and start ``command`` in it; what it writes to its standard streams goes to ``output_fd``.

        Raises: GuestError or SetupError naming the step that failed; nothing is left of it then.
        """
        work = make_work(view.work_folder(self.policy))
        most = {"most_bytes": self.policy.work_bytes, "most_files": self.policy.work_files}
        self._disk = DiskWatch([work] if work else [], **most)
        mounts = view.mounts(self.policy, cwd=cwd, work=work, work_readonly=work in self._disk.full)
        hostname = self.name[-16:]
        small = [*view.files(hostname=hostname)]
        tree = make_tree(mounts, view.links(), small)
        self._guest = Guest(spec=self._spec(tree, hostname), name=self.name, boot_timeout_s=_BOOT_TIMEOUT_S)
        try:
            self._guest.start()
            self.pid = self.kernel_pid = self._guest.pid
            self._pidfd = Fd(os.pidfd_open(self.pid))
            calls, purposes = tree.enter(self._guest.spec.machine)
            raise_if_refused(self._guest.perform(calls, timeout_s=_STEP_TIMEOUT_S), purposes)
            for path, text in files.items():
                self._guest.copy_in(text.encode(), path, permissions=0o600)
            self._start_kernel(self._guest, command, env=env, cwd=view.inner_cwd(cwd, mounts))
        except BaseException:
            self._guest.close()
            self._ended.set()
            raise
        self._listener = threading.Thread(
            target=self._listen, args=(self._guest, Fd(os.dup(output_fd))), name="labkit-sandbox-guest", daemon=True
        )
        self._listener.start()

    def _start_kernel(self, guest: Guest, command: Sequence[str], *, env: Mapping[str, str], cwd: str) -> None:
        policy = self.policy
        cpu = f"{int(policy.cpus * _PERIOD_USEC)} {_PERIOD_USEC}"
        limits = (policy.memory_bytes, policy.pids, cpu, self._word, policy.open_files, policy.file_size_bytes >> 10)
        python = (os.path.realpath(sys.executable), "-I", "-S", str(Path(init.__file__).resolve()))
        words = ["sh", "-c", _SUPERVISOR, "sh", *map(str, limits), *python, *command]
        done = guest.exec(words, env=env, cwd=cwd, timeout_s=_STEP_TIMEOUT_S)
        if done.status:
            said = done.stderr.decode(errors="replace").strip().splitlines()
            raise SetupError(
                f"The guest could not be made a sandbox: {said[-1] if said else done.status}.", step="guest"
            )
        self._group = int(done.text)

    def _spec(self, tree: MachineTree, hostname: str) -> GuestSpec:
        machine = os.uname().machine
        board, kernel = board_of(machine), find_kernel("hostroot")
        memory_bytes = (min(self.policy.memory_bytes, MOST_MEMORY_BYTES) + _OWN_BYTES) & -MiB
        modules = with_dependencies(kernel, _MODULES)
        address = board.ram_address + board.mailbox_offset(memory_bytes)
        archive = initramfs(
            first_calls(board.port, address, machine),
            [*tree.entries, folder("modules"), *(file(f"modules/{one.name}.ko", one.content) for one in modules)],
            machine,
        )
        doors = ",".join(f"hostfwd=tcp:127.0.0.1:{port}-{ADDRESS}:{port}" for port in self._ports)
        devices = (
            "-netdev",
            f"user,id=labkit,restrict=on,ipv6=off,{doors}",
            "-device",
            "virtio-net-device,netdev=labkit",
        )
        cpus = max(1, min(math.ceil(self.policy.cpus), len(os.sched_getaffinity(0)), 16))
        return GuestSpec(
            kernel=kernel.path, initramfs=archive, memory_bytes=memory_bytes, cpus=cpus, append=("psi=1",),
            shares=tree.shares, virtio=True, modules=tuple(f"/modules/{one.name}.ko" for one in modules), mounts=(),
            devices=(*devices, *_CONFINED), hostname=hostname, user=_user(),
        )  # fmt: skip

    def _listen(self, guest: Guest, output: Fd) -> None:
        """In a thread: pass on what the guest writes to its console; when it says how the kernel ended, end the guest."""
        text = ""
        with output:
            for piece in guest.console.stream():
                text = (text + piece)[-_KEPT_LETTERS:]
                with suppress(OSError):  # nobody listens any more
                    os.write(output.number, piece.encode())
                parts = text.split(self._word)
                if len(parts) > 2:
                    self._report = parts[-2]
                    break
        self.kill()
        self._ended.set()

    @property
    def pidfd(self) -> int:
        """A descriptor that becomes readable when the sandbox has ended; -1 when there is none."""
        return self._pidfd.number

    @property
    def running(self) -> bool:
        """True from `start` until the sandbox has ended."""
        return self._listener is not None and not self._ended.is_set()

    def connect(self) -> None:
        """Nothing: what network there is, QEMU has from the start."""

    def signal(self, number: int) -> None:
        """Interrupt the kernel and the programs in its process group; any other signal ends the sandbox."""
        if self._guest is None or not self.running:
            return
        if number != signal.SIGINT:
            return self.kill()
        calls = CallList(self._guest.spec.machine)
        calls.call("kill", -self._group, number)
        with self._closing, suppress(LabkitError):  # it has ended meanwhile
            self._guest.perform(calls, timeout_s=_SIGNAL_TIMEOUT_S)

    def watch_disk(self) -> float | None:
        """End the sandbox if it has filled its folder on the machine's disk; return when to look again, in seconds."""
        if self._disk is None:
            return None
        if self._disk.passed():
            self._is_too_full = True
            self.kill()
        return self._disk.wait_s

    def kill(self) -> None:
        """End the guest at once."""
        if self._guest is not None:
            with self._closing:
                self._guest.close()

    def wait(self, timeout_s: float | None = None) -> SandboxEnd:
        """Return how it ended. Raises: DeadlineExceeded if it still runs after ``timeout_s``, InvalidState before `start`."""
        if self._guest is None:
            raise InvalidState(f"{self.name} has not been started.")
        if not self._ended.wait(timeout_s):
            raise DeadlineExceeded(f"{self.name} still ran after {timeout_s:g} s.")
        code, kills, _ = self._said()
        if self._is_too_full:
            return SandboxEnd(code, "disk")
        return SandboxEnd(code, "memory" if code == 128 + signal.SIGKILL and kills > 0 else "")

    def last_request(self) -> bytes:
        """Return what the kernel noted of the request that it was working on; whoever is inside can write it."""
        return self._said()[2].encode()

    def _said(self) -> tuple[int, int, str]:
        """Return what the guest's last line says: exit code, how often memory ran out, the request. Its root may say anything."""
        words = self._report.strip().split(" ", 2)
        try:
            return int(words[0]), int(words[1]), words[2] if len(words) > 2 else ""
        except (ValueError, IndexError):
            return 128 + signal.SIGKILL, 0, ""

    def close(self) -> None:
        """End it and release everything; safe to call twice."""
        self.kill()
        if self._listener is not None:
            self._listener.join()
        self._pidfd.close()


def _user() -> int:
    """Return the user that QEMU shall become: for root, the one whom the student's root is; -1 where that cannot be."""
    if os.geteuid() != 0:
        return -1
    uid = owner()[0]
    known = any(row.inside <= uid < row.inside + row.count for row in idmap.own_maps().uids)
    return uid if known else -1

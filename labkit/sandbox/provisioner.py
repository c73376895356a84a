"""The Jupyter side of the sandbox: a kernel provisioner, which starts a notebook's kernel inside.

Jupyter asks a *provisioner* to start, signal, watch and end a kernel's process; the kernelspec names which one. JupyterLab, nbval,
nbclient and ``jupyter execute`` all go this way. The kernel has no network of the machine's, so it talks over Unix sockets in a
folder of the sandbox; a link ``RUNFOLDER/s`` leads the server there through ``/proc/PID/root``, and is pointed to the new
sandbox when the kernel is restarted.

Leaves out: kernels that outlive their server.
See: jupyter_client's documentation, "Kernel Provisioning"; proc_pid_root(5).
"""

from __future__ import annotations

import asyncio
import atexit
import errno
import json
import os
import secrets
import signal
import warnings
import weakref
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from jupyter_client.connect import ConnectionFileMixin, KernelConnectionInfo
from jupyter_client.provisioning.local_provisioner import LocalProvisioner
from typing_extensions import override

from labkit.container import runfolder
from labkit.errors import LabkitError, SetupError
from labkit.linux.fds import pipe
from labkit.sandbox import inside, notice
from labkit.sandbox.environment import environment
from labkit.sandbox.here import FACTS_FILE, facts_text
from labkit.sandbox.level import Level, find_level, required
from labkit.sandbox.policy import Policy, load
from labkit.sandbox.sandbox import Sandbox, SandboxEnd
from labkit.sandbox.subtree import PREFIX
from labkit.sandbox.view import SOCKETS
from labkit.sandbox.watcher import Watcher

if TYPE_CHECKING:
    from labkit.sandbox.machine import MachineSandbox

__all__ = ["SandboxProvisioner"]

_INNER_FILE = f"{SOCKETS}/kernel.json"
_PORTS = {"shell_port": 1, "iopub_port": 2, "stdin_port": 3, "control_port": 4, "hb_port": 5}
_EXTENSION = "--ext=labkit.sandbox.inside"
_POLL_S = 0.02
#: What a machine answers that does not allow a sandbox, or is too old for one.
_REFUSALS = (errno.EPERM, errno.EACCES, errno.ENOSPC, errno.ENOSYS, errno.EUSERS, errno.EINVAL, errno.ENODEV)


class SandboxProvisioner(LocalProvisioner):
    """Starts the kernel in a sandbox; where the machine allows none, as `LocalProvisioner` does, with a warning in the notebook."""

    policy: Policy = Policy()
    level: Level = Level("none")
    sandbox: Sandbox | MachineSandbox | None = None
    folder: runfolder.RunFolder | None = None
    _watcher: Watcher | None = None
    _asked: dict[str, Any] | None = None
    _ending = False
    _has_worked: ClassVar[bool] = False

    @property
    def has_process(self) -> bool:
        """True from the start until the end has been collected by `wait`."""
        return self.sandbox is not None or bool(super().has_process)

    @override
    async def pre_launch(self, **_asked: Any) -> dict[str, Any]:
        """Find out what sandbox can be had, and settle where the kernel's sockets will be.

        Raises: InvalidSpec for a wrong policy, FeatureMissing for one that this machine cannot keep.
        """
        self.policy = load()
        self.level = required(find_level(self.policy.backend), self.policy)
        kwargs = _asked | {"extra_arguments": [*_asked.get("extra_arguments", []), _EXTENSION]}
        self._asked = dict(kwargs)
        _remember(self)
        if not self.level.namespaces:
            return await self._on_loopback()
        km: Any = self.parent
        if self.folder is None:
            self.folder = runfolder.RunFolder.create(runfolder.base_folder(), f"labkit-k{secrets.token_hex(4)}")
        km.transport, km.cache_ports, km.ip = "ipc", False, f"{self.folder.path}/s/k"
        for name, number in _PORTS.items():
            setattr(km, name, number)
        km.write_connection_file()
        self.connection_info = km.get_connection_info()
        outer_file = os.path.realpath(km.connection_file)
        command = km.format_kernel_cmd(extra_arguments=kwargs.pop("extra_arguments"))
        kwargs["cmd"] = [word.replace(outer_file, _INNER_FILE) for word in command]
        kwargs["inner_info"] = json.loads(Path(outer_file).read_text()) | {"ip": f"{SOCKETS}/k"}
        kwargs["env"] = dict(kwargs.get("env") or os.environ)
        return kwargs

    async def _on_loopback(self) -> dict[str, Any]:
        """Prepare a kernel that is reached through ports of the loopback interface: in a virtual machine, or a plain one, which says so."""
        asked = dict(self._asked or {})
        if self.level.backend != "vm":
            kwargs = await super().pre_launch(**asked)
            self._warn(kwargs["env"])
            return kwargs
        from labkit.sandbox.machine import (
            ADDRESS,
        )  # only where a guest is booted: not every server needs all that it imports

        km: Any = self.parent
        if hasattr(km, "_transport_encryption_policy") and "curve_publickey" in ConnectionFileMixin.class_trait_names():
            # Whoever is on this machine can connect to its ports: only who has read the connection file shall be answered.
            asked["transport_encryption"] = "required"
        kwargs = await super().pre_launch(**asked)
        outer_file = os.path.realpath(km.connection_file)
        kwargs["cmd"] = [word.replace(outer_file, _INNER_FILE) for word in kwargs["cmd"]]
        kwargs["inner_info"] = json.loads(Path(outer_file).read_text()) | {"ip": ADDRESS}
        return kwargs

    async def _without_namespaces(self, reason: LabkitError) -> KernelConnectionInfo:
        """Start the kernel in another way, on a machine that has just refused its first sandbox. Raises: FeatureMissing."""
        self.level = required(find_level(self.policy.backend, refused=str(reason)), self.policy)
        km: Any = self.parent
        km.cleanup_connection_file()
        km.transport, km.ip = "tcp", "127.0.0.1"
        for name in _PORTS:
            setattr(km, name, 0)
        km.cache_ports = self.level.backend == "vm"
        kwargs = await self._on_loopback()
        return await self.launch_kernel(kwargs.pop("cmd"), **kwargs)

    def _warn(self, env: dict[str, str]) -> None:
        """Let the notebook show what its sandbox lacks; under nbval, which compares outputs, pytest shows it instead."""
        warning = " ".join(self.level.reasons)
        if not self.level.namespaces:
            warning += (
                " What cells do here is done to this machine itself, with the rights of whoever started JupyterLab."
            )
        if "PYTEST_CURRENT_TEST" in os.environ:
            warnings.warn(warning, stacklevel=2)
        else:
            env[inside.WARNING_VARIABLE] = warning

    @override
    async def launch_kernel(self, cmd: list[str], **_given: Any) -> KernelConnectionInfo:
        """Start the sandbox with the kernel in it. Raises: SetupError or GuestError naming the step that failed."""
        if self.level.name == "none":
            return await super().launch_kernel(cmd, **_given)
        name = f"{PREFIX}{secrets.token_hex(4)}"
        env = environment(_given["env"], hostname=name[-16:])
        if self.level.reasons:
            self._warn(env)
        with ExitStack() as on_failure:
            read_end, write_end = pipe()
            on_failure.enter_context(read_end)
            given = {"env": env, "cwd": _given.get("cwd") or os.getcwd(), "files": self._files(_given["inner_info"])}
            try:
                with write_end:
                    if self.level.backend == "vm":
                        self.sandbox = await self._boot(name, cmd, given, write_end.number)
                    else:
                        self.sandbox = self._enter(name, cmd, given, write_end.number)
            except SetupError as error:
                # Once one has started, the machine allows them: a failure now could be what somebody inside wants.
                if self.level.backend == "vm" or self._has_worked or error.errno not in _REFUSALS:
                    raise
                return await self._without_namespaces(error)
            on_failure.pop_all()
        sandbox = self.sandbox
        self.pid, self._ending = sandbox.kernel_pid, False
        self._watcher = Watcher(read_end, sandbox.pidfd, tick=sandbox.watch_disk, at_end=self._at_end)
        return self.connection_info

    def _enter(self, name: str, command: list[str], given: dict[str, Any], output_fd: int) -> Sandbox:
        """Start a sandbox of namespaces, and point the link to its sockets."""
        sandbox = Sandbox(name, self.policy, self.level)
        sandbox.start(command, streams=("null", output_fd, output_fd), **given)
        SandboxProvisioner._has_worked = True
        sandbox.connect()
        self._point_link(f"/proc/{sandbox.pid}/root{SOCKETS}")
        return sandbox

    async def _boot(self, name: str, command: list[str], given: dict[str, Any], output_fd: int) -> MachineSandbox:
        """Boot a virtual machine, in a thread: the server goes on meanwhile."""
        from labkit.sandbox.machine import MachineSandbox

        info: dict[str, Any] = dict(self.connection_info)
        ports = [int(info[port]) for port in _PORTS]
        sandbox = MachineSandbox(name, self.policy, ports)
        await asyncio.to_thread(sandbox.start, command, output_fd=output_fd, **given)
        return sandbox

    def _files(self, connection: dict[str, Any]) -> dict[str, str]:
        """Return the files that the kernel finds in its own folder: where to listen, what to note, where it is."""
        return {
            _INNER_FILE: json.dumps(connection),
            inside.BUSY_FILE: "",
            FACTS_FILE: facts_text(self.level, self.policy),
        }

    def _point_link(self, target: str) -> None:
        if self.folder is not None:
            os.symlink(target, f"{self.folder.path}/.s")
            os.rename(f"{self.folder.path}/.s", f"{self.folder.path}/s")

    def _at_end(self) -> None:
        """In the watcher's thread: when a limit was the end, say so in the notebook, before anybody hears of the end."""
        sandbox, folder = self.sandbox, self.folder
        if sandbox is None:
            return
        end = sandbox.wait(5)
        if folder is not None and self.level.namespaces:
            os.makedirs(f"{folder.path}/after", exist_ok=True)
            self._point_link("after")  # the number in the old target may be another process's soon
        if not self._ending and end.limit:
            request = notice.header_of(sandbox.last_request())
            words = notice.words(end.limit, self.policy)
            notice.publish(self.connection_info, request, name=notice.NAMES[end.limit], words=words)

    @override
    async def poll(self) -> int | None:
        """Return None while the kernel runs (or its last word is being said), else how it ended."""
        if self.sandbox is None:
            return await super().poll()
        if self.sandbox.running or (self._watcher is not None and not self._watcher.done):
            return None
        return self._end().code

    def _end(self) -> SandboxEnd:
        if self.sandbox is None:
            return SandboxEnd(0)
        return self.sandbox.wait(0)

    @override
    async def wait(self) -> int | None:
        """Wait for the end and release the sandbox."""
        if self.sandbox is None:
            return await super().wait()
        while (code := await self.poll()) is None:
            await asyncio.sleep(_POLL_S)
        self._release()
        return code

    @override
    async def send_signal(self, signum: int) -> None:
        """Send a signal to the kernel and its process group."""
        if self.sandbox is None:
            await super().send_signal(signum)
        elif signum == signal.SIGKILL:
            await self.kill()
        elif signum:
            self.sandbox.signal(signum)

    @override
    async def shutdown_requested(self, restart: bool = False) -> None:
        """Remember that the end that comes now was asked for."""
        self._ending = True

    @override
    async def kill(self, restart: bool = False) -> None:
        """End the sandbox with everything in it."""
        if self.sandbox is None:
            await super().kill(restart)
        else:
            self._ending = True
            self.sandbox.kill()

    @override
    async def terminate(self, restart: bool = False) -> None:
        """Ask the kernel to end."""
        if self.sandbox is None:
            await super().terminate(restart)
        else:
            self._ending = True
            self.sandbox.signal(signal.SIGTERM)

    @override
    async def cleanup(self, restart: bool = False) -> None:
        """Release what is left of the sandbox and, unless it is to be restarted, its folder."""
        self._release()
        if not restart:
            self.end()
        await super().cleanup(restart)

    def end(self) -> None:
        """End the sandbox and remove its folder; safe to call twice."""
        self._release()
        folder, self.folder = self.folder, None
        if folder is not None:
            folder.remove()

    def _release(self) -> None:
        sandbox, self.sandbox = self.sandbox, None
        if sandbox is not None:
            self._ending = True
            sandbox.kill()
        watcher, self._watcher = self._watcher, None
        if sandbox is not None:
            sandbox.wait(5)
        if watcher is not None:
            if watcher.tail:
                self.log.info("the kernel wrote: %s", watcher.tail)
            watcher.close()
        if sandbox is not None:
            sandbox.close()


_alive: weakref.WeakSet[SandboxProvisioner] = weakref.WeakSet()


def _remember(provisioner: SandboxProvisioner) -> None:
    """A server that stops in haste does not end its kernels; at Python's exit it does, after all."""
    if not _alive:
        atexit.register(_end_all)
    _alive.add(provisioner)


def _end_all() -> None:
    for provisioner in list(_alive):
        provisioner.end()

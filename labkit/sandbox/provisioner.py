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
from typing import Any, ClassVar

from jupyter_client.connect import KernelConnectionInfo
from jupyter_client.provisioning.local_provisioner import LocalProvisioner
from typing_extensions import override

from labkit.container import runfolder
from labkit.errors import LabkitError, SetupError
from labkit.linux.fds import Fd, pipe
from labkit.sandbox import inside, notice
from labkit.sandbox.environment import environment
from labkit.sandbox.here import FACTS_FILE, facts_text
from labkit.sandbox.level import REFUSED, Level, find_level, required
from labkit.sandbox.policy import Policy, load
from labkit.sandbox.sandbox import Sandbox, SandboxEnd
from labkit.sandbox.subtree import PREFIX
from labkit.sandbox.view import SOCKETS
from labkit.sandbox.watcher import Watcher

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
    sandbox: Sandbox | None = None
    folder: runfolder.RunFolder | None = None
    _watcher: Watcher | None = None
    _busy: Fd | None = None
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
        self.level = required(find_level(), self.policy)
        kwargs = _asked | {"extra_arguments": [*_asked.get("extra_arguments", []), _EXTENSION]}
        self._asked = dict(kwargs)
        if not self.level.namespaces:
            return await self._plain()
        km: Any = self.parent
        if self.folder is None:
            _remember(self)
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

    async def _plain(self) -> dict[str, Any]:
        """Prepare a kernel without a sandbox, which says so in its first cell."""
        kwargs = await super().pre_launch(**(self._asked or {}))
        self._warn(kwargs["env"])
        return kwargs

    async def _without_sandbox(self, reason: LabkitError) -> KernelConnectionInfo:
        """Start a plain kernel after all, on a machine that has just refused its first sandbox. Raises: FeatureMissing."""
        self.level = required(Level("none", (f"{REFUSED} {reason}",)), self.policy)
        km: Any = self.parent
        km.cleanup_connection_file()
        km.transport, km.ip = "tcp", "127.0.0.1"
        for name in _PORTS:
            setattr(km, name, 0)
        kwargs = await self._plain()
        return await super().launch_kernel(kwargs.pop("cmd"), **kwargs)

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
        """Start the sandbox with the kernel in it. Raises: SetupError naming the step that the kernel refused."""
        if not self.level.namespaces:
            return await super().launch_kernel(cmd, **_given)
        folder = self.folder
        if folder is None:
            raise RuntimeError("pre_launch has not been called")
        name = f"{PREFIX}{secrets.token_hex(4)}"
        env = environment(_given["env"], hostname=name[-16:])
        if self.level.reasons:
            self._warn(env)
        sandbox = Sandbox(name, self.policy, self.level)
        with ExitStack() as on_failure:
            read_end, write_end = pipe()
            on_failure.enter_context(read_end)
            try:
                with write_end:
                    sandbox.start(
                        cmd, env=env, cwd=_given.get("cwd") or os.getcwd(), files=self._files(_given["inner_info"]),
                        streams=("null", write_end.number, write_end.number),
                    )  # fmt: skip
            except SetupError as error:
                # Once one has started, the machine allows them: a failure now could be what somebody inside wants.
                if SandboxProvisioner._has_worked or error.errno not in _REFUSALS:
                    raise
                return await self._without_sandbox(error)
            SandboxProvisioner._has_worked = True
            sandbox.connect()
            on_failure.pop_all()
        self.sandbox, self.pid, self._ending = sandbox, sandbox.kernel_pid, False
        self._point_link(f"/proc/{sandbox.pid}/root{SOCKETS}")
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        self._busy = Fd(os.open(f"{folder.path}/s/{os.path.basename(inside.BUSY_FILE)}", flags))
        self._watcher = Watcher(read_end, sandbox.pidfd, tick=sandbox.watch_disk, at_end=self._at_end)
        return self.connection_info

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
        sandbox, folder, busy = self.sandbox, self.folder, self._busy
        if sandbox is None or folder is None or busy is None:
            return
        end = sandbox.wait(5)
        os.makedirs(f"{folder.path}/after", exist_ok=True)
        self._point_link("after")  # the number in the old target may be another process's soon
        if self._ending or not end.limit:
            return
        notice.publish(
            f"ipc://{folder.path}/s/k-{_PORTS['iopub_port']}", _as_bytes(self.connection_info["key"]), notice.read_busy_cell(busy.number),
            name=notice.NAMES[end.limit], words=notice.words(end.limit, self.policy),
        )  # fmt: skip

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
        busy, self._busy = self._busy, None
        if sandbox is not None:
            sandbox.wait(5)
        if watcher is not None:
            if watcher.tail:
                self.log.info("the kernel wrote: %s", watcher.tail)
            watcher.close()
        if sandbox is not None:
            sandbox.close()
        if busy is not None:
            busy.close()


def _as_bytes(key: str | bytes) -> bytes:
    return key.encode() if isinstance(key, str) else key


_alive: weakref.WeakSet[SandboxProvisioner] = weakref.WeakSet()


def _remember(provisioner: SandboxProvisioner) -> None:
    """A server that stops in haste does not end its kernels; at Python's exit it does, after all."""
    if not _alive:
        atexit.register(_end_all)
    _alive.add(provisioner)


def _end_all() -> None:
    for provisioner in list(_alive):
        provisioner.end()

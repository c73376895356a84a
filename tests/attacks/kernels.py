"""A sandboxed kernel for the attacks: started as Jupyter starts it, with a policy of small sizes so that filling them is quick."""

from __future__ import annotations

import ast
import json
import os
import queue
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jupyter_client.manager import KernelManager

from labkit.sandbox.view import HOME
from tests.attacks.harness import ANSWER_S, Answer, Attack, program_text
from tests.support import requires

__all__ = ["SMALL", "SandboxedKernel", "environment_of", "requires_sandbox"]

requires_sandbox = requires("userns", "overlay-userns", "cgroups", "pyseccomp")
#: Sizes that can be filled in a moment.
SMALL = """
[limits]
memory = "384 MiB"
pids = 96
open_files = 512
file_size = "64 MiB"
[disk]
home = "32 MiB"
home_files = 2000
temporary = "32 MiB"
temporary_files = 2000
shared_memory = "16 MiB"
"""
START_S = 60.0
_START = """
import subprocess as _subprocess, sys as _sys, select as _select
_attack = _subprocess.Popen([_sys.executable, "-I", "-S", "-c", {text!r}], stdin=-1, stdout=-1, stderr=-1)
_ready = _select.select([_attack.stdout], [], [], {limit})[0]
_line = _attack.stdout.readline() if _ready else b""
if not _line:
    _attack.kill()
print(repr((_line, b"" if _line else _attack.stderr.read()[-2000:])))
"""
_END = """
try:
    _attack.communicate(b"\\n", timeout=5)
except Exception:
    _attack.kill()
    _attack.communicate()
"""


@contextmanager
def environment_of(**variables: str) -> Iterator[None]:
    """Set environment variables of this process, the server of the kernels, for a while."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


class SandboxedKernel:
    """A Jupyter kernel in labkit's sandbox, and the host's view of it; restarted when an attack was its end."""

    inner_work = f"{HOME}/work"

    def __init__(self, folder: Path, *, policy: str = SMALL, cwd: str = "") -> None:
        self.work = folder / "work"
        self.work.mkdir(exist_ok=True)
        self._policy = folder / "policy.toml"
        self._policy.write_text(f'{policy}[mounts]\nwork = "{self.work}"\n')
        self._environ = {"LABKIT_SANDBOX_POLICY": str(self._policy)}
        self.manager = KernelManager(kernel_name="labkit")
        with environment_of(**self._environ):
            self.manager.start_kernel(cwd=str(folder / cwd))
        self._connect()

    def _connect(self) -> None:
        self.client = self.manager.blocking_client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=START_S)

    @property
    def provisioner(self) -> Any:
        """labkit's provisioner of this kernel."""
        return self.manager.provisioner

    def run(self, code: str, *, timeout_s: float = ANSWER_S) -> str:
        """Run a cell and return what it prints. Raises: AssertionError if it raises, TimeoutError, or EOFError if the kernel ends."""
        printed: list[str] = []
        message = self.client.execute(code, store_history=False)
        deadline_s = time.monotonic() + timeout_s
        while True:
            if time.monotonic() > deadline_s:
                raise TimeoutError(f"no answer after {timeout_s} s")
            alive = self.manager.is_alive()  # asked before: what a kernel's end is announced with may come after it
            try:
                got = self.client.get_iopub_msg(timeout=0.5 if alive else 2)
            except queue.Empty:
                if not alive:
                    raise EOFError("the kernel ended") from None
                continue
            if got["parent_header"].get("msg_id") != message:
                continue
            if got["msg_type"] == "stream":
                printed.append(got["content"]["text"])
            elif got["msg_type"] == "error" and got["content"]["ename"] == "MemoryLimitReached":
                raise EOFError("the kernel was killed for its memory")
            elif got["msg_type"] == "error":
                raise AssertionError("\n".join(got["content"]["traceback"]))
            elif got["msg_type"] == "status" and got["content"]["execution_state"] == "idle":
                self.client.get_shell_msg(timeout=5)
                return "".join(printed)

    @contextmanager
    def answer(self, attack: Attack, arguments: Mapping[str, Any]) -> Iterator[Answer]:
        """Run the attack inside and give its answer; the program stays until the block ends."""
        text = program_text(attack, arguments)
        answer = self._survived(lambda: self._answer(attack, text))
        yield answer
        if not attack.in_kernel and not answer.get("restarted"):
            self._survived(lambda: self.run(_END))

    def _answer(self, attack: Attack, text: str) -> Answer:
        if attack.in_kernel:
            return dict(json.loads(self.run(f"exec({text!r}, {{}})").splitlines()[-1]))
        line, words = ast.literal_eval(self.run(_START.format(text=text, limit=ANSWER_S / 2)))
        broken = b"Traceback" in words and b"Error" in words and b"MemoryError" not in words
        assert not broken, f"the program is broken:\n{words.decode()}"
        return dict(json.loads(line)) if line else {"errno": f"it was killed {words.decode()[-200:]}"}

    def _survived(self, act: Callable[[], Any]) -> Any:
        """Return what ``act`` returns; if it was the end of the kernel, start it anew and say so."""
        try:
            return act()
        except (EOFError, TimeoutError) as error:
            self.restart()
            return {"errno": str(error), "restarted": True}

    def restart(self) -> None:
        """Start the kernel anew, as a student does."""
        self.client.stop_channels()
        with environment_of(**self._environ):
            self.manager.restart_kernel(now=True)
        self._connect()

    def close(self) -> None:
        """End the kernel."""
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)

"""A Jupyter client in a child process, which starts one sandboxed kernel and does what it is told, one line of JSON at a time.

Whatever Jupyter makes (event loops, sockets, the launcher) lives and ends in the child, so a test can also kill it. Run as
``python -m tests.sandbox.driver KERNELS_FOLDER CWD``.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.support import PROJECT

__all__ = ["Driver"]


class Driver:
    """The test's side: a context manager with one method for each thing that can be asked for."""

    def __init__(
        self, kernels: Path, cwd: Path | str, *, environ: dict[str, str] | None = None, kernel: str = "labkit",
        wrapper: Sequence[str] = (),
    ) -> None:  # fmt: skip
        environ = {**os.environ, "PYTHONPATH": str(PROJECT), **(environ or {})}
        environ.pop("PYTEST_CURRENT_TEST", None)  # the child is a Jupyter server as any other
        self.process = subprocess.Popen(
            [*wrapper, sys.executable, "-m", "tests.sandbox.driver", str(kernels), str(cwd), kernel],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environ, cwd=PROJECT,
        )  # fmt: skip
        self.started: dict[str, Any] = {}
        #: Where the test keeps this kernel's policy and work folder.
        self.folder = Path()

    def start(self) -> Driver:
        """Wait for the kernel; `started` then holds pids and paths, or ``error``."""
        self.started = self.answer()
        return self

    def ask(self, op: str, **more: Any) -> dict[str, Any]:
        """Send one request and return the answer."""
        self.tell(op, **more)
        return self.answer()

    def tell(self, op: str, **more: Any) -> None:
        """Send one request; `answer` must follow."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"op": op, **more}) + "\n")
        self.process.stdin.flush()

    def answer(self) -> dict[str, Any]:
        """Return the next answer."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        return dict(json.loads(line)) if line else {"error": "the driver has ended"}

    def run(self, code: str, *, timeout_s: float = 60) -> dict[str, Any]:
        """Run a cell: ``status``, ``text`` (streams and results), ``error`` (name and message of an exception)."""
        return self.ask("run", code=code, timeout_s=timeout_s)

    def text(self, code: str, *, timeout_s: float = 60) -> str:
        """Run a cell that must succeed; return what it printed."""
        answer = self.run(code, timeout_s=timeout_s)
        assert answer["status"] == "ok", answer
        return str(answer["text"])

    def close(self) -> None:
        """Let the driver shut the kernel down, and end."""
        if self.process.poll() is None and self.process.stdin is not None:
            try:
                self.process.stdin.close()
            except BrokenPipeError:
                pass
        self.process.wait(60)
        if self.process.stdout is not None:
            self.process.stdout.close()

    def __enter__(self) -> Driver:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def pss_kib(pid: int) -> int:
    """Return the proportional set size: pages shared by n processes count 1/n. See: proc_pid_smaps(5)."""
    try:
        lines, key = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines(), "Pss:"
    except PermissionError:  # the launcher hides itself from its own user; what it has resident is more than that
        lines, key = Path(f"/proc/{pid}/status").read_text().splitlines(), "VmRSS:"
    return int(next(line for line in lines if line.startswith(key)).split()[1])


#: A kernel in a virtual machine takes its time where other programs want the processors, too.
_READY_S = 240


class _Kernel:
    """The child's side."""

    def __init__(self, kernels: str, cwd: str, name: str, *, wait: bool = True) -> None:
        from jupyter_client.kernelspec import KernelSpecManager
        from jupyter_client.manager import KernelManager

        specs = KernelSpecManager(kernel_dirs=[kernels], ensure_native_kernel=False)
        self.manager = KernelManager(kernel_name=name, kernel_spec_manager=specs)
        self.manager.start_kernel(cwd=cwd)
        self.client = self.manager.client()
        self.client.start_channels()
        self.arguments = (kernels, cwd, name)
        if wait:
            self.client.wait_for_ready(timeout=_READY_S)

    def info(self) -> dict[str, Any]:
        provisioner: Any = self.manager.provisioner
        sandbox = getattr(provisioner, "sandbox", None)
        folder = getattr(provisioner, "folder", None)
        from labkit.container import client

        launcher = client._current
        return {
            "sandbox_pid": sandbox.pid if sandbox else -1,
            "kernel_pid": provisioner.pid,
            "name": sandbox.name if sandbox else "",
            "folder": folder.path if folder else "",
            "launcher_pid": launcher.process.pid if launcher else -1,
            "level": provisioner.level.name,
            "connection_file": self.manager.connection_file,
        }

    def run(self, code: str, *, timeout_s: float) -> dict[str, Any]:
        texts: list[str] = []
        errors: list[list[str]] = []

        def hook(message: dict[str, Any]) -> None:
            content = message["content"]
            if message["msg_type"] == "stream":
                texts.append(content["text"])
            elif message["msg_type"] in ("execute_result", "display_data"):
                texts.append(content["data"].get("text/plain", ""))
            elif message["msg_type"] == "error":
                errors.append([content["ename"], content["evalue"]])

        message_id = self.client.execute(code)
        deadline_s = time.monotonic() + timeout_s
        while time.monotonic() < deadline_s:
            try:
                message = self.client.get_iopub_msg(timeout=0.25)
            except queue.Empty:
                if not self.manager.is_alive():
                    return {"status": "dead", "text": "".join(texts), "errors": errors}
                continue
            if message["parent_header"].get("msg_id") != message_id:
                continue
            hook(message)
            if message["msg_type"] == "status" and message["content"]["execution_state"] == "idle":
                return {"status": "error" if errors else "ok", "text": "".join(texts), "errors": errors}
        return {"status": "timeout", "text": "".join(texts), "errors": errors}

    def many(self, count: int) -> dict[str, Any]:
        """Start ``count`` further kernels, ask all at once, and end them again when the numbers are taken."""
        others = [_Kernel(*self.arguments, wait=False) for _ in range(count)]
        for other in others:
            other.client.wait_for_ready(timeout=100)
        message_ids = [other.client.execute("6 * 7") for other in others]
        results = []
        for other, message_id in zip(others, message_ids, strict=True):
            while True:
                message = other.client.get_iopub_msg(timeout=30)
                if message["msg_type"] == "execute_result" and message["parent_header"]["msg_id"] == message_id:
                    results.append(message["content"]["data"]["text/plain"])
                    break
        infos = [other.info() for other in others]
        helpers = {pid: pss_kib(pid) for pid in (infos[0]["launcher_pid"], *(info["sandbox_pid"] for info in infos))}
        for other in others:
            other.close()
        return {"results": results, "helpers_pss_kib": helpers}

    def do(self, request: dict[str, Any]) -> dict[str, Any]:
        op = request.pop("op")
        if op == "run":
            return self.run(**request)
        if op == "info":
            return self.info()
        if op == "interrupt_soon":
            threading.Timer(request["delay_s"], self.manager.interrupt_kernel).start()
            return {}
        if op == "restart":
            started_s = time.monotonic()
            self.manager.restart_kernel(now=request.get("now", False))
            self.client.wait_for_ready(timeout=_READY_S)
            return {"elapsed_s": time.monotonic() - started_s, **self.info()}
        if op == "shutdown":
            self.manager.shutdown_kernel(now=request.get("now", False))
            return {"alive": self.manager.is_alive()}
        if op == "exit":
            sys.exit(0)
        if op == "many":
            return self.many(request["count"])
        if op == "alive":
            return {"alive": self.manager.is_alive()}
        return {"error": f"unknown request {op}"}

    def close(self) -> None:
        self.client.stop_channels()
        if self.manager.has_kernel:
            self.manager.shutdown_kernel(now=True)


def _main(kernels: str, cwd: str, name: str) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    answers, sys.stdout = sys.stdout, sys.stderr
    try:
        kernel = _Kernel(kernels, cwd, name)
    except Exception as error:  # noqa: BLE001 - whatever it is, the test wants to see it
        print(json.dumps({"error": str(error), "kind": type(error).__name__}), file=answers, flush=True)
        return
    print(json.dumps(kernel.info()), file=answers, flush=True)
    for line in sys.stdin:
        print(json.dumps(kernel.do(json.loads(line))), file=answers, flush=True)
    kernel.close()


if __name__ == "__main__":
    _main(*sys.argv[1:])

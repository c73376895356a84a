"""Two Jupyter servers over a folder each: JupyterLab as it comes, and the course's; and a client that asks them.

Both start in the student's work folder, with a home in which traps are set, as if somebody had come that far.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from tests.support import PROJECT

__all__ = ["CANARY_CODE", "Reply", "Server", "World", "printed_by", "world"]

START_S = 90.0
STOCK = ("-m", "jupyterlab")
OURS = ("-P", "-m", "labkit.sandbox.server")
#: What a planted program does: it leaves a file where none of the student's may be.
CANARY_CODE = "open({path!r}, 'w').close()"
NOTEBOOK = {
    "nbformat": 4, "nbformat_minor": 5, "metadata": {},
    "cells": [{"cell_type": "markdown", "id": "a", "metadata": {}, "source": "text"}],
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Reply:
    """What the server answered."""

    status: int
    body: bytes

    @property
    def text(self) -> str:
        """The body as text."""
        return self.body.decode(errors="replace")

    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


@dataclass
class World:
    """A root folder with a student's work folder in it, a home with traps, and a place outside with a secret."""

    root: Path
    work: Path
    home: Path
    outside: Path
    secret: str = field(default_factory=lambda: f"labkit-{uuid.uuid4().hex}")


def world(folder: Path) -> World:
    """Make one."""
    made = World(folder / "root", folder / "root/work", folder / "home", folder / "outside")
    for path in (made.work, made.home, made.outside):
        path.mkdir(parents=True)
    return made


class Server:
    """A running Jupyter server; a context manager."""

    def __init__(self, place: World, *, ours: bool, options: tuple[str, ...] = ()) -> None:
        self.world = place
        self.is_ours = ours
        runtime = place.home / "runtime"
        runtime.mkdir(exist_ok=True)
        base = ["--no-browser", "--ServerApp.port=0", f"--ServerApp.root_dir={place.root}", *options]
        base += ["--allow-root"] if os.geteuid() == 0 else []
        environ = {
            name: value for name, value in os.environ.items() if not name.startswith(("JUPYTER", "XDG", "LABKIT"))
        }
        policy = place.home / "policy.toml"
        policy.write_text(f'[mounts]\nwork = "{place.work}"\n')
        environ |= {
            "HOME": str(place.home), "JUPYTER_RUNTIME_DIR": str(runtime), "LABKIT_SANDBOX_POLICY": str(policy),
            "XDG_CACHE_HOME": os.environ.get("XDG_CACHE_HOME", str(Path.home() / ".cache")), "PYTHONPATH": str(PROJECT),
        }  # fmt: skip
        self._log = (place.home / "log").open("wb")
        self.process = subprocess.Popen(
            [sys.executable, *(OURS if ours else STOCK), *base], cwd=place.work, env=environ, stdin=subprocess.DEVNULL,
            stdout=self._log, stderr=self._log, start_new_session=True,
        )  # fmt: skip
        try:
            self.url, self.token = self._wait(runtime)
        except BaseException:
            self.close()
            raise

    def _wait(self, runtime: Path) -> tuple[str, str]:
        deadline_s = time.monotonic() + START_S
        while time.monotonic() < deadline_s and self.process.poll() is None:
            for path in runtime.glob("jpserver-*.json"):
                try:
                    info = json.loads(path.read_text())
                except ValueError:
                    continue
                self.url, self.token = info["url"].rstrip("/"), info["token"]
                try:
                    self.ask("GET", "/api/status")
                except OSError:
                    continue
                return self.url, self.token
            time.sleep(0.05)
        log = (self.world.home / "log").read_text(errors="replace")[-3000:]
        raise AssertionError(f"the server did not start:\n{log}")

    def ask(self, method: str, path: str, body: Any = None, *, timeout_s: float = 60.0) -> Reply:
        """Send a request with the token, as the student's browser would."""
        place = urlsplit(self.url)
        assert place.hostname
        connection = http.client.HTTPConnection(place.hostname, place.port, timeout=timeout_s)
        try:
            data = None if body is None else json.dumps(body)
            connection.request(
                method, place.path + quote(path, safe="/?=&%"), data, {"Authorization": f"token {self.token}"}
            )
            answer = connection.getresponse()
            return Reply(answer.status, answer.read())
        finally:
            connection.close()

    def start_kernel(self, body: Any, *, path: str = "/api/kernels") -> str:
        """Start a kernel and return its id; "" if the server refuses."""
        reply = self.ask("POST", path, body)
        if reply.status != 201:
            return ""
        answer = reply.json()
        return str(answer.get("kernel", answer)["id"])

    def run(self, kernel_id: str, code: str, *, timeout_s: float = 60.0) -> str:
        """Run code in a kernel over the websocket, as JupyterLab does, and return what it prints."""
        url = f"{self.url.replace('http', 'ws', 1)}/api/kernels/{kernel_id}/channels"
        return printed_by(url, self.token, code, timeout_s=timeout_s)

    def start_and_leave(self, kernel_id: str, code: str) -> None:
        """Run code and close the browser at once."""
        import websocket

        url = f"{self.url.replace('http', 'ws', 1)}/api/kernels/{kernel_id}/channels"
        channel = websocket.create_connection(url, header=[f"Authorization: token {self.token}"], timeout=30)
        channel.send(json.dumps(_request(code)))
        time.sleep(0.3)
        channel.close()

    @property
    def memory_mib(self) -> int:
        """The memory of the server's process, as the host sees it."""
        line = next(
            line
            for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
            if line.startswith("VmRSS")
        )
        return int(line.split()[1]) >> 10

    def close(self) -> None:
        """End the server, which ends its kernels."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait(10)
        self._log.close()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def printed_by(url: str, token: str, code: str, *, timeout_s: float = 60.0) -> str:
    """Run code in the kernel whose websocket is at ``url``, as JupyterLab does, and return what it prints."""
    import websocket

    channel = websocket.create_connection(url, header=[f"Authorization: token {token}"], timeout=timeout_s)
    try:
        message = _request(code)
        channel.send(json.dumps(message))
        return _printed(channel, message["header"]["msg_id"])
    finally:
        channel.close()


def _request(code: str) -> dict[str, Any]:
    header = {
        "msg_id": uuid.uuid4().hex, "msg_type": "execute_request", "username": "", "session": uuid.uuid4().hex,
        "date": "2026-01-01T00:00:00Z", "version": "5.3",
    }  # fmt: skip
    content = {"code": code, "silent": False, "store_history": False, "user_expressions": {}, "allow_stdin": False}
    return {
        "header": header, "parent_header": {}, "metadata": {}, "content": content, "buffers": [], "channel": "shell",
    }  # fmt: skip


def _printed(channel: Any, msg_id: str) -> str:
    printed = ""
    while True:
        got = json.loads(channel.recv())
        if got["parent_header"].get("msg_id") != msg_id:
            continue
        if got["msg_type"] == "stream":
            printed += got["content"]["text"]
        elif got["msg_type"] == "error":
            raise AssertionError("\n".join(got["content"]["traceback"]))
        elif got["msg_type"] == "status" and got["content"]["execution_state"] == "idle":
            return printed

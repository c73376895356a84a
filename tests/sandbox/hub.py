"""A JupyterHub for tests: the configuration of docs/, with local users that exist only in it, on free ports; and a student's browser."""

from __future__ import annotations

import contextlib
import http.cookiejar
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

from tests.attacks.servers import printed_by
from tests.support import PROJECT

__all__ = ["Hub", "Student"]

START_S = 120.0
PASSWORD = "a password of the class"
CONFIG = """
import os
load_subconfig({shared!r})
c.JupyterHub.authenticator_class = "dummy"
c.DummyAuthenticator.password = {password!r}
c.Authenticator.allow_all = True
c.JupyterHub.spawner_class = "simple"
c.SimpleLocalProcessSpawner.home_dir_template = {homes!r} + "/{{username}}"
c.JupyterHub.proxy_class = "jupyterhub.proxy.ConfigurableHTTPProxy"
c.ConfigurableHTTPProxy.command = [{proxy!r}]
c.ConfigurableHTTPProxy.api_url = "http://127.0.0.1:{ports[0]}"
c.JupyterHub.hub_port = {ports[1]}
c.JupyterHub.bind_url = "http://127.0.0.1:{ports[2]}"
c.JupyterHub.db_url = "sqlite:///{folder}/hub.sqlite"
c.JupyterHub.cookie_secret_file = "{folder}/cookie_secret"
c.ConfigurableHTTPProxy.pid_file = "{folder}/proxy.pid"
c.JupyterHub.data_files_path
c.Spawner.env_keep = [*c.Spawner.env_keep, "XDG_CACHE_HOME"] if isinstance(c.Spawner.env_keep, list) else [
    "PATH", "LANG", "LC_ALL", "XDG_CACHE_HOME"]
c.Spawner.environment = {{"LABKIT_SANDBOX_POLICY": {policy!r}}}
"""


def free_ports(count: int) -> list[int]:
    """Return ports that nobody listens on."""
    with contextlib.ExitStack() as stack:
        found = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [item.getsockname()[1] for item in found]


class Hub:
    """A running JupyterHub; a context manager."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.homes = folder, folder / "homes"
        self.homes.mkdir()
        policy = folder / "policy.toml"
        policy.write_text('[limits]\nmemory = "512 MiB"\npids = 128\n')
        ports = free_ports(3)
        shared = PROJECT / "docs/jupyterhub_config.py"
        proxy = str(Path(sys.executable).with_name("configurable-http-proxy"))
        config = CONFIG.format(
            shared=str(shared), password=PASSWORD, homes=str(self.homes), proxy=proxy, ports=ports, folder=folder,
            policy=str(policy),
        )  # fmt: skip
        (folder / "config.py").write_text(config.replace("c.JupyterHub.data_files_path\n", ""))
        self.url = f"http://127.0.0.1:{ports[2]}"
        environ = {"XDG_CACHE_HOME": str(Path.home() / ".cache"), **os.environ}
        self._log = (folder / "log").open("wb")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "jupyterhub", "-f", str(folder / "config.py")], cwd=folder, env=environ,
            stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log, start_new_session=True,
        )  # fmt: skip

    def __enter__(self) -> Hub:
        deadline_s = time.monotonic() + START_S
        while self.process.poll() is None and time.monotonic() < deadline_s:
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"{self.url}/hub/api", timeout=5).close()
                return self
            time.sleep(0.1)
        self.close()
        raise AssertionError(f"JupyterHub did not start:\n{self.log[-4000:]}")

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def log(self) -> str:
        """What the hub and its servers have said."""
        return (self.folder / "log").read_text(errors="replace")

    def close(self) -> None:
        """Ask the hub to end: it ends the proxy and the students' servers, and they their kernels."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(40)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait(10)
        self._log.close()


class Student:
    """A student's browser: it has cookies, logs in with a form, and waits until the server is there."""

    def __init__(self, hub: Hub, name: str) -> None:
        self.hub, self.name = hub, name
        self.jar = http.cookiejar.CookieJar()
        self._opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(self.jar))
        self.token = ""

    def get(self, path: str) -> tuple[int, str, str]:
        """Return status, text and final address of a page."""
        try:
            with self._opener.open(f"{self.hub.url}{path}", timeout=60) as answer:
                return answer.status, answer.read().decode(errors="replace"), answer.url
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode(errors="replace"), error.url or ""

    def _xsrf(self, path: str) -> str:
        return next((c.value or "" for c in self.jar if c.name == "_xsrf" and c.path == path), "")

    def log_in(self, password: str = PASSWORD) -> bool:
        """Fill in the form; tell whether it was accepted."""
        self.get("/hub/login")
        fields = {"username": self.name, "password": password, "_xsrf": self._xsrf("/hub/")}
        data = urllib.parse.urlencode(fields).encode()
        try:
            with self._opener.open(f"{self.hub.url}/hub/login?next=/hub/home", data, timeout=60) as answer:
                return "/hub/home" in answer.url
        except urllib.error.HTTPError:
            return False

    def start_server(self) -> None:
        """Press "Start My Server" and wait until JupyterLab's page comes from it."""
        self.get("/hub/spawn")
        deadline_s = time.monotonic() + START_S
        while time.monotonic() < deadline_s:
            status, text, url = self.get(f"/user/{self.name}/lab")
            if status == 200 and f"/user/{self.name}/lab" in url and "JupyterLab" in text:
                break
            time.sleep(0.3)
        else:
            raise AssertionError(f"{self.name}'s server did not start:\n{self.hub.log[-4000:]}")
        request = urllib.request.Request(
            f"{self.hub.url}/hub/api/users/{self.name}/tokens",
            b"{}",
            {"X-XSRFToken": self._xsrf("/hub/")},
            method="POST",
        )
        request.add_header("Referer", f"{self.hub.url}/hub/home")
        request.add_header("Content-Type", "application/json")
        with self._opener.open(request, timeout=60) as answer:
            self.token = json.loads(answer.read())["token"]

    def ask(self, method: str, path: str, body: Any = None, *, owner: str = "") -> tuple[int, str]:
        """Ask a student's server (one's own, or the one of ``owner``); return status and text."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            f"{self.hub.url}/user/{owner or self.name}{path}",
            data,
            {"Authorization": f"token {self.token}"},
            method=method,
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, answer.read().decode(errors="replace")
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode(errors="replace")

    def start_kernel(self, path: str = "") -> str:
        """Start a kernel in a folder; return its id."""
        status, text = self.ask("POST", "/api/kernels", {"name": "labkit", "path": path})
        assert status == 201, text
        return str(json.loads(text)["id"])

    def run(self, kernel_id: str, code: str) -> str:
        """Run code in one's kernel, as JupyterLab does, and return what it prints."""
        url = f"{self.hub.url.replace('http', 'ws', 1)}/user/{self.name}/api/kernels/{kernel_id}/channels"
        return printed_by(url, self.token, code)

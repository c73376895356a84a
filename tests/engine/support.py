"""An engine for tests: a real process, in a network namespace of its own, with an image made of a static busybox.

The network namespace keeps bridges and packet filter rules away from the machine; clients come in through the unix socket, which
no network namespace separates.
"""

from __future__ import annotations

import io
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker

from labkit.setup.parts import find_busybox, find_program
from tests.support import PROJECT

__all__ = ["IMAGE", "Daemon", "busybox_tar", "start_dockerd", "start_labkit"]

IMAGE = "busybox:latest"
_START_S = 30.0
_OWN_NETWORK = ["unshare", "--net", "--", "sh", "-c", 'ip link set lo up; exec "$@"', "sh"]
APPLETS = """
awk basename cat chmod chown cp cut date dd df dirname echo env false find grep head hostname id ifconfig ip kill ln ls md5sum mkdir mkfifo
mknod mount mv nc nslookup ping printf ps pwd readlink rm rmdir sed seq sh sleep sort stat stty sync tail tee test time timeout touch tr
true tty umount uname uniq unshare wc wget which whoami xargs yes
""".split()  # noqa: SIM905 - a list of words is easier to read


@dataclass
class Daemon:
    """A running daemon: labkit's or Docker's; ``pid`` is that of the process whose network namespace it lives in."""

    process: subprocess.Popen[bytes]
    socket: Path
    state: Path

    @property
    def url(self) -> str:
        """What DOCKER_HOST must be."""
        return f"unix://{self.socket}"

    @property
    def pid(self) -> int:
        """The daemon's pid."""
        return self.process.pid

    def client(self, **options: Any) -> docker.DockerClient:
        """Return a client of the Python SDK; the caller closes it."""
        return docker.DockerClient(base_url=self.url, timeout=60, **options)

    def cli(self, *words: str, data: bytes = b"", timeout_s: float = 60.0) -> subprocess.CompletedProcess[bytes]:
        """Run the real client."""
        environment = os.environ | {
            "DOCKER_HOST": self.url,
            "DOCKER_BUILDKIT": "0",
            "DOCKER_CONFIG": str(self.state / "client"),
        }
        return subprocess.run(
            ["docker", *words], input=data, capture_output=True, timeout=timeout_s, check=False, env=environment
        )

    def sh(self, script: str, folder: Path, *, timeout_s: float = 60.0) -> subprocess.CompletedProcess[bytes]:
        """Run a shell script that uses the real client."""
        environment = os.environ | {
            "DOCKER_HOST": self.url,
            "DOCKER_BUILDKIT": "0",
            "DOCKER_CONFIG": str(self.state / "client"),
        }
        return subprocess.run(
            ["sh", "-c", script], cwd=folder, capture_output=True, timeout=timeout_s, check=False, env=environment
        )

    def in_network(self, *words: str, data: bytes = b"", timeout_s: float = 20.0) -> subprocess.CompletedProcess[bytes]:
        """Run a program in the daemon's network namespace: where its ports are published."""
        command = ["nsenter", f"--net=/proc/{self.pid}/ns/net", "--", *words]
        return subprocess.run(command, input=data, capture_output=True, timeout=timeout_s, check=False)

    def stop(self, *, number: int = signal.SIGTERM) -> int:
        """End it and return its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(timeout=60)


def busybox_tar() -> bytes:
    """Return a file tree with a static busybox as a tar, the same bytes each time."""
    busybox = find_busybox()
    assert busybox is not None
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name in ("bin", "etc", "root", "tmp", "var", "usr"):
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if name == "tmp" else 0o755
            archive.addfile(entry)
        program = tarfile.TarInfo("bin/busybox")
        data = busybox.read_bytes()
        program.size, program.mode = len(data), 0o755
        archive.addfile(program, io.BytesIO(data))
        for applet in APPLETS:
            link = tarfile.TarInfo(f"bin/{applet}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            archive.addfile(link)
        texts = {
            "etc/passwd": "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/home/user:/bin/sh\n",
            "etc/group": "root:x:0:\nuser:x:1000:\n",
        }
        for name, text in texts.items():
            file = tarfile.TarInfo(name)
            file.size = len(text)
            archive.addfile(file, io.BytesIO(text.encode()))
    return out.getvalue()


def start_labkit(
    folder: Path, *options: str, state: Path | None = None, prefix: Sequence[str] | None = None, wait: bool = True
) -> Daemon:
    """Start labkit's engine with its state below ``folder``, and ``wait`` until it says that it listens."""
    socket, state = folder / "d.sock", state or folder / "state"
    command = [
        sys.executable,
        "-m",
        "labkit.cli",
        "engine",
        "serve",
        "--socket",
        str(socket),
        "--state",
        str(state),
        *options,
    ]
    own_network = _OWN_NETWORK if os.geteuid() == 0 else []
    process = subprocess.Popen(
        [*(own_network if prefix is None else prefix), *command], cwd=PROJECT, stdout=subprocess.PIPE, stderr=(folder / "engine.log").open("ab"),
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, (str(PROJECT), os.environ.get("PYTHONPATH"))))},
    )  # fmt: skip
    daemon = Daemon(process, socket, state)
    assert process.stdout is not None
    if not wait:
        process.stdout.close()
        return daemon
    line = process.stdout.readline()
    process.stdout.close()
    if b"listening" not in line:
        daemon.stop(number=signal.SIGKILL)
        raise AssertionError(f"the engine did not start: {line!r} {(folder / 'engine.log').read_text()[-2000:]}")
    return daemon


def start_dockerd(folder: Path) -> Daemon:
    """Start Debian's daemon in network and mount namespaces of its own, with everything it keeps below ``folder``."""
    socket = folder / "docker.sock"
    dockerd = find_program("dockerd")
    assert dockerd is not None
    command = [
        str(dockerd), f"--data-root={folder}/data", f"--exec-root={folder}/exec", f"--pidfile={folder}/docker.pid",
        f"--host=unix://{socket}", "--containerd-namespace=labkit", "--containerd-plugins-namespace=labkit-plugins",
    ]  # fmt: skip
    isolated = ["unshare", "--net", "--mount", "--", "sh", "-c", 'ip link set lo up; exec "$@"', "sh"]
    with (folder / "dockerd.log").open("wb") as log:
        process = subprocess.Popen([*isolated, *command], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    daemon = Daemon(process, socket, folder)
    deadline_s = time.monotonic() + _START_S
    while daemon.cli("version").returncode:
        if process.poll() is not None or time.monotonic() > deadline_s:
            daemon.stop(number=signal.SIGKILL)
            raise AssertionError((folder / "dockerd.log").read_text()[-2000:])
        time.sleep(0.1)
    return daemon


def remove_dockerd_folder(folder: Path) -> None:
    """Remove what dockerd keeps; its mounts were in a namespace that is gone."""
    shutil.rmtree(folder, ignore_errors=True)

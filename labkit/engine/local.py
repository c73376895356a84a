"""An engine for a lesson: a process of its own that lives as long as its context, or as its parent.

It keeps everything in a temporary folder, so that a lesson begins with nothing and leaves nothing, and uses the images of `labkit image`
only if it is told to. It dies with its parent (PR_SET_PDEATHSIG) and takes its containers along.

See: `labkit.engine.serve`; prctl(2).
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

import docker

from labkit.engine.serve import listen, serve
from labkit.errors import InvalidState
from labkit.linux.constants import Prctl
from labkit.linux.syscalls import prctl

__all__ = ["LocalEngine", "main"]

_END_S = 30.0


class LocalEngine:
    """A running engine; a context manager. ``url`` is what ``DOCKER_HOST`` must be."""

    def __init__(self, *, images: Path | None = None) -> None:
        self._stack = ExitStack()
        folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="labkit-engine-")))
        self.socket = folder / "docker.sock"
        self.state = folder / "state"
        self.log = folder / "log"
        words = [str(self.socket), str(self.state), *([str(images)] if images else [])]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "labkit.engine.local", *words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log,
                start_new_session=True,  # "interrupt the kernel" signals the kernel's whole group
                env=os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[2])},
            )  # fmt: skip
        self._stack.callback(self._end)
        line = self.process.stdout.readline() if self.process.stdout else b""
        if not line:
            said = self.log.read_text(errors="replace").strip().splitlines()
            self.close()
            raise InvalidState(f"The engine did not start: {said[-1] if said else 'it said nothing'}")

    @property
    def url(self) -> str:
        """Where it listens, as ``DOCKER_HOST`` wants it."""
        return f"unix://{self.socket}"

    @property
    def pid(self) -> int:
        """The engine's process."""
        return self.process.pid

    def client(self) -> docker.DockerClient:
        """Return a client of the Docker SDK; it is closed with the engine."""
        client = docker.DockerClient(base_url=self.url, timeout=60)
        self._stack.callback(client.close)
        return client

    def _end(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(timeout=_END_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        if self.process.stdout:
            self.process.stdout.close()

    def close(self) -> None:
        """End the engine, its containers, and everything it kept; safe to call twice."""
        self._stack.close()

    def __enter__(self) -> LocalEngine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def main() -> None:
    """Serve at the socket, with the state folder (and image store) that the arguments name."""
    parent = os.getppid()
    prctl(Prctl.SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        return  # it died before the wish was made
    socket, state, *images = sys.argv[1:]
    with ExitStack() as at_end:
        listeners = listen([socket], [], None, at_end)
        serve(state, listeners, images=images[0] if images else None, ready=lambda: print("listening", flush=True))


if __name__ == "__main__":
    main()

"""A child that works on one folder and can reach nothing else: root of a user namespace, with that folder as its ``/``.

Tar archives and container layers are made by strangers. Whoever writes or reads their files must not be misled out of the folder by
a link, a ``..`` or a race, and must not have more power than the container itself will have. So a child does it::

    program                                   child (python -I -S)
      |-- tar ---- pipe ------------------------>| unshare: a user namespace
      |<-- "unshared" --- socket ----------------|
      |-- writes uid_map, gid_map; "go" -------->| uid 0 there, 0x70000000 outside
      |                                          | chroot(folder): / is the folder
      |                                          | reads tar, writes files (or the other way round)
      |<-- {"entries": 12, ...} or {"error": ...}|

Files get the ids that the container will see, with no arithmetic: uid 0 of the image is the namespace's uid 0. There is no moment at which
a set-uid file of the machine's root exists. An ordinary user's child gets the range of /etc/subuid, or a single id.

Leaves out: a seccomp filter and a PID namespace for the child; it runs labkit's own code and no program of the image.
See: user_namespaces(7), chroot(2).
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from labkit.errors import FeatureMissing, ImageError
from labkit.isolation import idmap
from labkit.isolation.capabilities import parse_capabilities
from labkit.linux.fds import Fd
from labkit.linux.syscalls import capget

__all__ = ["Confined", "Owners", "open_folder", "owners_here"]

_BOOT = "import sys; sys.path.insert(0, sys.argv[1]); from labkit.image.worker import main; main(sys.argv[2])"
_TIMEOUT_S = 15.0
_MOST_REPORT_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class Owners:
    """Who files belong to: how the child becomes root of them, and uid and gid 0 of the image as seen from here."""

    kind: str  # "mapped": by us, into the high range; "user": by newuidmap or a single id; "same": we are root in a sandbox
    root_uid: int
    root_gid: int
    #: False if there is one id only: then everything belongs to it, and the image's owners stay in the tar alone.
    has_range: bool


def owners_here() -> Owners:
    """Return what this process can do about owners. See: user_namespaces(7)."""
    effective, _, _ = capget()
    needed = parse_capabilities(["SYS_ADMIN", "SETUID", "SETGID", "CHOWN", "SYS_CHROOT"])
    if effective & needed == needed:
        maps = idmap.container_maps(idmap.own_maps())
        has_range = sum(line.count for line in maps.uids) > 1
        if not maps.shifted:
            return Owners("same", 0, 0, has_range)
        return Owners("mapped", maps.uids[0].outside, maps.gids[0].outside, has_range)
    maps, _ = idmap.user_maps()
    return Owners("user", os.geteuid(), os.getegid(), sum(line.count for line in maps.uids) > 1)


class Confined:
    """The child, seen from the program. A context manager: leaving it without `result` kills the child."""

    def __init__(
        self, task: str, folder_fd: int, options: dict[str, Any], *, stream_fd: int, others: Sequence[int] = ()
    ) -> None:
        """Start ``task`` ("unpack", "pack", "remove") on the folder; ``stream_fd`` is its end of the pipe with the tar."""
        self.owners = owners_here()
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._control.settimeout(_TIMEOUT_S)
        fds = [theirs.fileno(), folder_fd, stream_fd, *others]
        request = {"task": task, "owners": self.owners.kind, "fds": fds, "options": options}
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _BOOT, str(Path(__file__).resolve().parents[2]), json.dumps(request)],
                pass_fds=fds, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                cwd="/", env={"PATH": os.environ.get("PATH", os.defpath)},
            )  # fmt: skip
        try:
            self._give_ids()
        except BaseException:
            self.close()
            raise

    def _give_ids(self) -> None:
        if self.owners.kind == "mapped":
            self._receive()
            idmap.write_maps(self.process.pid, idmap.container_maps(idmap.own_maps()))
            self._control.send(b"go")
        answer = self._receive()
        if "refused" in answer:
            raise FeatureMissing(
                f"Files of images can be handled only in a user namespace, which could not be made: {answer['refused']}.",
                remedy="Run `labkit doctor`: it names the rule that refuses and what to do.",
            )

    def _receive(self, *, timeout_s: float | None = _TIMEOUT_S) -> dict[str, Any]:
        self._control.settimeout(timeout_s)
        data = self._control.recv(_MOST_REPORT_BYTES)
        if not data:
            raise ImageError(f"The child that handles the image's files ended without a word{self._last_words()}.")
        return dict(json.loads(data))

    def _last_words(self) -> str:
        status = self.process.wait(timeout=_TIMEOUT_S)
        said = self.process.stderr.read().decode(errors="replace").strip() if self.process.stderr else ""
        return f": {said.splitlines()[-1]}" if said else f" (status {status})"

    def result(self) -> dict[str, Any]:
        """Wait for the child's end and return its report. Raises: ImageError with what it refused or could not do."""
        report = self._receive(timeout_s=None)
        self.process.wait(timeout=_TIMEOUT_S)
        if "error" in report:
            raise ImageError(report["error"])
        return report

    def reached(self) -> str:
        """Return the entry at which the child stopped, after its stream was cut off; empty if it cannot say."""
        try:
            return str(self._receive(timeout_s=_TIMEOUT_S).get("at", ""))
        except (ImageError, TimeoutError):
            return ""

    def close(self) -> None:
        """End the child if it still runs; safe to call twice."""
        self.process.kill()
        self.process.wait()
        if self.process.stderr is not None:
            self.process.stderr.close()
        self._control.close()

    def __enter__(self) -> Confined:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_folder(folder: Path | str | int) -> Fd:
    """Return a descriptor of ``folder`` that the caller owns. Raises: OSError unless it is a folder."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    return Fd(os.open(".", flags, dir_fd=folder) if isinstance(folder, int) else os.open(folder, flags))

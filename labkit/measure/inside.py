"""The probes of the isolation matrix, as they run inside the namespaces: each looks for one thing and says what it saw.

They use no more than the system calls that their names say, decide nothing, and hand back plain values; `labkit.measure.isolation`
compares these with the host's.

See: `labkit.measure.isolation`.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable
from typing import Any

from labkit.linux.constants import MountFlag
from labkit.linux.ipc import segments
from labkit.linux.mountinfo import read_mountinfo
from labkit.linux.proc import read_cgroup, read_uid_map
from labkit.linux.syscalls import mount
from labkit.measure.inner_python import serve

__all__ = ["LOOKS", "boot_id", "look", "main", "netns_cookie"]

_SO_NETNS_COOKIE = 71  # asm-generic/socket.h
_CONNECT_TIMEOUT_S = 2.0


def netns_cookie() -> int | None:
    """Return the number that the kernel gives to the caller's network namespace; None before Linux 5.14."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as any_socket:
        try:
            return int.from_bytes(any_socket.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8), "little")
        except OSError:
            return None


def boot_id() -> str:
    """Return the number that this kernel drew when it booted. See: proc_sys_kernel(5)."""
    with open("/proc/sys/kernel/random/boot_id") as file:
        return file.read().strip()


def _process(request: dict[str, Any]) -> str:
    """Send "signal 0" to the canary: the kernel looks whether the process is there and sends nothing."""
    try:
        os.kill(request["canary_pid"], 0)
    except ProcessLookupError:
        return "ESRCH"
    except PermissionError:
        return "EPERM"
    return ""


def _proc(request: dict[str, Any]) -> dict[str, Any]:
    entries = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    return {"count": len(entries), "canary": request["canary_pid"] in entries}


def _mounts(request: dict[str, Any]) -> dict[str, Any]:
    """Mount a tmpfs on the canary folder; the host looks whether it shows there."""
    ids = [entry.mount_id for entry in read_mountinfo()]
    try:
        mount("labkit-probe", request["mount_point"], "tmpfs", MountFlag.NOSUID | MountFlag.NODEV, "size=4k")
    except OSError as error:
        return {"ids": ids, "errno": error.errno}
    return {"ids": ids, "errno": 0}


def _loopback(request: dict[str, Any]) -> str:
    try:
        with socket.create_connection(("127.0.0.1", request["port"]), timeout=_CONNECT_TIMEOUT_S):
            return ""
    except OSError as error:
        return error.strerror or str(error)


def _clock(_: dict[str, Any]) -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


LOOKS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "pid": lambda _: os.getpid(),
    "processes": _process,
    "proc": _proc,
    "hostname": lambda _: socket.gethostname(),
    "mounts": _mounts,
    "interfaces": lambda _: {"names": [name for _, name in socket.if_nameindex()], "cookie": netns_cookie()},
    "loopback": _loopback,
    "sysv_ipc": lambda request: segments().get(request["segment"]),
    "uid": lambda request: {
        "uid": os.getuid(),
        "owner": os.stat(request["file"]).st_uid,
        "map": [str(m) for m in read_uid_map()],
    },
    "cgroup": lambda _: {str(line.hierarchy_id): line.path for line in read_cgroup()},
    "clock": _clock,
    "kernel": lambda _: {"release": os.uname().release, "boot_id": boot_id()},
}


def look(request: dict[str, Any]) -> dict[str, Any]:
    """Return what each probe saw: ``{"value": ...}``, or ``{"error": ...}`` where it could not look."""
    seen: dict[str, Any] = {}
    for name, probe in LOOKS.items():
        try:
            seen[name] = {"value": probe(request)}
        except OSError as error:
            seen[name] = {"error": error.strerror or str(error)}
    return seen


def main(request_text: str) -> None:
    """Look, answer, wait."""
    serve(look(json.loads(request_text)))

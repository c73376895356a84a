"""The attackers, as they run inside: each tries one thing and says what the kernel answered.

One server process a level of defence starts Python once; for each attack it forks a child, which attacks, answers, and stays as it is
until the host has looked (a line on standard input lets it go). At the weakest level there is no root file system but a
*jail*, a folder that the child enters with chroot(2) before it attacks.

None of them knows a bug. They use what the system calls are for, with the rights that the defence has left them.

See: `labkit.measure.attacks`; `labkit.measure.targets` for the canaries and what counts as success.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import signal
import socket
import stat
from collections.abc import Callable
from typing import Any, NoReturn

from labkit.linux.constants import NS, MountFlag, Prctl
from labkit.linux.keys import Keyring, join_new_session, link_key, read_key, search_key
from labkit.linux.syscalls import mount, prctl, unshare
from labkit.linux.trace import seize
from labkit.measure.inner_python import tell

__all__ = ["ATTEMPTS", "main"]

_CLIMB = 40  # folders; more than any path is deep
_BLOCK_BYTES = 4 << 20
_CONNECT_TIMEOUT_S = 2.0
_NOBODY = 65534


def break_out() -> None:
    """Leave a chroot: with the root below the working folder, nothing stops ``..`` from passing by. See: chroot(2)."""
    os.makedirs("/below", exist_ok=True)
    os.chroot("/below")
    for _ in range(_CLIMB):
        os.chdir("..")
    os.chroot(".")


def _escape_chroot(request: dict[str, Any]) -> dict[str, Any]:
    break_out()
    with open(request["file"]) as file:
        return {"text": file.read()}


def _kill_process(request: dict[str, Any]) -> dict[str, Any]:
    os.kill(request["canary_pid"], signal.SIGKILL)
    return {}


def _mount(request: dict[str, Any]) -> dict[str, Any]:
    _try_to_break_out()
    os.makedirs(request["mount_point"], exist_ok=True)
    mount("labkit-attack", request["mount_point"], "tmpfs", MountFlag.NOSUID | MountFlag.NODEV, "size=4k")
    return {}


def _read_secret(request: dict[str, Any]) -> dict[str, Any]:
    _try_to_break_out()
    with open(request["secret"], "rb") as file:
        return {"bytes": len(file.read())}


def _read_disk(request: dict[str, Any]) -> dict[str, Any]:
    path = "/labkit-disk"
    os.mknod(path, stat.S_IFBLK | 0o600, os.makedev(request["major"], request["minor"]))
    try:
        with open(path, "rb") as disk:
            disk.seek(request["offset"])
            return {"sha256": hashlib.sha256(disk.read(request["length"])).hexdigest()}
    finally:
        os.unlink(path)


def _rename_host(_: dict[str, Any]) -> dict[str, Any]:
    socket.sethostname(socket.gethostname())
    return {}


def _write_sysctl(request: dict[str, Any]) -> dict[str, Any]:
    _try_to_break_out()
    # Opened for writing first: whoever may not write leaves it alone.
    with open(request["sysctl"], "r+b", buffering=0) as file:
        value = file.read()
        file.seek(0)
        return {"written": file.write(value), "value": value.decode(errors="replace")}


def _steal_key(request: dict[str, Any]) -> dict[str, Any]:
    """Link the user's keyring to a session keyring of its own: then what is in it counts as possessed and can be read."""
    join_new_session()
    link_key(Keyring.USER, Keyring.SESSION)
    return {"text": read_key(search_key(request["key"], Keyring.SESSION)).decode()}


def _trace_process(request: dict[str, Any]) -> dict[str, Any]:
    seize(request["canary_pid"])
    return {}


def _abstract_socket(request: dict[str, Any]) -> dict[str, Any]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as service:
        service.settimeout(_CONNECT_TIMEOUT_S)
        service.connect("\0" + request["socket"])
        service.sendall(request["token"].encode())
    return {}


def _new_namespace(_: dict[str, Any]) -> dict[str, Any]:
    _try_to_break_out()  # the kernel makes no user namespace for a process in a chroot
    unshare(NS.USER)
    return {}


def _setuid(request: dict[str, Any]) -> dict[str, Any]:
    """Copy a program, set its set-user-ID bit, become nobody, and run it."""
    path = f"{request['folder']}/labkit-setuid"
    _try_to_break_out()
    shutil.copyfile(request["program"], path)
    os.chmod(path, 0o4755)
    ready_r, ready_w = os.pipe()  # closed by execve: an end of file says that the program runs
    child = os.fork()
    if child == 0:
        _as_nobody(path, ready_w)
    _made.append(child)  # a set-user-ID program is not killed with its parent (prctl(2), PR_SET_PDEATHSIG)
    os.close(ready_w)
    refused = os.read(ready_r, 16)
    if refused:
        number = int(refused)
        raise OSError(number, os.strerror(number))
    return {}


def _as_nobody(path: str, ready_fd: int) -> NoReturn:
    try:
        prctl(Prctl.SET_PDEATHSIG, signal.SIGKILL)
        os.setgroups([])
        os.setresgid(_NOBODY, _NOBODY, _NOBODY)
        os.setresuid(_NOBODY, _NOBODY, _NOBODY)
        os.execv(path, ["sleep", "30"])
    except OSError as error:
        os.write(ready_fd, str(error.errno).encode())
    os._exit(1)


def _fork_bomb(request: dict[str, Any]) -> dict[str, Any]:
    for _ in range(request["count"]):
        child = os.fork()
        if child == 0:
            prctl(Prctl.SET_PDEATHSIG, signal.SIGKILL)
            signal.pause()
            os._exit(0)
        _made.append(child)
    return {}


def _memory_hog(request: dict[str, Any]) -> dict[str, Any]:
    kept: list[bytearray] = []
    while len(kept) * _BLOCK_BYTES < request["size_bytes"]:
        kept.append(bytearray(b"x") * _BLOCK_BYTES)
    _keep.extend(kept)
    return {}


#: What an attack has taken, kept until the host has looked.
_keep: list[bytearray] = []
_made: list[int] = []


def _try_to_break_out() -> None:
    with contextlib.suppress(OSError):
        break_out()


ATTEMPTS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "escape_chroot": _escape_chroot,
    "kill_process": _kill_process,
    "mount": _mount,
    "read_secret": _read_secret,
    "read_disk": _read_disk,
    "rename_host": _rename_host,
    "write_sysctl": _write_sysctl,
    "steal_key": _steal_key,
    "trace_process": _trace_process,
    "abstract_socket": _abstract_socket,
    "new_namespace": _new_namespace,
    "setuid": _setuid,
    "fork_bomb": _fork_bomb,
    "memory_hog": _memory_hog,
}


def main(setup_text: str) -> None:
    """Serve: read one request a line, attack in a child, report its end; until the input ends."""
    jail = json.loads(setup_text)["jail"]
    tell({"ready": True})
    while request_text := _read_line():
        child = os.fork()
        if child == 0:
            _attack(jail, json.loads(request_text))
        _, status = os.waitpid(child, 0)
        tell({"ended": os.waitstatus_to_exitcode(status)})


def _attack(jail: str, request: dict[str, Any]) -> NoReturn:
    """Enter the jail, attack, answer, and stay until the host has looked."""
    try:
        if jail:
            os.chroot(jail)
            os.chdir("/")
        answer = {"errno": "", **ATTEMPTS[request["attack"]](request)}
    except OSError as error:
        answer = {"errno": errno.errorcode.get(error.errno or 0, str(error))}
    except MemoryError:
        answer = {"errno": "ENOMEM"}
    tell(answer)
    _read_line()
    for pid in _made:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    os._exit(0)


def _read_line() -> bytes:
    """Read one line byte by byte: a buffer would take what is meant for the next reader of the same input."""
    line = b""
    while (letter := os.read(0, 1)) not in (b"", b"\n"):
        line += letter
    return line

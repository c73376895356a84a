"""Canaries: things put up on the host for an attack to reach, each with the look from outside that tells whether it did."""

from __future__ import annotations

import contextlib
import ctypes
import os
import secrets
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.attacks.harness import Answer, Canary, wait_until

__all__ = ["Process", "granted", "listening", "new_file", "process", "said", "secret_in", "token"]

NAME = "labkit-canary"


def token() -> str:
    """Return a text that nobody guesses and that stands nowhere else."""
    return f"labkit-{secrets.token_hex(8)}"


@contextmanager
def secret_in(place: Path | str, **more: Any) -> Iterator[Canary]:
    """A file with a secret in ``place``; reached if the program knows the secret."""
    path, secret = Path(place, f"{NAME}-{secrets.token_hex(4)}"), token()
    path.write_text(secret)
    path.chmod(0o600)
    try:
        yield Canary({"path": str(path), **more}, lambda answer: secret in str(answer.get("text", "")))
    finally:
        path.unlink()


@contextmanager
def new_file(folder: Path | str, **more: Any) -> Iterator[Canary]:
    """A name in ``folder`` that is free; reached if a file of that name is there."""
    path = Path(folder, f"{NAME}-{secrets.token_hex(4)}")
    try:
        yield Canary({"path": str(path), **more}, lambda _: path.exists())
    finally:
        path.unlink(missing_ok=True)


def said(**arguments: Any) -> Callable[[], contextlib.AbstractContextManager[Canary]]:
    """No canary but the kernel's own answer: reached if it granted what was asked."""
    return lambda *_: contextlib.nullcontext(Canary(arguments, granted))


def granted(answer: Answer) -> bool:
    """Tell whether the kernel did what it was asked."""
    return answer["errno"] == ""


@contextmanager
def listening(family: int, place: Any, kind: int = socket.SOCK_STREAM, **more: Any) -> Iterator[Canary]:
    """A service of the host; reached if it got the token."""
    with socket.socket(family, kind) as service:
        service.bind(place)
        service.settimeout(0.3)
        if kind == socket.SOCK_STREAM:
            service.listen()
        wanted, given = token(), service.getsockname()
        if family == socket.AF_UNIX and not str(place).startswith("\0"):
            os.chmod(place, 0o666)
        port = given[1] if family != socket.AF_UNIX else 0
        try:
            yield Canary({"token": wanted, "port": port, **more}, lambda _: _heard(service, kind, wanted))
        finally:
            if family == socket.AF_UNIX and not str(place).startswith("\0"):
                os.unlink(place)


def _heard(service: socket.socket, kind: int, wanted: str) -> bool:
    try:
        if kind != socket.SOCK_STREAM:
            return wanted.encode() in service.recv(200)
        connected, _ = service.accept()
        with connected:
            connected.settimeout(1.0)
            return wanted.encode() in connected.recv(200)
    except OSError:
        return False


_TARGET = """
import ctypes, os, signal, sys, time
secret = ctypes.create_string_buffer(os.environ["LABKIT_CANARY"].encode())
signal.signal(signal.SIGUSR1, signal.SIG_DFL)
ctypes.CDLL(None).prctl(0x59616d61, ctypes.c_ulong(-1), 0, 0, 0)  # whoever may: yama(7) is not what is tried here
fd = os.open(sys.argv[1], os.O_RDONLY)
print(ctypes.addressof(secret), fd, flush=True)
time.sleep(60)
"""


class Process:
    """A process of the host's user with a secret in its memory, its environment and an open file."""

    def __init__(self, folder: Path) -> None:
        self.secret = token()
        (folder / "open").write_text(self.secret)
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _TARGET, str(folder / "open"), NAME],
            stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, cwd=folder, env={"LABKIT_CANARY": self.secret},
        )  # fmt: skip
        assert self.process.stdout is not None
        self.address, self.fd = map(int, self.process.stdout.readline().split())

    @property
    def pid(self) -> int:
        """Its number on the host."""
        return self.process.pid

    def is_dead(self) -> bool:
        """Tell whether it has ended, giving a signal the time to work."""
        return wait_until(lambda: self.process.poll() is not None, timeout_s=0.2)

    def close(self) -> None:
        """End it."""
        self.process.kill()
        self.process.communicate()


@contextmanager
def process(
    folder: Path,
    reached: Callable[[Process, Answer], bool] | None = None,
    *,
    prepare: Callable[[int], object] | None = None,
) -> Iterator[Canary]:
    """A process of the host; reached, unless said otherwise, if the program knows its secret."""
    target = Process(folder)
    if prepare is not None:
        prepare(target.pid)
    arguments = {"pid": target.pid, "address": target.address, "fd": target.fd, "length": len(target.secret)}
    try:
        yield Canary(
            arguments,
            lambda answer: reached(target, answer) if reached else target.secret in str(answer.get("text", "")),
        )
    finally:
        target.close()


def handle_of(path: str) -> tuple[str, int]:
    """Return the handle by which the file system knows a file, as hexadecimal digits, and its type. See: name_to_handle_at(2)."""
    buffer = ctypes.create_string_buffer(8 + 128)
    ctypes.memmove(buffer, (128).to_bytes(4, sys.byteorder), 4)
    mount_id = ctypes.c_int()
    result = ctypes.CDLL(None, use_errno=True).name_to_handle_at(-100, path.encode(), buffer, ctypes.byref(mount_id), 0)
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), path)
    length = int.from_bytes(buffer.raw[:4], sys.byteorder)
    return buffer.raw[8 : 8 + length].hex(), int.from_bytes(buffer.raw[4:8], sys.byteorder)


def descriptors_of(mark: str) -> list[str] | None:
    """Return what the process named ``mark`` has open, seen from the host; None if the host's user may not look."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if (folder / "comm").read_text().strip() == mark:
                return [os.readlink(entry) for entry in (folder / "fd").iterdir()]
        except PermissionError:
            return None
        except OSError:
            continue
    return None


@contextmanager
def sender(send: Callable[[], object]) -> Iterator[None]:
    """Let a thread send all the time while the attack goes on."""
    stop = threading.Event()

    def repeat() -> None:
        while not stop.wait(0.02):
            send()

    thread = threading.Thread(target=repeat)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def is_setuid_of(path: Path, uid: int) -> bool:
    """Tell whether ``path`` is a program that makes whoever starts it ``uid``."""
    try:
        status = path.lstat()
    except OSError:
        return False
    return bool(status.st_mode & stat.S_ISUID) and status.st_uid == uid


def mapping(**values: Any) -> Mapping[str, Any]:
    """Return the values as a mapping."""
    return values

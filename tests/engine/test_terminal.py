"""Terminals over the wire: their size, and the keys that leave a container alone."""

from __future__ import annotations

import hashlib
import socket
import time

import docker
import pytest

from tests.engine.support import IMAGE, Daemon
from tests.support import requires

pytestmark = requires("program:busybox", "userns")


def attach(daemon: Daemon, identity: str, query: str) -> socket.socket:
    """Return the hijacked connection to a container, its head read."""
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(15)
    sock.connect(str(daemon.socket))
    path = f"/containers/{identity}/attach?stream=1&stdin=1&stdout=1&stderr=1{query}"
    sock.sendall(f"POST {path} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n".encode())
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += sock.recv(1)
    assert b" 101 " in head
    return sock


def read_until(sock: socket.socket, wanted: bytes) -> bytes:
    """Read until ``wanted`` has come, or the end."""
    data = b""
    while wanted not in data:
        piece = sock.recv(4096)
        if not piece:
            break
        data += piece
    return data


@pytest.mark.parametrize(("query", "keys"), [("", b"\x10\x11"), ("&detachKeys=ctrl-a,q", b"\x01q")])
def test_the_detach_keys_end_the_attachment_and_not_the_program(
    daemon: Daemon, client: docker.DockerClient, query: str, keys: bytes
) -> None:
    container = client.containers.create(IMAGE, ["cat"], tty=True, stdin_open=True)
    with attach(daemon, str(container.id), query) as sock:
        container.start()
        sock.sendall(b"before\n")
        assert b"before" in read_until(sock, b"before\r\nbefore")
        sock.sendall(keys[:1])
        time.sleep(0.05)
        sock.sendall(keys[1:])
        assert read_until(sock, b"never") == b""  # the end of the stream, and none of the keys
    container.reload()
    assert container.status == "running"
    with attach(daemon, str(container.id), query) as sock:
        sock.sendall(b"again\n")
        seen = read_until(sock, b"again\r\nagain")
    assert b"again" in seen
    assert b"^P" not in seen
    assert b"^A" not in seen


def test_keys_that_only_begin_like_the_detach_keys_reach_the_program(
    daemon: Daemon, client: docker.DockerClient
) -> None:
    script = "stty raw -echo; echo ready; head -c 3 | md5sum; sleep 60"
    container = client.containers.create(IMAGE, ["sh", "-c", script], tty=True, stdin_open=True)
    with attach(daemon, str(container.id), "") as sock:
        container.start()
        read_until(sock, b"ready")
        sock.sendall(b"\x10\x10x")
        assert hashlib.md5(b"\x10\x10x").hexdigest().encode() in read_until(sock, b" -")


def test_a_terminal_gets_the_size_that_it_is_given_at_once_and_later(client: docker.DockerClient) -> None:
    script = "trap 'stty size' WINCH; stty size; while :; do sleep 0.05; done"
    container = client.containers.run(IMAGE, ["sh", "-c", script], tty=True, detach=True)

    def sizes() -> list[bytes]:
        return list(container.logs().split(b"\r\n")[:-1])

    deadline_s = time.monotonic() + 15
    while not sizes() and time.monotonic() < deadline_s:
        time.sleep(0.02)
    container.resize(41, 137)
    while b"41 137" not in sizes() and time.monotonic() < deadline_s:
        time.sleep(0.02)
    assert sizes()[-1] == b"41 137"
    made = client.api.exec_create(container.id, ["sh", "-c", "sleep 0.5; stty size"], tty=True)["Id"]
    stream = client.api.exec_start(made, tty=True, stream=True)
    client.api.exec_resize(made, height=33, width=99)
    assert b"".join(stream) == b"33 99\r\n"

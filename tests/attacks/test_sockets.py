"""The one way between the server and the sandbox: the folder of the kernel's sockets. Can it be bent to lead the server elsewhere?

The student is root of the mount namespace in which that folder lies. So a program may mount something over it, and put links in.
"""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import zmq

from tests.attacks.harness import wait_until
from tests.attacks.kernels import SandboxedKernel, requires_sandbox

pytestmark = [requires_sandbox, pytest.mark.timeout(200)]
_COVER = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
result = libc.mount(b"none", b"/run/jupyter", b"tmpfs", 0, None)
for number in range(1, 6):
    os.symlink({path!r}, f"/run/jupyter/k-{{number}}")
print(result, os.listdir("/run/jupyter"))
"""
_REPLACE = """
import os
for number in range(1, 6):
    os.rename(f"/run/jupyter/k-{{number}}", f"/run/jupyter/old-{{number}}")
    os.symlink({path!r}, f"/run/jupyter/k-{{number}}")
print(os.listdir("/run/jupyter"))
"""


@contextmanager
def service_of_the_host() -> Iterator[tuple[str, socket.socket]]:
    """A service at a path that only the host has."""
    path = f"/tmp/labkit-{secrets.token_hex(6)}.sock"
    with socket.socket(socket.AF_UNIX) as service:
        service.bind(path)
        service.listen()
        service.setblocking(False)
        try:
            yield path, service
        finally:
            os.unlink(path)


def was_called(service: socket.socket) -> bool:
    """Tell whether somebody has connected."""
    try:
        service.accept()[0].close()
    except BlockingIOError:
        return False
    return True


def test_without_the_sandbox_a_link_in_the_place_of_a_socket_leads_on(tmp_path: Path) -> None:
    with service_of_the_host() as (path, service), zmq.Context() as context:
        (tmp_path / "k-1").symlink_to(path)
        with context.socket(zmq.DEALER) as client:
            client.linger = 0
            client.connect(f"ipc://{tmp_path}/k-1")
            assert wait_until(lambda: was_called(service))


@pytest.mark.parametrize("trick", [_COVER, _REPLACE], ids=["something mounted over the folder", "links in the folder"])
def test_no_link_leads_the_server_to_a_service_of_the_host(trick: str, tmp_path: Path) -> None:
    kernel = SandboxedKernel(tmp_path)
    try:
        with service_of_the_host() as (path, service):
            said = kernel.run(trick.format(path=path))
            assert "k-1" in said and not said.startswith("-1")
            client = kernel.manager.blocking_client()
            client.start_channels()
            called = wait_until(lambda: was_called(service), timeout_s=2)
            client.stop_channels()
            assert not called, said
    finally:
        kernel.close()

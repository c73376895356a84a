"""The engine of an ordinary user: the same engine, as root of a user namespace that holds nothing but this user's ids.

Before anything else the process enters a user, a mount and a network namespace of its own. From there on it has every right
over what belongs to these namespaces, and no more rights over the machine than the user has; all other code stays as it is. Towards the world
the network namespace is joined by ``slirp4netns`` or ``pasta``, programs that speak TCP/IP in user space; without either, containers reach
each other and the engine only.

Leaves out: publishing ports at the machine's own addresses (they are published inside the engine's network namespace).
See: user_namespaces(7), slirp4netns(1), pasta(1), `labkit.container.resident`.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from labkit.container.resident import become_namespace_root
from labkit.errors import FeatureMissing
from labkit.isolation.capabilities import parse_capabilities
from labkit.isolation.network import set_loopback_up
from labkit.linux.constants import NS, Prctl
from labkit.linux.syscalls import capget, prctl, unshare
from labkit.setup.parts import find_program

__all__ = ["become_root_of_own", "is_needed"]

log = logging.getLogger(__name__)

_READY_S = 5.0


def is_needed() -> bool:
    """Tell whether this process lacks the rights that an engine needs."""
    effective, _, _ = capget()
    needed = parse_capabilities(["SYS_ADMIN", "NET_ADMIN", "SETUID", "SETGID", "CHOWN"])
    return effective & needed != needed


def become_root_of_own(runtime_folder: str) -> Callable[[], None]:
    """Enter namespaces of this process's own, with a network that reaches the world if a program for that is installed.

    Must be called while the process has one thread. ``runtime_folder`` is where things of running containers are kept from
    here on. Return what ends the program that connects the network. Raises: FeatureMissing where the machine forbids user namespaces.
    """
    go_r, go_w = os.pipe()
    helper_pid = os.fork()
    if helper_pid == 0:
        os.close(go_w)
        _connect_parent(go_r)
    os.close(go_r)
    try:
        become_namespace_root()
        unshare(NS.NET)
    except OSError as error:
        os.kill(helper_pid, signal.SIGKILL)
        os.waitpid(helper_pid, 0)
        raise FeatureMissing(
            f"An ordinary user's engine needs a user namespace, which was refused ({error.strerror}).",
            remedy="Run `labkit doctor`: it names the rule that refuses and what to do.",
        ) from error
    set_loopback_up()
    os.write(go_w, b"1")
    os.close(go_w)
    _wait_for_interface()
    for folder in (os.path.dirname(runtime_folder), runtime_folder):
        os.makedirs(folder, 0o700, exist_ok=True)
    os.environ["XDG_RUNTIME_DIR"] = runtime_folder

    def end() -> None:
        with suppress(ProcessLookupError):
            os.kill(helper_pid, signal.SIGKILL)
        with suppress(ChildProcessError):
            os.waitpid(helper_pid, 0)

    return end


def _connect_parent(go_fd: int) -> None:
    """In a child that stays outside: become the program that joins the parent's network namespace with the machine's."""
    pid = os.getppid()
    prctl(Prctl.SET_PDEATHSIG, signal.SIGKILL)
    if not os.read(go_fd, 1) or os.getppid() != pid:
        os._exit(0)
    null = os.open(os.devnull, os.O_RDWR)
    for number in range(3):
        os.dup2(null, number)
    slirp, pasta = find_program("slirp4netns"), find_program("pasta")
    with suppress(OSError):
        if slirp is not None:
            options = ["--configure", "--mtu=65520", "--disable-host-loopback", str(pid), "tap0"]
            os.execv(slirp, [str(slirp), *options])
        if pasta is not None:
            os.execv(
                pasta, [str(pasta), "--foreground", "--config-net", "--quiet", "-t", "none", "-u", "none", str(pid)]
            )
    os._exit(0)


def _wait_for_interface() -> None:
    """Give the program a moment; an engine without a way out is an engine all the same."""
    deadline_s = time.monotonic() + _READY_S
    while time.monotonic() < deadline_s:
        if len(socket.if_nameindex()) > 1 or _children() == 0:
            return
        time.sleep(0.02)


def _children() -> int:
    with suppress(OSError):
        return len(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())
    return 0

"""The network inside: interfaces of a network namespace, and the loopback interface that has to be switched on.

A new network namespace has one interface, ``lo``, and it is down: not even 127.0.0.1 answers. Bringing it up is one
ioctl(2), which needs CAP_NET_ADMIN in the user namespace that owns the network namespace.

Run ``python -m labkit.isolation.network`` to see a connection to 127.0.0.1 refused by an unreachable network, and then made.

Leaves out: bridges, veth pairs, addresses and routes, for which netlink (pyroute2) is needed.
See: network_namespaces(7), netdevice(7).
"""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import sys
from dataclasses import dataclass

from labkit.linux.constants import NS
from labkit.linux.syscalls import unshare

__all__ = ["Interface", "interfaces", "set_loopback_up"]

# linux/sockios.h
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _SIOCGIFADDR, _SIOCGIFMTU = 0x8913, 0x8914, 0x8915, 0x8921
# net/if.h
_IFF_UP, _IFF_LOOPBACK = 0x1, 0x8


@dataclass(frozen=True, slots=True)
class Interface:
    """A network interface as the caller's network namespace shows it; ``address`` is its first IPv4 address, or None."""

    name: str
    index: int
    up: bool
    loopback: bool
    mtu_bytes: int
    address: str | None


def interfaces() -> list[Interface]:
    """Return the interfaces of the caller's network namespace. Witness: ``ip address``."""
    with _any_socket() as asker:
        return [_look_at(asker, index, name) for index, name in socket.if_nameindex()]


def set_loopback_up() -> None:
    """Switch ``lo`` on in the caller's network namespace; it then has 127.0.0.1 and ::1. Does nothing if it is up.

    Raises: PermissionError without CAP_NET_ADMIN in the owner of the network namespace. See: netdevice(7).
    """
    with _any_socket() as asker:
        flags = _flags(asker, "lo")
        if not flags & _IFF_UP:
            fcntl.ioctl(asker, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", flags | _IFF_UP))


def _any_socket() -> socket.socket:
    # These ioctls are asked on any socket; a datagram socket of the machine's own family costs nothing.
    return socket.socket(socket.AF_INET, socket.SOCK_DGRAM)


def _ask(asker: socket.socket, request: int, name: str) -> bytes:
    # ABI: struct ifreq is 40 bytes: 16 of name, then a union.
    return fcntl.ioctl(asker, request, struct.pack("16s24x", os.fsencode(name)))[16:]


def _flags(asker: socket.socket, name: str) -> int:
    return int(struct.unpack_from("=h", _ask(asker, _SIOCGIFFLAGS, name))[0])


def _look_at(asker: socket.socket, index: int, name: str) -> Interface:
    flags = _flags(asker, name)
    mtu_bytes = struct.unpack_from("=i", _ask(asker, _SIOCGIFMTU, name))[0]
    try:
        # ABI: struct sockaddr_in: family and port, then the address.
        address = socket.inet_ntoa(_ask(asker, _SIOCGIFADDR, name)[4:8])
    except OSError:
        address = None  # EADDRNOTAVAIL: it has none
    return Interface(name, index, bool(flags & _IFF_UP), bool(flags & _IFF_LOOPBACK), mtu_bytes, address)


def _try_connection() -> str:
    with socket.socket() as server, socket.socket() as client:
        try:
            server.bind(("127.0.0.1", 0))
            server.listen()
            client.settimeout(1.0)
            client.connect(server.getsockname())
        except OSError as error:
            return f"connecting to 127.0.0.1 fails: {error.strerror or error}"
    return "connecting to 127.0.0.1 works"


def _demonstrate() -> None:
    print(f"this machine:   {', '.join(item.name for item in interfaces())}")
    # A user namespace too, so that an ordinary user may do it.
    unshare(NS.USER | NS.NET)
    print(f"new namespace:  {interfaces()}\n                {_try_connection()}")
    set_loopback_up()
    print(f"after lo is up: {interfaces()}\n                {_try_connection()}")


def main() -> None:
    """Show in a child process what a new network namespace has and what it lacks."""
    pid = os.fork()
    if pid:
        os.waitpid(pid, 0)
        return
    try:
        _demonstrate()
    except OSError as error:
        print(f"this machine refuses: {error}. `labkit doctor` says which rule and what to do.")
    finally:
        sys.stdout.flush()
        os._exit(0)


if __name__ == "__main__":
    main()

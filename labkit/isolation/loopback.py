"""The loopback interface of a new network namespace: there, and down until somebody brings it up.

``ip link set lo up`` in two system calls, as steps for a container's child. The kernel gives 127.0.0.1 and ::1 by itself.

Leaves out: every other interface.
See: netdevice(7) (SIOCSIFFLAGS), network_namespaces(7).
"""

from __future__ import annotations

import os
import socket
import struct

from labkit.linux.constants import NS
from labkit.linux.fds import Place
from labkit.linux.steps import Step, kept, perform

__all__ = ["loopback_up"]

_SIOCSIFFLAGS = 0x8914  # linux/sockios.h
_IFF_UP, _IFF_RUNNING = 0x1, 0x40  # linux/if.h


@kept
def loopback_up() -> list[Step]:
    """Bring ``lo`` up in the caller's network namespace; refused with EPERM without CAP_NET_ADMIN there."""
    why = "bring the loopback interface up"
    # ABI: struct ifreq, linux/if.h: 16 bytes of name, then a union of which 2 bytes are flags.
    request = struct.pack("16sH22x", b"lo", _IFF_UP | _IFF_RUNNING)
    return [
        Step("socket", (socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC, 0), why, result_to_next=True),
        Step("dup3", (0, Place.SOCKET, os.O_CLOEXEC), why),
        Step("ioctl", (Place.SOCKET, _SIOCSIFFLAGS, request), why),
    ]


def main() -> int:
    """Show in a child with a new network namespace that 127.0.0.1 answers only when ``lo`` is up."""
    from labkit.isolation.demonstration import in_child

    def answer() -> str:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
            try:
                one.sendto(b"x", ("127.0.0.1", 9))
            except OSError as error:
                return error.strerror or str(error)
        return "sent"

    def demonstrate() -> None:
        print(f"a new network namespace: a packet to 127.0.0.1: {answer()}")
        for step in loopback_up():
            print(f"  {step}")
        perform(loopback_up())
        print(f"with lo up:              a packet to 127.0.0.1: {answer()}")

    return in_child(demonstrate, NS.NET)


if __name__ == "__main__":
    raise SystemExit(main())

"""The loopback interface of a new network namespace: there, and down until somebody brings it up.

``ip link set lo up`` in two system calls, as steps for a container's child. The kernel gives 127.0.0.1 and ::1 by itself.

Leaves out: every other interface.
See: netdevice(7) (SIOCSIFFLAGS), network_namespaces(7).
"""

from __future__ import annotations

import os
import socket
import struct

from labkit.linux.fds import Place
from labkit.linux.steps import Step, kept

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

"""Capabilities: root's power, cut into pieces.

A thread has five sets: *permitted* (what it may use), *effective* (what it uses now), *inheritable* and *ambient* (what
survives execve), and *bounding* (what it can ever get). Dropping a capability from the bounding set is for good; that is
how a container's root stays weaker than root. In a user namespace all of them count only against things that
the namespace owns.

Leaves out: file capabilities; securebits.
See: capabilities(7), user_namespaces(7).
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Callable, Iterable
from functools import lru_cache
from pathlib import Path

from labkit.errors import InvalidSpec
from labkit.linux.constants import NS, Capability, Prctl
from labkit.linux.steps import Step, kept, perform
from labkit.linux.syscalls import prctl

__all__ = [
    "DOCKER_DEFAULT",
    "bounding_set",
    "last_capability",
    "limit_bounding_set",
    "names_of",
    "parse_capabilities",
    "set_capabilities",
]

#: The fourteen capabilities that Docker leaves to a container's root (mask 00000000a80425fb).
DOCKER_DEFAULT: tuple[str, ...] = (
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
)


def parse_capabilities(names: Iterable[str]) -> int:
    """Return the bit mask of ``names``: ``CAP_KILL`` or ``kill``; ``ALL`` is every one that labkit knows.

    Raises: InvalidSpec for an unknown name.
    """
    return _parse(tuple(names))


@lru_cache(maxsize=32)
def _parse(names: tuple[str, ...]) -> int:
    mask = 0
    for name in names:
        upper = name.upper()
        if upper in ("ALL", "CAP_ALL"):
            return sum(1 << capability for capability in Capability)
        full = upper if upper.startswith("CAP_") else f"CAP_{upper}"
        if full not in Capability.__members__:
            raise InvalidSpec(f"{name!r} is no capability: see capabilities(7) for the names, as in CAP_NET_RAW.")
        mask |= 1 << Capability[full]
    return mask


def names_of(mask: int) -> tuple[str, ...]:
    """Return the names of the capabilities in ``mask``, lowest bit first."""
    return tuple(capability.name for capability in Capability if mask >> capability & 1)


def last_capability() -> int:
    """Return the number of the highest capability that the running kernel has."""
    return int(Path("/proc/sys/kernel/cap_last_cap").read_text())


def bounding_set() -> int:
    """Return the caller's bounding set as a bit mask, read back one capability at a time from prctl(2)."""
    return sum(1 << n for n in range(last_capability() + 1) if prctl(Prctl.CAPBSET_READ, n))


@kept
def limit_bounding_set(mask: int, *, last: int) -> list[Step]:
    """Drop every capability outside ``mask`` from the bounding set, for good; ``last`` as `last_capability` gives it."""
    return [
        Step("prctl", (Prctl.CAPBSET_DROP, number, 0, 0, 0), "drop capabilities from the bounding set")
        for number in range(last + 1)
        if not mask >> number & 1
    ]


@kept
def set_capabilities(mask: int) -> list[Step]:
    """Make ``mask`` the permitted and effective set, inheritable empty; refused with EPERM if a set would grow."""
    # ABI: struct __user_cap_header_struct and two __user_cap_data_struct, linux/capability.h, version 3.
    header = struct.pack("<Ii", 0x2008_0522, 0)
    data = b"".join(struct.pack("<3I", word, word, 0) for word in (mask & 0xFFFF_FFFF, mask >> 32))
    return [Step("capset", (header, data), "drop capabilities")]


def _try_both() -> None:
    file = os.memfd_create("labkit-owned")
    attempts: dict[str, Callable[[], object]] = {
        "set the host name (CAP_SYS_ADMIN)": lambda: socket.sethostname("labkit"),
        "change a file's owner (CAP_CHOWN)": lambda: os.chown(file, 0, 1),
    }
    for what, attempt in attempts.items():
        try:
            attempt()
        except OSError as error:
            print(f"  {what}: {error.strerror}")
        else:
            print(f"  {what}: allowed")
    os.close(file)


def _demonstrate() -> None:
    print(f"root of a new user namespace has {bounding_set().bit_count()} capabilities:")
    _try_both()
    keep = parse_capabilities(DOCKER_DEFAULT)
    perform(limit_bounding_set(keep, last=last_capability()) + set_capabilities(keep))
    print(f"with the {bounding_set().bit_count()} that Docker leaves ({keep:016x}):")
    _try_both()


def main() -> int:
    """Show in a child what root may do with all capabilities, and with those that Docker leaves."""
    from labkit.isolation.demonstration import in_child

    print(", ".join(DOCKER_DEFAULT))
    return in_child(_demonstrate, NS.UTS)


if __name__ == "__main__":
    raise SystemExit(main())

"""A bridge with cables to containers, made step by step for a lesson: what the engine does when it makes a network.

Netlink is spoken in a thread of its own, because pyroute2 runs an event loop, and a notebook has one already.

See: `labkit.engine.network.links`; veth(4), bridge(8).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv4Address, IPv4Interface
from types import TracebackType
from typing import TypeVar

from labkit.engine.network.links import Links, Plug

__all__ = ["Bridge"]

T = TypeVar("T")


class Bridge:
    """A bridge of one's own with the address ``interface`` (as in ``10.77.0.1/24``); a context manager that removes it.

    Raises: FeatureMissing, OSError.
    """

    def __init__(self, name: str, interface: str) -> None:
        self.name = name
        self.interface = IPv4Interface(interface)
        self._links = Links()
        self._plugs = 0
        _in_thread(lambda: self._links.make_bridge(name, self.interface.ip, self.interface.network.prefixlen))

    def plug(self, pid: int, address: str) -> None:
        """Lay a cable from the bridge into the network namespace of process ``pid``; its end there is ``eth0``. Raises: OSError."""
        self._plugs += 1
        number = self._plugs
        end = Plug(
            f"{self.name}-{number}", "eth0", f"02:4c:4b:00:00:{number:02x}", IPv4Address(address),
            self.interface.network.prefixlen, self.interface.ip,
        )  # fmt: skip
        net_fd = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            _in_thread(lambda: self._links.plug(self.name, net_fd, end))
        finally:
            os.close(net_fd)

    def close(self) -> None:
        """Remove the bridge and what hangs on it; safe to call twice."""
        _in_thread(self._remove)

    def _remove(self) -> None:
        for number in range(1, self._plugs + 1):
            self._links.remove(f"{self.name}-{number}")
        self._links.remove(self.name)
        self._links.close()

    def __enter__(self) -> Bridge:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _in_thread(what: Callable[[], T]) -> T:
    with ThreadPoolExecutor(1, thread_name_prefix="labkit-netlink") as pool:
        return pool.submit(what).result()

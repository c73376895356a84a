"""Links: the kernel's side of a network: a bridge, and a veth pair for each container.

A *bridge* is a switch in the kernel. A *veth pair* is a cable: what goes in at one end comes out at the other. One end is plugged into
the bridge, the other is born inside the container's network namespace, where it is called ``eth0``. All of it is asked for
over rtnetlink, with pyroute2.

What has to be done inside the namespace is done by a thread that joins it, for that one thread alone, and ends.

See: veth(4), bridge(8), rtnetlink(7), setns(2).
"""

from __future__ import annotations

import errno
import socket
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import Any, TypeVar

from labkit.engine.network.netlink import load_routing_only
from labkit.errors import FeatureMissing, LabkitError
from labkit.linux.constants import NS
from labkit.linux.syscalls import setns

__all__ = ["Links", "Plug", "in_namespace"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Plug:
    """One end in a container: the host end's name, the name inside, and the addresses."""

    host_name: str
    inner_name: str
    mac: str
    address: IPv4Address
    prefix: int
    gateway: IPv4Address | None

    @property
    def broadcast(self) -> IPv4Address:
        """The address of everybody in the network."""
        return IPv4Network(f"{self.address}/{self.prefix}", strict=False).broadcast_address


def in_namespace(net_fd: int, what: Callable[[], T]) -> T:
    """Return what ``what`` returns, called by a thread that has joined the network namespace ``net_fd``. Raises: OSError."""
    answer: Future[T] = Future()

    def work() -> None:
        try:
            setns(net_fd, NS.NET)
            answer.set_result(what())
        except (OSError, LabkitError) as error:
            answer.set_exception(error)

    thread = threading.Thread(target=work, name="in a namespace")
    thread.start()
    thread.join()
    return answer.result()


class Links:
    """Makes and removes interfaces in the engine's own network namespace; safe to use from several threads.

    ``routing_only`` is for a process that uses pyroute2 for nothing else (see `labkit.engine.network.netlink`).
    """

    def __init__(self, *, routing_only: bool = False) -> None:
        self._routing_only = routing_only
        self._lock = threading.RLock()
        self._route: Any = None
        # pyroute2 opens a socket for every thread that speaks, and keeps it: so one thread speaks for all.
        self._speaker = ThreadPoolExecutor(1, "netlink")

    def _ask(self, what: Callable[[Any], T]) -> T:
        return self._speaker.submit(lambda: self._speak(what)).result()

    def _speak(self, what: Callable[[Any], T]) -> T:
        if self._routing_only:
            load_routing_only()
        from pyroute2.iproute import IPRoute  # late: it takes its time
        from pyroute2.netlink.exceptions import NetlinkError

        if self._route is None:
            self._route = IPRoute()
        try:
            return what(self._route)
        except NetlinkError as error:
            raise OSError(error.code, str(error)) from error

    def subnets(self) -> list[IPv4Network]:
        """Return the networks that the machine's routes and interfaces already use."""

        def look(route: Any) -> list[IPv4Network]:
            found = []
            for entry in route.get_routes(family=socket.AF_INET):
                destination = entry.get_attr("RTA_DST")
                if destination and entry["dst_len"] >= 8:
                    found.append(IPv4Network(f"{destination}/{entry['dst_len']}", strict=False))
            return [net for net in found if not net.is_loopback]

        return self._ask(look)

    def exists(self, name: str) -> bool:
        """Tell whether there is an interface of that name (/sys may show another namespace's)."""
        return any(known == name for _, known in socket.if_nameindex())

    def make_bridge(self, name: str, gateway: IPv4Address, prefix: int, *, owner: str = "labkit") -> None:
        """Make the bridge, with the gateway's address, and switch it on; one that is there is used. Raises: FeatureMissing.

        ``owner`` is written to it as its alias, by which `bridges_of` finds it again.
        """
        with self._lock:
            if self.exists(name):
                return
            try:
                self._ask(lambda route: route.link("add", ifname=name, kind="bridge"))
                index = socket.if_nametoindex(name)
                self._ask(lambda route: route.addr("add", index=index, address=str(gateway), prefixlen=prefix))
                self._ask(lambda route: route.link("set", index=index, state="up", ifalias=owner))
            except OSError as error:
                self.remove(name)
                if error.errno in (errno.EPERM, errno.EOPNOTSUPP):
                    raise FeatureMissing(
                        f"A bridge cannot be made here ({error.strerror or error}).",
                        remedy="Start the engine as root, or let it make its own network namespace; --network none works.",
                    ) from error
                raise

    def bridges_of(self, owner: str) -> list[str]:
        """Return the names of the interfaces that ``owner`` has made."""
        if not any(name.startswith("labkit-") for _, name in socket.if_nameindex()):
            return []
        links = self._ask(lambda route: list(route.get_links()))
        return [str(link.get_attr("IFLA_IFNAME")) for link in links if link.get_attr("IFLA_IFALIAS") == owner]

    def remove(self, name: str) -> None:
        """Remove an interface (with a veth end its other end goes, too); nothing happens if there is none."""
        with suppress(OSError):
            index = socket.if_nametoindex(name)
            self._ask(lambda route: route.link("del", index=index))

    def plug(self, bridge: str, net_fd: int, plug: Plug) -> None:
        """Connect the network namespace ``net_fd`` to ``bridge``, with the address, and its default route if it has a gateway."""
        index = socket.if_nametoindex(bridge)
        peer = {"ifname": plug.inner_name, "net_ns_fd": net_fd, "address": plug.mac}
        self._ask(
            lambda route: route.link("add", ifname=plug.host_name, kind="veth", peer=peer, master=index, state="up")
        )
        try:
            in_namespace(net_fd, lambda: _set_up_inside(plug))
        except OSError:
            self.remove(plug.host_name)
            raise

    def close(self) -> None:
        """Close the netlink socket."""
        if self._route is not None:
            self._speaker.submit(self._route.close).result()
            self._route = None
        self._speaker.shutdown()


def _set_up_inside(plug: Plug) -> None:
    from pyroute2.iproute import IPRoute
    from pyroute2.netlink.exceptions import NetlinkError

    try:
        with IPRoute() as route:
            _set_up(route, plug)
    except NetlinkError as error:
        raise OSError(error.code, str(error)) from error


def _set_up(route: Any, plug: Plug) -> None:
    route.link("set", index=socket.if_nametoindex("lo"), state="up")
    index = socket.if_nametoindex(plug.inner_name)
    route.addr("add", index=index, address=str(plug.address), prefixlen=plug.prefix, broadcast=str(plug.broadcast))
    route.link("set", index=index, state="up")
    if plug.gateway is not None:
        with suppress_exists():
            route.route("add", gateway=str(plug.gateway))


class suppress_exists:
    """Lets pass that the default route is there already: a container in two networks keeps its first one."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> bool:
        return getattr(error, "code", None) == errno.EEXIST

"""The networks of one engine, and the containers' places in them.

A container's place (*endpoint*) is reserved before its start (`prepare`), made while its namespaces are there and its program is
not (`connect_all`), and given back at its end (`release`). Bridges are made when the first container needs them.

See: Docker Engine API, "Networks"; docker-network-connect(1).
"""

from __future__ import annotations

import logging
import os
import secrets
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

from labkit.engine.keeper.logfile import timestamp
from labkit.engine.network.addresses import lowest_free, mac_of, parse_ipam
from labkit.engine.network.known import KnownNetworks
from labkit.engine.network.links import Links, Plug, in_namespace
from labkit.engine.network.names import Names
from labkit.engine.network.nat import Nat
from labkit.engine.network.ports import Ports
from labkit.engine.network.record import Network, parse_create, parse_endpoint
from labkit.engine.objects.events import Events
from labkit.engine.objects.record import Container
from labkit.engine.objects.registry import Registry
from labkit.engine.wire.errors import ApiError, BadParameter, Conflict

__all__ = ["Networks"]

log = logging.getLogger(__name__)


class Networks:
    """Every network below ``folder``; safe to use from several threads."""

    def __init__(self, folder: str, containers: Registry, events: Events) -> None:
        self._containers, self._events = containers, events
        self._lock = threading.RLock()
        self._known = KnownNetworks(folder)
        self._links, self._ports = Links(routing_only=True), Ports()
        self.names = Names(containers, self.find)
        self._owner = f"labkit_{self.find('host').id[:8]}"
        self._nat = Nat(self._owner)
        self._remove_unknown_bridges()

    def _remove_unknown_bridges(self) -> None:
        """Remove the bridges of networks that a killed engine was just removing."""
        known = {network.bridge for network in self._known.all()}
        for name in self._links.bridges_of(self._owner):
            if name not in known:
                self._links.remove(name)

    # -- networks -----------------------------------------------------------------------------------------------------

    def all(self) -> list[Network]:
        """Return every network, the oldest first."""
        return self._known.all()

    def find(self, text: str) -> Network:
        """Return the network that ``text`` means: a name, an id, the beginning of an id. Raises: NotFound, BadParameter."""
        return self._known.find(text)

    def create(self, body: Mapping[str, Any]) -> Network:
        """Make a network. Raises: BadParameter, Conflict for its name, ApiError for what is not offered."""
        given = parse_create(body)
        name, driver = given["Name"], given.get("Driver") or "bridge"
        if driver != "bridge":
            raise ApiError(f"could not find plugin {driver} in v1 plugin registry: plugin not found", status=404)
        if given.get("EnableIPv6"):
            raise ApiError("IPv6 networks are not offered by this engine", status=501)
        with self._lock:
            if self._known.has_name(name):
                raise Conflict(f"network with name {name} already exists")
            subnet, gateway, chosen = parse_ipam(given["Config"], self._taken())
            network = Network(
                secrets.token_hex(32), name, timestamp(time.time_ns()), driver, str(subnet), str(gateway), chosen,
                bool(given.get("Internal")), bool(given.get("Attachable")), given.get("Labels") or {}, given.get("Options") or {},
            )  # fmt: skip
            self._known.save(network)
        self._events.say("network", "create", network.id, {"name": name, "type": driver})
        return network

    def _taken(self) -> list[IPv4Network]:
        own = [IPv4Network(network.subnet) for network in self._known.all() if network.subnet]
        return [*own, *self._links.subnets()]

    def remove(self, network: Network) -> None:
        """Remove a network. Raises: ApiError with 403 while containers are in it, or for a predefined one."""
        if network.is_predefined:
            raise ApiError(f"{network.name} is a pre-defined network and cannot be removed", status=403)
        with self._lock:
            if self.members(network):
                raise ApiError(
                    f"error while removing network: network {network.name} id {network.id} has active endpoints",
                    status=403,
                )
            self._known.forget(network)
            self._links.remove(network.bridge)
            self._write_nat()
        self._events.say("network", "destroy", network.id, {"name": network.name, "type": network.driver})

    def members(self, network: Network) -> dict[str, dict[str, Any]]:
        """Return the containers that run in the network, as the API shows them."""
        found = {}
        for container, endpoint in self._endpoints(network):
            if container.state.is_running and endpoint["IPAddress"]:
                found[container.id] = {
                    "Name": container.name, "EndpointID": endpoint["EndpointID"], "MacAddress": endpoint["MacAddress"],
                    "IPv4Address": f"{endpoint['IPAddress']}/{endpoint['IPPrefixLen']}", "IPv6Address": "",
                }  # fmt: skip
        return found

    def users(self, network: Network) -> list[Container]:
        """Return the containers, running or not, that belong to the network."""
        return [container for container, _ in self._endpoints(network)]

    def _endpoints(self, network: Network) -> Iterator[tuple[Container, dict[str, Any]]]:
        for container in self._containers.all():
            for name, endpoint in list(container.endpoints.items()):
                if name in (network.name, network.id):
                    yield container, endpoint

    # -- endpoints ----------------------------------------------------------------------------------------------------

    def parse_endpoints(self, networking: Mapping[str, Any], mode: str) -> dict[str, dict[str, Any]]:
        """Return a new container's places by network, from a create request. Raises: BadParameter."""
        asked = {} if networking.get("EndpointsConfig") is None else networking["EndpointsConfig"]
        if not isinstance(asked, dict) or not all(value is None or isinstance(value, dict) for value in asked.values()):
            raise BadParameter("invalid JSON: EndpointsConfig must be an object of objects")
        if mode.startswith("container:"):
            raise ApiError("joining another container's network is not offered by this engine", status=501)
        main = "bridge" if mode == "default" else mode
        if main in ("none", "host") and any(name not in (main, "default") for name in asked):
            raise BadParameter(
                "conflicting options: cannot attach both user-defined and non-user-defined network-modes"
            )
        endpoints = {main: parse_endpoint(asked.get(main) or asked.get(mode))}
        endpoints |= {name: parse_endpoint(value) for name, value in asked.items() if name not in (main, mode)}
        return endpoints

    def prepare(self, container: Container) -> dict[str, list[str]]:
        """Reserve the container's addresses; return them, each with what it is called besides. Raises: NotFound, ApiError."""
        addresses: dict[str, list[str]] = {}
        for name, endpoint in container.endpoints.items():
            network = self.find(name)
            if network.driver == "bridge":
                self._reserve(container, network, endpoint)
                addresses[endpoint["IPAddress"]] = []
            endpoint["NetworkID"] = network.id
            endpoint["EndpointID"] = secrets.token_hex(32)
        return addresses

    def _reserve(self, container: Container, network: Network, endpoint: dict[str, Any]) -> None:
        wanted = (endpoint["IPAMConfig"] or {}).get("IPv4Address") or ""
        if wanted and not network.user_subnet:
            raise BadParameter(
                "user specified IP address is supported only when connecting to networks with user configured subnets"
            )
        if network.is_predefined and endpoint["Aliases"]:
            raise BadParameter("network-scoped alias is supported only for containers in user defined networks")
        with self._lock:
            self._ensure_bridge(network)
            subnet = IPv4Network(network.subnet)
            used = {
                IPv4Address(e["IPAddress"]) for _, e in self._endpoints(network) if e["IPAddress"] and e is not endpoint
            }
            address = lowest_free(subnet, {*used, network.gateway_address}, wanted)
            is_main = endpoint is next(iter(container.endpoints.values()))
            mac = (container.config.get("MacAddress") if is_main else "") or mac_of(address)
            endpoint.update(
                IPAddress=str(address), IPPrefixLen=subnet.prefixlen, MacAddress=mac,
                Gateway="" if network.internal else network.gateway,
            )  # fmt: skip
            if not network.is_predefined:
                names = [container.name, *(endpoint["Aliases"] or []), container.short_id]
                endpoint["DNSNames"] = list(dict.fromkeys(names))

    def _ensure_bridge(self, network: Network) -> None:
        if not network.subnet:
            subnet, gateway, _ = parse_ipam((), self._taken())
            network.subnet, network.gateway = str(subnet), str(gateway)
            self._known.save(network)
        is_new = not self._links.exists(network.bridge)
        self._links.make_bridge(
            network.bridge, network.gateway_address, IPv4Network(network.subnet).prefixlen, owner=self._owner
        )
        if is_new:
            self._write_nat()

    def _write_nat(self) -> None:
        made = [n.zone for n in self._known.all() if n.subnet and self._links.exists(n.bridge)]
        self._nat.write(made)

    def connect_all(self, container: Container, pid: int, net_fd: int) -> None:
        """Give the network namespace of a container, which does not run yet, its interfaces, names and published ports."""
        del pid
        in_namespace(net_fd, lambda: _set_sysctls(container.host.get("Sysctls") or {}))
        has_gateway = False
        for number, (name, endpoint) in enumerate(container.endpoints.items()):
            network = self.find(name)
            if network.driver == "bridge":
                self._plug(network, endpoint, net_fd, number, is_first=not has_gateway)
                has_gateway = has_gateway or not network.internal
        if self.dns_of(container):
            self.names.serve(container, net_fd)
        self._ports.publish(container)

    def linked(self, container: Container) -> list[str]:
        """Return the lines of /etc/hosts for the containers that this one is linked to. Raises: NotFound, Conflict."""
        lines = []
        for text in container.host["Links"] or []:
            name, _, alias = text.partition(":")
            other = self._containers.find(name)
            address = next((e["IPAddress"] for e in other.endpoints.values() if e["IPAddress"]), "")
            if not address:
                raise Conflict(
                    f"Cannot link to a non running container: /{other.name} AS /{container.name}/{alias or name}"
                )
            lines.append(f"{address}\t{' '.join(dict.fromkeys([alias or name, other.short_id, other.name]))}")
        return lines

    def _plug(self, network: Network, endpoint: dict[str, Any], net_fd: int, number: int, *, is_first: bool) -> None:
        gateway = network.gateway_address if is_first and not network.internal else None
        plug = Plug(
            _host_name(endpoint), f"eth{number}", endpoint["MacAddress"], IPv4Address(endpoint["IPAddress"]),
            endpoint["IPPrefixLen"], gateway,
        )  # fmt: skip
        self._links.plug(network.bridge, net_fd, plug)

    def dns_of(self, container: Container) -> str:
        """Return the DNS server that the container asks: the engine's in user-defined networks, else empty."""
        return self.names.address_for(container)

    def release(self, container: Container) -> None:
        """Give back what a container that has ended held; safe to call twice."""
        self._ports.close(container)
        self.names.forget(container)
        for endpoint in container.endpoints.values():
            # Its interfaces go with its network namespace.
            endpoint.update(IPAddress="", IPPrefixLen=0, MacAddress="", Gateway="", EndpointID="")

    def forget(self, container: Container) -> None:
        """Let go of a container that is removed."""
        self.release(container)

    def connect(self, network: Network, container: Container, body: Mapping[str, Any] | None) -> None:
        """Put a container, running or not, into one more network. Raises: Conflict, ApiError."""
        endpoint = parse_endpoint(body)
        with container.lock:
            if network.driver != "bridge" or "host" in container.endpoints:
                raise ApiError("container cannot be connected to host network or have it", status=403)
            if network.name in container.endpoints or network.id in container.endpoints:
                raise ApiError(
                    f"endpoint with name {container.name} already exists in network {network.name}", status=403
                )
            container.endpoints.pop("none", None)
            container.endpoints[network.name] = endpoint
            if container.state.is_running:
                try:
                    self._connect_now(network, container, endpoint)
                except BaseException:
                    del container.endpoints[network.name]
                    raise
            container.save()
        self._events.say(
            "network", "connect", network.id, {"container": container.id, "name": network.name, "type": "bridge"}
        )

    def _connect_now(self, network: Network, container: Container, endpoint: dict[str, Any]) -> None:
        self._reserve(container, network, endpoint)
        endpoint["NetworkID"], endpoint["EndpointID"] = network.id, secrets.token_hex(32)
        net_fd = os.open(f"/proc/{container.state.pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            taken = in_namespace(net_fd, _interface_names)
            number = next(n for n in range(len(taken) + 1) if f"eth{n}" not in taken)
            self._plug(network, endpoint, net_fd, number, is_first=True)
            if self.dns_of(container) and not self.names.is_served(container):
                self.names.serve(container, net_fd)
        finally:
            os.close(net_fd)

    def disconnect(self, network: Network, container: Container) -> None:
        """Take a container out of a network. Raises: ApiError if it is not in it."""
        with container.lock:
            name = next((key for key in (network.name, network.id) if key in container.endpoints), None)
            if name is None:
                raise ApiError(f"container {container.id} is not connected to network {network.name}", status=403)
            endpoint = container.endpoints.pop(name)
            if endpoint["IPAddress"]:
                self._links.remove(_host_name(endpoint))
            container.save()
        self._events.say(
            "network", "disconnect", network.id, {"container": container.id, "name": network.name, "type": "bridge"}
        )

    # -- the engine's own start and end ---------------------------------------------------------------------------------

    def restore(self, container: Container) -> None:
        """After a restart of the engine: serve a container that has gone on running once more. Raises: OSError."""
        if container.host["NetworkMode"] == "host":
            return
        with suppress(ApiError):
            self._ports.publish(container, again=True)
        if self.dns_of(container):
            net_fd = os.open(f"/proc/{container.state.pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            try:
                self.names.serve(container, net_fd)
            finally:
                os.close(net_fd)

    def ports_of(self, container: Container) -> dict[str, list[dict[str, str]] | None]:
        """Return the published ports as the API shows them."""
        return self._ports.shown(container)

    @property
    def why_no_nat(self) -> str:
        """Why containers do not reach the world; empty if they do."""
        return self._nat.why_not

    def close(self, *, keep: bool) -> None:
        """Stop serving names and ports; unless containers go on (``keep``), remove bridges and the packet filter's table."""
        self._ports.close_all()
        self.names.close()
        if not keep:
            made = [n for n in self._known.all() if self._links.exists(n.bridge)]
            for network in made:
                self._links.remove(network.bridge)
            if made:
                self._nat.close()
        self._links.close()


def _host_name(endpoint: Mapping[str, Any]) -> str:
    return f"labkit-v{endpoint['EndpointID'][:7]}"


def _set_sysctls(asked: Mapping[str, str]) -> None:
    """Write the network settings of the namespace that the calling thread is in. Raises: BadParameter."""
    # As Docker has it: a program that is not root may listen at port 80 of its own network.
    with suppress(OSError):
        Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").write_text("0")
    for name, value in asked.items():
        try:
            Path(f"/proc/sys/{name.replace('.', '/')}").write_text(value)
        except OSError as error:
            raise BadParameter(f"the sysctl {name} cannot be set to {value!r}: {error.strerror}") from error


def _interface_names() -> list[str]:
    import socket

    return [name for _, name in socket.if_nameindex()]

"""Which container hangs on which network, with which address, and how many packets it has sent and received.

Asked of the engine: networks and their members, and each container's own counters (those of its interfaces in /proc/PID/net/dev).

See: Docker Engine API 1.44, NetworkInspect, ContainerStats; netdevice(7).
"""

from __future__ import annotations

from dataclasses import dataclass

import docker
from docker.errors import APIError

__all__ = ["Node", "Wiring", "read_wiring"]

#: Networks that every engine has; they are shown only if somebody is on them.
_ALWAYS = ("bridge", "host", "none")


@dataclass(frozen=True, slots=True)
class Node:
    """A running container: its address on each of its networks, and its packets so far, over all interfaces but loopback."""

    name: str
    addresses: dict[str, str]
    received_packets: int
    sent_packets: int


@dataclass(frozen=True, slots=True)
class Wiring:
    """All networks (name: subnet) and all running containers."""

    networks: dict[str, str]
    nodes: tuple[Node, ...]


def read_wiring(client: docker.DockerClient) -> Wiring:
    """Return the picture of now. Raises: docker.errors.APIError."""
    nodes = tuple(_node(client, container.id) for container in client.containers.list(filters={"status": "running"}))
    used = {network for node in nodes if node is not None for network in node.addresses}
    networks = {
        str(network.name): _subnet(network.attrs) for network in client.networks.list() if network.name not in _ALWAYS or network.name in used
    }  # fmt: skip
    return Wiring(networks, tuple(sorted((node for node in nodes if node is not None), key=lambda node: node.name)))


def _subnet(attrs: dict[str, object]) -> str:
    ipam = attrs.get("IPAM")
    pools = ipam.get("Config") if isinstance(ipam, dict) else None
    return str(pools[0].get("Subnet", "")) if pools else ""


def _node(client: docker.DockerClient, container_id: str | None) -> Node | None:
    try:
        seen = client.api.inspect_container(container_id or "")
        counted = client.api.stats(container_id or "", stream=False, one_shot=True).get("networks") or {}
    except APIError:
        return None  # it has ended meanwhile
    networks = seen["NetworkSettings"]["Networks"]
    addresses = {name: end["IPAddress"] for name, end in networks.items() if end.get("IPAddress")}
    received, sent = (sum(int(one[key]) for one in counted.values()) for key in ("rx_packets", "tx_packets"))
    return Node(str(seen["Name"]).lstrip("/"), addresses, received, sent)

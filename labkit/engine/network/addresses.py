"""Addresses: which subnet a network gets, and which address a container gets in it.

A new network takes the first of Docker's own ranges that overlaps nothing: no other network of the engine, no route of the
machine (another Docker's bridges, a company's VPN). In a network the gateway has the first address, and containers the lowest free one.

Leaves out: IPv6, address pools of one's own, ``--ip-range`` beyond a check.
See: ipaddress; Docker documentation, "Default address pools".
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network

from labkit.engine.wire.errors import ApiError, BadParameter

__all__ = ["POOL", "choose_subnet", "lowest_free", "mac_of", "parse_ipam"]

#: The subnets that networks get by themselves, in this order.
POOL = tuple(IPv4Network(f"172.{n}.0.0/16") for n in range(17, 32)) + tuple(
    IPv4Network("192.168.0.0/16").subnets(new_prefix=20)
)


def choose_subnet(taken: Iterable[IPv4Network]) -> IPv4Network:
    """Return the first subnet of the pool that overlaps none of ``taken``. Raises: ApiError if there is none left."""
    used = list(taken)
    for subnet in POOL:
        if not any(subnet.overlaps(other) for other in used):
            return subnet
    raise ApiError(
        "could not find an available, non-overlapping IPv4 address pool among the defaults to assign to the network"
    )


def parse_ipam(config: Iterable[dict[str, str]], taken: Iterable[IPv4Network]) -> tuple[IPv4Network, IPv4Address, bool]:
    """Return subnet, gateway, and whether the client chose the subnet. Raises: BadParameter, ApiError (403: overlap)."""
    used = list(taken)
    entry = next(iter(config), None) or {}
    text, gateway_text = str(entry.get("Subnet") or ""), str(entry.get("Gateway") or "")
    try:
        subnet = IPv4Network(text) if text else choose_subnet(used)
        gateway = IPv4Address(gateway_text) if gateway_text else subnet.network_address + 1
    except ValueError as error:
        raise BadParameter(f"invalid subnet or gateway: {error}") from error
    if text and any(subnet.overlaps(other) for other in used):
        raise ApiError("Pool overlaps with other one on this address space", status=403)
    if gateway not in subnet:
        raise BadParameter(f"no matching subnet for gateway {gateway}")
    if subnet.prefixlen > 30:
        raise BadParameter(f"invalid subnet {subnet}: it has no room for a gateway and a container")
    return subnet, gateway, bool(text)


def lowest_free(subnet: IPv4Network, used: Iterable[IPv4Address], wanted: str = "") -> IPv4Address:
    """Return ``wanted``, or the lowest free address. Raises: BadParameter, ApiError if it is taken or all are."""
    taken = set(used)
    if wanted:
        try:
            address = ipaddress.IPv4Address(wanted)
        except ValueError:
            raise BadParameter(f"invalid IPv4 address: {wanted}") from None
        if address not in subnet:
            raise BadParameter(f"no configured subnet or ip-range contain the IP address {address}")
        if address in taken:
            raise ApiError("Address already in use", status=403)
        return address
    for address in subnet.hosts():
        if address not in taken:
            return address
    raise ApiError(f"no available IPv4 addresses on this network's address pools: {subnet}")


def mac_of(address: IPv4Address) -> str:
    """Return the hardware address that Docker gives an interface with this address."""
    return ":".join(f"{byte:02x}" for byte in (0x02, 0x42, *address.packed))

"""What the engine knows of a network, in memory and in ``networks/ID.json``; and the words of requests about networks.

See: Docker Engine API, "Networks".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from ipaddress import IPv4Address, IPv4Network
from typing import Any

from labkit.engine.network.nat import Zone
from labkit.engine.spec.fields import FLAG, INT, OBJECT, TEXT, TEXT_MAP, TEXTS, checked
from labkit.engine.wire.errors import BadParameter

__all__ = ["Network", "parse_create", "parse_endpoint"]

_NAME = re.compile(r"[a-zA-Z0-9](?:[a-zA-Z0-9_. -]*[a-zA-Z0-9_.-])?\Z")
_CREATE = {
    "Name": TEXT, "CheckDuplicate": FLAG, "Driver": TEXT, "Internal": FLAG, "Attachable": FLAG, "Ingress": FLAG,
    "IPAM": OBJECT, "EnableIPv6": FLAG, "Options": TEXT_MAP, "Labels": TEXT_MAP, "Scope": TEXT,
}  # fmt: skip
_ENDPOINT = {
    "IPAMConfig": OBJECT, "Links": TEXTS, "MacAddress": TEXT, "Aliases": TEXTS, "NetworkID": TEXT, "DriverOpts": TEXT_MAP,
    "GwPriority": INT,
}  # fmt: skip


@dataclass(slots=True)
class Network:
    """One network. ``driver`` is bridge, or "null" and "host" for the two that are none."""

    id: str
    name: str
    created: str
    driver: str = "bridge"
    subnet: str = ""
    gateway: str = ""
    user_subnet: bool = False
    internal: bool = False
    attachable: bool = False
    labels: dict[str, str] = field(default_factory=dict)
    options: dict[str, str] = field(default_factory=dict)

    @property
    def bridge(self) -> str:
        """The name of its bridge; interfaces have at most 15 characters."""
        return f"labkit-{self.id[:8]}"

    @property
    def is_predefined(self) -> bool:
        """True for the three networks that are always there."""
        return self.name in ("bridge", "host", "none")

    @property
    def zone(self) -> Zone:
        """The network as the packet filter sees it."""
        return Zone(self.bridge, IPv4Network(self.subnet), self.internal)

    @property
    def gateway_address(self) -> IPv4Address:
        """The address of its bridge."""
        return IPv4Address(self.gateway)

    def to_dict(self) -> dict[str, Any]:
        """Return what the file holds."""
        return asdict(self)

    def shown(self, containers: Mapping[str, Any]) -> dict[str, Any]:
        """Return it as the API shows it."""
        ipam = [{"Subnet": self.subnet, "Gateway": self.gateway}] if self.subnet else []
        return {
            "Name": self.name, "Id": self.id, "Created": self.created, "Scope": "local", "Driver": self.driver,
            "EnableIPv6": False, "IPAM": {"Driver": "default", "Options": None, "Config": ipam}, "Internal": self.internal,
            "Attachable": self.attachable, "Ingress": False, "ConfigFrom": {"Network": ""}, "ConfigOnly": False,
            "Containers": dict(containers), "Options": self.options, "Labels": self.labels,
        }  # fmt: skip


def parse_create(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return a create request, checked. Raises: BadParameter."""
    given = checked(body, _CREATE, "NetworkCreate")
    name = given.get("Name", "")
    if not _NAME.match(name):
        raise BadParameter(
            "network name cannot be empty or hold other characters than letters, digits, '_', '.', '-' and spaces between them"
        )
    ipam = given.get("IPAM") or {}
    config = ipam.get("Config") or []
    if not isinstance(config, list) or not all(isinstance(entry, dict) for entry in config):
        raise BadParameter("invalid JSON: IPAM.Config must be an array of objects")
    given["Config"] = config
    return given


def parse_endpoint(body: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return what a client wants of a container's place in a network, checked. Raises: BadParameter."""
    given = checked(body or {}, _ENDPOINT, "EndpointSettings")
    ipam = given.get("IPAMConfig")
    address = (ipam or {}).get("IPv4Address") or ""
    if not isinstance(address, str):
        raise BadParameter("invalid JSON: IPAMConfig.IPv4Address must be a string")
    return {
        "IPAMConfig": ipam, "Links": given.get("Links"), "Aliases": given.get("Aliases"), "MacAddress": given.get("MacAddress", ""),
        "DriverOpts": given.get("DriverOpts"), "NetworkID": "", "EndpointID": "", "Gateway": "", "IPAddress": "",
        "IPPrefixLen": 0, "IPv6Gateway": "", "GlobalIPv6Address": "", "GlobalIPv6PrefixLen": 0, "DNSNames": None,
    }  # fmt: skip

"""Published ports: which port of the machine leads to which port of a container.

See: Docker Engine API, "PortMap"; docker-run(1), ``-p``.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from labkit.engine.wire.errors import BadParameter

__all__ = ["PortBinding", "parse_ports"]

_PROTOCOLS = ("tcp", "udp")


@dataclass(frozen=True, slots=True)
class PortBinding:
    """``host_ip:host_port`` of the machine leads to ``port`` of the container; host port 0 is any free one."""

    port: int
    protocol: str
    host_ip: str
    host_port: int

    @property
    def key(self) -> str:
        """The container's side as Docker writes it: ``80/tcp``."""
        return f"{self.port}/{self.protocol}"


def parse_ports(config: Mapping[str, Any], host: Mapping[str, Any]) -> list[PortBinding]:
    """Return the bindings that a container asks for. Raises: BadParameter."""
    bindings: list[PortBinding] = []
    asked = dict(host["PortBindings"] or {})
    if host["PublishAllPorts"]:
        asked |= {port: [{}] for port in config.get("ExposedPorts") or {} if port not in asked}
    for key, places in asked.items():
        port, protocol = _parse_key(key)
        if places is not None and not isinstance(places, list):
            raise BadParameter(f"invalid JSON: PortBindings of {key} must be an array")
        for place in places or []:
            if not isinstance(place, dict):
                raise BadParameter(f"invalid JSON: a PortBinding of {key} must be an object")
            bindings.append(_parse_place(port, protocol, place))
    return bindings


def _parse_key(key: str) -> tuple[int, str]:
    number, _, protocol = key.partition("/")
    protocol = (protocol or "tcp").lower()
    if not number.isdigit() or not 0 < int(number) < 1 << 16:
        raise BadParameter(f'invalid port specification: "{key}"')
    if protocol not in _PROTOCOLS:
        raise BadParameter(f'invalid port specification: "{key}": the protocol must be tcp or udp')
    return int(number), protocol


def _parse_place(port: int, protocol: str, place: Mapping[str, Any]) -> PortBinding:
    host_ip, host_port = str(place.get("HostIp") or ""), str(place.get("HostPort") or "0")
    first = host_port.split("-")[0]
    if not first.isdigit() or int(first) >= 1 << 16:
        raise BadParameter(f'invalid port specification: "{host_port}"')
    if host_ip:
        try:
            ipaddress.ip_address(host_ip)
        except ValueError:
            raise BadParameter(f"invalid IP address: {host_ip}") from None
    return PortBinding(port, protocol, host_ip, int(first))

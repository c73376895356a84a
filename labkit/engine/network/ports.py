"""The published ports of containers, and how the API shows them.

See: `labkit.engine.network.publish`; Docker Engine API, "PortMap".
"""

from __future__ import annotations

import socket
import threading

from labkit.engine.network.publish import Published, publish
from labkit.engine.objects.record import Container
from labkit.engine.spec.ports import PortBinding, parse_ports
from labkit.engine.wire.errors import ApiError

__all__ = ["Ports"]


class Ports:
    """Owner of every proxy, by container; safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: dict[str, list[Published]] = {}

    def publish(self, container: Container, *, again: bool = False) -> None:
        """Publish what the container asks for (``again``: at the same ports as before). Raises: ApiError; then nothing is."""
        bindings = parse_ports(container.config, container.host)
        address = next((e["IPAddress"] for e in container.endpoints.values() if e["IPAddress"]), "")
        if not bindings or not address:
            return
        before = container.published if again else {}
        made: list[Published] = []
        shown: dict[str, list[dict[str, str]]] = {}
        try:
            for binding in bindings:
                kept = [int(place["HostPort"]) for place in before.get(binding.key, []) if binding.host_port == 0]
                for one in _publish_one(binding, address, kept[0] if kept else binding.host_port):
                    made.append(one)
                    shown.setdefault(binding.key, []).append({"HostIp": one.host_ip, "HostPort": str(one.host_port)})
        except ApiError:
            for one in made:
                one.close()
            raise
        container.published = shown
        with self._lock:
            self._open[container.id] = made

    def close(self, container: Container) -> None:
        """Take the container's ports away."""
        with self._lock:
            made = self._open.pop(container.id, [])
        for one in made:
            one.close()
        container.published = {}

    def close_all(self) -> None:
        """Close every proxy, and leave the notes of where they were."""
        with self._lock:
            made = [one for proxies in self._open.values() for one in proxies]
            self._open.clear()
        for one in made:
            one.close()

    def shown(self, container: Container) -> dict[str, list[dict[str, str]] | None]:
        """Return each exposed or published port with its places on the machine; None for one that is not published."""
        ports: dict[str, list[dict[str, str]] | None] = dict.fromkeys(container.config.get("ExposedPorts") or {})
        ports |= {key: list(places) for key, places in container.published.items()}
        return ports


def _publish_one(binding: PortBinding, address: str, host_port: int) -> list[Published]:
    target = (address, binding.port)
    first = publish(binding.protocol, binding.host_ip or "0.0.0.0", host_port, target)
    if binding.host_ip or not socket.has_ipv6:
        return [first]
    try:
        return [first, publish(binding.protocol, "::", first.host_port, target)]
    except ApiError:
        return [first]  # no IPv6 here, or somebody else has that port of it

"""Who is called what: the answers of the DNS server, from the engine's own list of containers.

See: `labkit.engine.network.dns`; Docker documentation, "Embedded DNS server".
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from labkit.engine.network.dns import ADDRESS, DnsServer
from labkit.engine.network.record import Network
from labkit.engine.objects.record import Container
from labkit.engine.objects.registry import Registry
from labkit.engine.wire.errors import ApiError

__all__ = ["Names"]


class Names:
    """Answers names for every container that is in a user-defined network."""

    def __init__(self, containers: Registry, find: Callable[[str], Network]) -> None:
        self._containers, self._find = containers, find
        self._server: DnsServer | None = None
        self._served: set[str] = set()

    def address_for(self, container: Container) -> str:
        """Return the address of the server inside the container; empty if none of its networks knows names."""
        if container.host["NetworkMode"] in ("host", "none"):
            return ""
        return ADDRESS if any(self._knows_names(name) for name in container.endpoints) else ""

    def _knows_names(self, name: str) -> bool:
        try:
            network = self._find(name)
        except ApiError:
            return False
        return network.driver == "bridge" and not network.is_predefined

    def is_served(self, container: Container) -> bool:
        """Tell whether the container is answered already."""
        return container.id in self._served

    def serve(self, container: Container, net_fd: int) -> None:
        """Answer the container from now on. Raises: OSError."""
        if self._server is None:
            self._server = DnsServer(self.lookup, self.reverse, self._upstream)
        self._server.serve(container.id, net_fd)
        self._served.add(container.id)

    def forget(self, container: Container) -> None:
        """Stop answering the container."""
        if self._server is not None and container.id in self._served:
            self._served.discard(container.id)
            self._server.forget(container.id)

    def lookup(self, asker_id: str, name: str) -> list[str] | None:
        """Return the addresses of the containers called ``name`` in the asker's networks; None if there is none."""
        asker = self._containers.find(asker_id)
        shared = {key for key in asker.endpoints if self._knows_names(key)}
        found = []
        for container in self._containers.all():
            for key, endpoint in list(container.endpoints.items()):
                names = [text.lower() for text in endpoint["DNSNames"] or ()]
                if (
                    key in shared
                    and endpoint["IPAddress"]
                    and (name in names or name in (f"{n}.{key}".lower() for n in names))
                ):
                    found.append(str(endpoint["IPAddress"]))
        return found or self._linked(asker, shared, name) or None

    def _linked(self, asker: Container, shared: set[str], name: str) -> list[str]:
        """Return the addresses of what the asker calls by a name of its own (``--link web:www`` in a network with names)."""
        found = []
        for key in shared:
            for link in asker.endpoints[key]["Links"] or ():
                other, _, alias = link.partition(":")
                if (alias or other).lower() == name:
                    with suppress(ApiError):
                        endpoint = self._containers.find(other).endpoints.get(key)
                        found += [str(endpoint["IPAddress"])] if endpoint and endpoint["IPAddress"] else []
        return found

    def reverse(self, asker_id: str, address: str) -> str:
        """Return the name of the container with ``address`` in one of the asker's networks; empty if there is none."""
        asker = self._containers.find(asker_id)
        for container in self._containers.all():
            for key, endpoint in list(container.endpoints.items()):
                if key in asker.endpoints and endpoint["IPAddress"] == address and self._knows_names(key):
                    return f"{container.name}.{key}"
        return ""

    def _upstream(self, asker_id: str) -> list[str]:
        chosen = self._containers.find(asker_id).host["Dns"]
        return list(chosen) if chosen else _machine_servers()

    def close(self) -> None:
        """Stop answering everybody."""
        if self._server is not None:
            self._server.close()
            self._server = None


def _machine_servers() -> list[str]:
    try:
        lines = Path("/etc/resolv.conf").read_text().splitlines()
    except OSError:
        return []
    return [line.split()[1] for line in lines if line.startswith("nameserver") and len(line.split()) > 1][:3]

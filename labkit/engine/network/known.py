"""The list of networks: one file each, and what a client may call them by.

Three are always there: ``bridge``, ``host`` and ``none``. Which addresses the bridge has is decided when it is first needed.

See: Docker Engine API, "Networks".
"""

from __future__ import annotations

import os
import secrets
import threading
import time
from pathlib import Path

from labkit.engine.keeper.logfile import timestamp
from labkit.engine.network.record import Network
from labkit.engine.objects.files import read_json, write_json
from labkit.engine.wire.errors import BadParameter, NotFound

__all__ = ["KnownNetworks"]

_PREDEFINED = (("bridge", "bridge"), ("host", "host"), ("none", "null"))


class KnownNetworks:
    """Every network below ``folder``; safe to use from several threads."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._lock = threading.RLock()
        self._networks: dict[str, Network] = {}
        os.makedirs(folder, 0o700, exist_ok=True)
        for path in sorted(Path(folder).glob("*.json")):
            network = Network(**read_json(str(path)))
            self._networks[network.id] = network
        for name, driver in _PREDEFINED:
            if not self.has_name(name):
                self.save(Network(secrets.token_hex(32), name, timestamp(time.time_ns()), driver))

    def save(self, network: Network) -> None:
        """Write a network to the disk, and know it from now on."""
        with self._lock:
            write_json(f"{self._folder}/{network.id}.json", network.to_dict())
            self._networks[network.id] = network

    def forget(self, network: Network) -> None:
        """Know a network no more."""
        with self._lock:
            os.unlink(f"{self._folder}/{network.id}.json")
            del self._networks[network.id]

    def has_name(self, name: str) -> bool:
        """Tell whether a network has that name."""
        return any(network.name == name for network in self.all())

    def all(self) -> list[Network]:
        """Return every network, the oldest first."""
        with self._lock:
            return sorted(self._networks.values(), key=lambda network: network.created)

    def find(self, text: str) -> Network:
        """Return the network that ``text`` means: a name, an id, the beginning of an id. Raises: NotFound, BadParameter."""
        with self._lock:
            if text in self._networks:
                return self._networks[text]
            wanted = "bridge" if text == "default" else text
            named = [network for network in self._networks.values() if network.name == wanted]
            found = named or [network for key, network in self._networks.items() if text and key.startswith(text)]
        if len(found) > 1:
            raise BadParameter(f"network {text} is ambiguous ({len(found)} matches found based on ID prefix)")
        if not found:
            raise NotFound(f"network {text} not found")
        return found[0]

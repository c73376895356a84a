"""NAT and isolation: one nftables table that says what may pass between networks.

* What leaves a network for the world gets the machine's address (*masquerade*), or no answer would find its way back.
* What goes from one of the engine's networks to another is dropped: they are islands.
* An internal network has no way out at all.

The whole table is written at once, atomically, whenever a network comes or goes. Without the program ``nft``, or without the right to use it,
the machine does not forward for containers: they reach each other and the machine, not the world.

See: nft(8); Documentation/networking/ip-sysctl.rst in Linux (ip_forward).
"""

from __future__ import annotations

import logging
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path

from labkit.setup.parts import find_program

__all__ = ["Nat", "Zone"]

log = logging.getLogger(__name__)

_FORWARD = Path("/proc/sys/net/ipv4/ip_forward")


@dataclass(frozen=True, slots=True)
class Zone:
    """A network as the packet filter sees it."""

    bridge: str
    subnet: IPv4Network
    internal: bool


class Nat:
    """Owner of the table ``name`` and of the switch that it may have turned."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._before: str | None = None
        self.why_not = ""

    def write(self, zones: Sequence[Zone]) -> None:
        """Make the table say what holds for ``zones``; what this machine refuses is remembered in ``why_not``."""
        program = find_program("nft")
        if program is None:
            self.why_not = "the program nft is not installed"
            return
        text = f"add table ip {self._name}\ndelete table ip {self._name}\n" + (
            _table(self._name, zones) if zones else ""
        )
        done = subprocess.run(
            [str(program), "-f", "-"], input=text.encode(), capture_output=True, check=False, timeout=30
        )
        if done.returncode:
            self.why_not = done.stderr.decode(errors="replace").strip().splitlines()[0] if done.stderr else "nft failed"
            log.warning("no NAT for containers: %s", self.why_not)
            return
        self.why_not = ""
        if zones:
            self._switch_forwarding_on()

    def _switch_forwarding_on(self) -> None:
        try:
            before = _FORWARD.read_text().strip()
            if before != "1":
                _FORWARD.write_text("1")
                self._before = before
        except OSError as error:
            self.why_not = f"forwarding cannot be switched on: {error.strerror}"

    def close(self) -> None:
        """Take the table away and put the switch back."""
        self.write(())
        if self._before is not None:
            try:
                _FORWARD.write_text(self._before)
            except OSError as error:
                log.warning("%s: %s", _FORWARD, error.strerror)
            self._before = None


def _table(name: str, zones: Sequence[Zone]) -> str:
    every = ", ".join(f'"{zone.bridge}"' for zone in zones)
    post, forward = [], []
    for zone in zones:
        forward.append(f'iifname "{zone.bridge}" oifname "{zone.bridge}" accept')
        if zone.internal:
            forward += [f'iifname "{zone.bridge}" drop', f'oifname "{zone.bridge}" drop']
        else:
            post.append(f'ip saddr {zone.subnet} oifname != "{zone.bridge}" masquerade')
    forward.append(f"iifname {{ {every} }} oifname {{ {every} }} drop")
    return (
        f"table ip {name} {{\n"
        f"  chain post {{ type nat hook postrouting priority 100; policy accept;\n    {_lines(post)}\n  }}\n"
        f"  chain between {{ type filter hook forward priority 0; policy accept;\n    {_lines(forward)}\n  }}\n"
        f"}}\n"
    )


def _lines(rules: Sequence[str]) -> str:
    return "\n    ".join(rules)

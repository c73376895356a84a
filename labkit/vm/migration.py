"""Live migration: a running machine moves from one QEMU process into another and hardly notices.

The memory is copied while the machine runs; what it writes to meanwhile is copied again, and again, until the rest is small enough
to be sent within the downtime that was allowed. Then the machine stops, the rest and the state of its devices follow, and the
other QEMU lets it go on. Between two hosts the bytes would go through a network; here they go through a pair of unix sockets.

Leaves out: storage (there is none), post-copy, compression, a shared memory that would make copying needless.
See: QEMU's documentation of the migration framework; "Live Migration of Virtual Machines" (Clark and others, NSDI 2005).
"""

from __future__ import annotations

import socket
import time
from dataclasses import dataclass
from typing import Any

from labkit.errors import GuestError
from labkit.vm.instance import Instance
from labkit.vm.monitor import Monitor
from labkit.vm.network import Network

__all__ = ["Migration", "move", "send_state", "wait_for_arrival"]

#: How often QEMU is asked how far it is. It announces only the end, and only on request.
_ASK_AGAIN_S = 0.005
#: Bytes per second that a machine may take to move: as fast as the sockets allow.
_NO_LIMIT = 1 << 40
_DOWNTIME_LIMIT_MS = 100


@dataclass(frozen=True, slots=True)
class Migration:
    """What moving a machine took. ``downtime_s`` is how long it stood still, as the sending QEMU counted it."""

    downtime_s: float
    total_s: float
    transferred_bytes: int
    rounds: int


def move(old: Instance, name: str, deadline_s: float, network: Network | None = None) -> tuple[Instance, Migration]:
    """Move the machine of ``old`` into a new QEMU process; return that one and what it took. ``old`` is ended.

    Raises: GuestError if it could not move; the machine runs on in ``old`` then, and nothing is left of the other.
    """
    ours, theirs = socket.socketpair()
    with ours, theirs:
        new = Instance(name, old.spec, incoming_fd=theirs.fileno(), network=network)
        try:
            facts = send_state(old.monitor, ours.fileno(), deadline_s)
            wait_for_arrival(new, deadline_s)
        except BaseException:
            new.close()
            raise
    new.port.take_over(old.port)
    old.close()
    ram = facts["ram"]
    return new, Migration(
        facts["downtime"] / 1000, facts["total-time"] / 1000, int(ram["transferred"]), int(ram["dirty-sync-count"])
    )


def send_state(monitor: Monitor, fd: int, deadline_s: float) -> dict[str, Any]:
    """Let QEMU write its machine's state to the descriptor ``fd``; return its own account. Raises: GuestError."""
    limits = {"max-bandwidth": _NO_LIMIT, "downtime-limit": _DOWNTIME_LIMIT_MS}
    monitor.execute("migrate-set-parameters", limits)
    monitor.execute("getfd", {"fdname": "labkit"}, fd=fd)
    monitor.execute("migrate", {"uri": "fd:labkit"})
    while True:
        facts = monitor.execute("query-migrate")
        if facts["status"] == "completed":
            return dict(facts)
        if facts["status"] in ("failed", "cancelled"):
            raise GuestError(
                f"The machine's state could not be sent: {facts.get('error-desc', 'QEMU gave no reason')}."
            )
        if time.monotonic() > deadline_s:
            monitor.execute("migrate_cancel")
            raise GuestError("The machine's state was not sent in time: it changes faster than it can be copied.")
        time.sleep(_ASK_AGAIN_S)


def wait_for_arrival(instance: Instance, deadline_s: float) -> None:
    """Wait until a machine's state has arrived. Raises: GuestError when its QEMU refuses the state, with the reason."""
    while True:
        try:
            status = instance.monitor.execute("query-status", timeout_s=max(0.1, deadline_s - time.monotonic()))
        except GuestError as error:
            raise GuestError(instance.why_silent(is_gone=True) or str(error)) from error
        if status["status"] != "inmigrate":
            return
        if time.monotonic() > deadline_s:
            raise GuestError("The machine's state did not arrive in time.")
        time.sleep(_ASK_AGAIN_S)

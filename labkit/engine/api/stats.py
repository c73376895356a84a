"""``/containers/ID/stats``: what a container uses, once or every second, in the shape that ``docker stats`` computes from.

The numbers come from the container's cgroup; the network's from ``/proc/PID/net/dev``, which shows the container's own interfaces.

See: cgroups(7), proc(5); Docker Engine API, "Get container stats".
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from typing import Any

from labkit.engine.api.inside import pids_of
from labkit.engine.engine import Engine
from labkit.engine.keeper.logfile import timestamp
from labkit.engine.objects.record import NEVER, Container
from labkit.engine.objects.usage import read_folders
from labkit.engine.wire.reply import Json, Reply, Stream
from labkit.engine.wire.request import Request
from labkit.engine.wire.routes import Routes

__all__ = ["routes"]

routes = Routes()

_INTERVAL_S = 1.0


@routes.get("/containers/{id}/stats")
def stats(engine: Engine, request: Request) -> Reply:
    """Return one sample, or one every second while the container runs."""
    container = engine.containers.find(request.names["id"])
    if request.query.flag("stream", default=True):
        return Stream(_samples(container))
    before = _empty(container)
    if not request.query.flag("one-shot") and container.state.is_running:
        before = _sample(container, before)
        time.sleep(_INTERVAL_S)  # a rate needs two samples
    return Json(_sample(container, before))


def _samples(container: Container) -> Iterator[bytes]:
    before = _empty(container)
    while not container.is_removed:
        before = _sample(container, before)
        yield json.dumps(before, separators=(",", ":")).encode() + b"\n"
        if not container.state.is_running:
            # Docker goes on with empty samples until the client has enough; so does this, at the same pace.
            yield b""
        with container.changed:
            container.changed.wait(_INTERVAL_S)


def _empty(container: Container) -> dict[str, Any]:
    return {"read": NEVER, "cpu_stats": {"cpu_usage": {"total_usage": 0}, "throttling_data": {}}, "id": container.id}


def _sample(container: Container, before: dict[str, Any]) -> dict[str, Any]:
    now = timestamp(time.time_ns())
    shown: dict[str, Any] = {
        "read": now if container.state.is_running else NEVER, "preread": before["read"], "pids_stats": {},
        "blkio_stats": {"io_service_bytes_recursive": None}, "num_procs": 0, "storage_stats": {},
        "cpu_stats": _empty(container)["cpu_stats"], "precpu_stats": before["cpu_stats"], "memory_stats": {},
        "name": f"/{container.name}", "id": container.id,
    }  # fmt: skip
    if not container.state.is_running:
        return shown
    used = read_folders(container.state.folders)
    limit = container.host["Memory"] or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    shown["pids_stats"] = {"current": used.pids if used.pids is not None else len(pids_of(container))}
    shown["memory_stats"] = {
        "usage": used.memory_bytes or 0,
        "max_usage": used.memory_peak_bytes or 0,
        "limit": limit,
        "stats": {},
    }
    shown["cpu_stats"] = {
        "cpu_usage": {
            "total_usage": (used.cpu_usage_usec or 0) * 1000, "usage_in_kernelmode": (used.cpu_system_usec or 0) * 1000,
            "usage_in_usermode": (used.cpu_user_usec or 0) * 1000,
        },
        "system_cpu_usage": _system_cpu_ns(), "online_cpus": os.cpu_count() or 1,
        "throttling_data": {
            "periods": used.nr_periods or 0, "throttled_periods": used.nr_throttled or 0,
            "throttled_time": (used.throttled_usec or 0) * 1000,
        },
    }  # fmt: skip
    shown["networks"] = _networks(container.state.pid)
    return shown


def _system_cpu_ns() -> int:
    with open("/proc/stat") as file:
        ticks = sum(int(number) for number in file.readline().split()[1:9])
    return ticks * 1_000_000_000 // os.sysconf("SC_CLK_TCK")


def _networks(pid: int) -> dict[str, dict[str, int]]:
    try:
        with open(f"/proc/{pid}/net/dev") as file:
            lines = file.read().splitlines()[2:]
    except OSError:
        return {}
    found = {}
    for line in lines:
        name, _, numbers = line.partition(":")
        values = [int(number) for number in numbers.split()]
        if name.strip() != "lo" and len(values) >= 12:
            found[name.strip()] = {
                "rx_bytes": values[0], "rx_packets": values[1], "rx_errors": values[2], "rx_dropped": values[3],
                "tx_bytes": values[8], "tx_packets": values[9], "tx_errors": values[10], "tx_dropped": values[11],
            }  # fmt: skip
    return found

"""The half of a container's description that belongs to this machine: limits, mounts, ports, restart, security.

See: Docker Engine API, "HostConfig"; docker-run(1).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from labkit.engine.spec.fields import FLAG, INT, OBJECT, OBJECTS, TEXT, TEXT_MAP, TEXTS, checked
from labkit.engine.wire.errors import ApiError, BadParameter
from labkit.isolation.cgroups import Limits, weight_from_shares

__all__ = ["LIMIT_FIELDS", "limits_of", "parse_host_config", "parse_update"]

_LIMIT_TABLE = {
    "CpuShares": INT, "Memory": INT, "NanoCpus": INT, "CgroupParent": TEXT, "BlkioWeight": INT, "BlkioWeightDevice": OBJECTS,
    "BlkioDeviceReadBps": OBJECTS, "BlkioDeviceWriteBps": OBJECTS, "BlkioDeviceReadIOps": OBJECTS,
    "BlkioDeviceWriteIOps": OBJECTS, "CpuPeriod": INT, "CpuQuota": INT, "CpuRealtimePeriod": INT,
    "CpuRealtimeRuntime": INT, "CpusetCpus": TEXT, "CpusetMems": TEXT, "Devices": OBJECTS, "DeviceCgroupRules": TEXTS,
    "DeviceRequests": OBJECTS, "MemoryReservation": INT, "MemorySwap": INT, "MemorySwappiness": INT,
    "OomKillDisable": FLAG, "PidsLimit": INT, "Ulimits": OBJECTS,
}  # fmt: skip
#: What ``docker update`` can change.
LIMIT_FIELDS = tuple(_LIMIT_TABLE)
_TABLE = {
    "Binds": TEXTS, "ContainerIDFile": TEXT, "LogConfig": OBJECT, "NetworkMode": TEXT, "PortBindings": OBJECT,
    "RestartPolicy": OBJECT, "AutoRemove": FLAG, "VolumeDriver": TEXT, "VolumesFrom": TEXTS, "ConsoleSize": TEXT,
    "CapAdd": TEXTS, "CapDrop": TEXTS, "CgroupnsMode": TEXT, "Dns": TEXTS, "DnsOptions": TEXTS, "DnsSearch": TEXTS,
    "ExtraHosts": TEXTS, "GroupAdd": TEXTS, "IpcMode": TEXT, "Cgroup": TEXT, "Links": TEXTS, "OomScoreAdj": INT,
    "PidMode": TEXT, "Privileged": FLAG, "PublishAllPorts": FLAG, "ReadonlyRootfs": FLAG, "SecurityOpt": TEXTS,
    "StorageOpt": TEXT_MAP, "Tmpfs": TEXT_MAP, "UTSMode": TEXT, "UsernsMode": TEXT, "ShmSize": INT, "Sysctls": TEXT_MAP,
    "Runtime": TEXT, "Init": FLAG, "Mounts": OBJECTS, "MaskedPaths": TEXTS, "ReadonlyPaths": TEXTS, "Isolation": TEXT,
    **_LIMIT_TABLE,
}  # fmt: skip
_DEFAULTS: dict[str, Any] = {
    "Binds": None, "ContainerIDFile": "", "LogConfig": {"Type": "json-file", "Config": {}}, "NetworkMode": "default",
    "PortBindings": {}, "RestartPolicy": {"Name": "no", "MaximumRetryCount": 0}, "AutoRemove": False,
    "VolumeDriver": "", "VolumesFrom": None, "ConsoleSize": [0, 0], "CapAdd": None, "CapDrop": None,
    "CgroupnsMode": "private", "Dns": [], "DnsOptions": [], "DnsSearch": [], "ExtraHosts": None, "GroupAdd": None,
    "IpcMode": "private", "Cgroup": "", "Links": None, "OomScoreAdj": 0, "PidMode": "", "Privileged": False,
    "PublishAllPorts": False, "ReadonlyRootfs": False, "SecurityOpt": None, "UTSMode": "", "UsernsMode": "",
    "ShmSize": 64 << 20, "Runtime": "labkit", "Isolation": "", "CpuShares": 0, "Memory": 0, "NanoCpus": 0,
    "CgroupParent": "", "BlkioWeight": 0, "BlkioWeightDevice": [], "BlkioDeviceReadBps": [],
    "BlkioDeviceWriteBps": [], "BlkioDeviceReadIOps": [], "BlkioDeviceWriteIOps": [], "CpuPeriod": 0, "CpuQuota": 0,
    "CpuRealtimePeriod": 0, "CpuRealtimeRuntime": 0, "CpusetCpus": "", "CpusetMems": "", "Devices": [],
    "DeviceCgroupRules": None, "DeviceRequests": None, "MemoryReservation": 0, "MemorySwap": 0,
    "MemorySwappiness": None, "OomKillDisable": False, "PidsLimit": None, "Ulimits": [],
}  # fmt: skip
_RESTARTS = ("", "no", "always", "on-failure", "unless-stopped")
_SYSCTL = re.compile(r"net\.[A-Za-z0-9_]+(\.[A-Za-z0-9_-]+)+\Z")
_LEAST_MEMORY = 6 << 20
_NET_MODE = re.compile(r"(default|bridge|host|none|container:.+|[A-Za-z0-9][A-Za-z0-9_.-]*)\Z")


def parse_host_config(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return the HostConfig of a create request, checked and complete. Raises: BadParameter; ApiError with 501."""
    given = {name: value for name, value in body.items() if name != "ConsoleSize"}
    host = _DEFAULTS | checked(given, _TABLE, "HostConfig")
    size = body.get("ConsoleSize")
    if isinstance(size, list) and len(size) == 2 and all(isinstance(n, int) and 0 <= n < 1 << 16 for n in size):
        host["ConsoleSize"] = size
    _check_modes(host)
    _check_restart(host)
    _check_rest(host)
    limits_of(host)
    if host["LogConfig"].get("Type", "json-file") not in ("", "json-file", "none", "local"):
        raise BadParameter(f"logger: no log driver named '{host['LogConfig'].get('Type')}' is registered")
    host["LogConfig"] = {
        "Type": host["LogConfig"].get("Type") or "json-file",
        "Config": host["LogConfig"].get("Config") or {},
    }
    host["NetworkMode"] = host["NetworkMode"] or "default"
    if host["ShmSize"] < 0:
        raise BadParameter("SHM size can not be less than 0")
    host["ShmSize"] = host["ShmSize"] or 64 << 20
    return host


def _check_modes(host: Mapping[str, Any]) -> None:
    if not _NET_MODE.match(host["NetworkMode"] or "default"):
        raise BadParameter(f"invalid network mode: {host['NetworkMode']}")
    for name in ("PidMode", "UTSMode", "IpcMode"):
        if host[name] == "host" or host[name].startswith("container:"):
            raise ApiError(
                f'{name} "{host[name]}" is not offered: every container of this engine has namespaces of its own',
                status=501,
            )
    if host["Devices"] or host["DeviceRequests"]:
        raise ApiError(
            "--device is not offered: a user namespace may not open devices of the machine, nor make device nodes",
            status=403,
        )
    if host["Runtime"] not in ("", "labkit", "runc"):
        raise BadParameter(f"unknown or invalid runtime name: {host['Runtime']}")


def _check_rest(host: Mapping[str, Any]) -> None:
    for name in host.get("Sysctls") or {}:
        if not _SYSCTL.match(name):
            raise BadParameter(f"sysctl '{name}' is not allowed: only those of the container's own network (net.*) are")
    for name in ("StorageOpt", "DeviceCgroupRules", "CgroupParent", "BlkioDeviceReadIOps", "BlkioDeviceWriteIOps"):
        if host.get(name):
            raise ApiError(f"{name} is not offered by this engine", status=501)
    for text in host["Links"] or []:
        if not re.match(r"[^:]+(:[^:/]+)?\Z", text):
            raise BadParameter(f"bad format for links: {text}")


def _check_restart(host: dict[str, Any]) -> None:
    policy = host["RestartPolicy"]
    name, most = policy.get("Name") or "no", policy.get("MaximumRetryCount") or 0
    if name not in _RESTARTS:
        raise BadParameter(
            f"invalid restart policy: unknown policy '{name}'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'"
        )
    if not isinstance(most, int) or most < 0:
        raise BadParameter("invalid restart policy: maximum retry count cannot be negative")
    if most and name != "on-failure":
        raise BadParameter("invalid restart policy: maximum retry count can only be used with 'on-failure'")
    if host["AutoRemove"] and name != "no":
        raise BadParameter("can't create 'AutoRemove' container with restart policy")
    host["RestartPolicy"] = {"Name": name, "MaximumRetryCount": most}


def limits_of(host: Mapping[str, Any]) -> Limits:
    """Return the cgroup limits that a HostConfig asks for. Raises: BadParameter, InvalidSpec."""
    memory, swap = host["Memory"], host["MemorySwap"]
    if memory < 0 or 0 < memory < _LEAST_MEMORY:
        raise BadParameter("Minimum memory limit allowed is 6MB")
    if swap > 0 and memory == 0:
        raise BadParameter("You should always set the Memory limit when using Memoryswap limit, see usage")
    if 0 < swap < memory:
        raise BadParameter("Minimum memoryswap limit should be larger than memory limit, see usage")
    return Limits(
        memory_bytes=memory or None,
        # Docker lets a container use as much swap again as it has memory, unless told otherwise; -1 is no limit.
        swap_bytes=None if not memory or swap < 0 else (swap - memory if swap else memory),
        memory_high_bytes=None,
        pids=host["PidsLimit"] if (host["PidsLimit"] or 0) > 0 else None,
        cpus=_cpus(host),
        cpu_weight=weight_from_shares(max(2, host["CpuShares"])) if host["CpuShares"] > 0 else None,
        cpuset=host["CpusetCpus"] or None,
    )


def _cpus(host: Mapping[str, Any]) -> float | None:
    import os

    if host["NanoCpus"] and (host["CpuQuota"] or host["CpuPeriod"]):
        raise BadParameter("Conflicting options: Nano CPUs and CPU Period cannot both be set")
    if host["NanoCpus"]:
        cpus = host["NanoCpus"] / 1e9
        most = os.cpu_count() or 1
        if not 0.01 <= cpus <= most:
            raise BadParameter(f"range of CPUs is from 0.01 to {most:.2f}, as there are only {most} CPUs available")
        return float(cpus)
    if host["CpuQuota"] > 0:
        return max(0.01, float(host["CpuQuota"] / (host["CpuPeriod"] or 100_000)))
    return None


def parse_update(body: Mapping[str, Any], host: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``host`` with what an update request changes. Raises: BadParameter."""
    changes = checked(body, {**_LIMIT_TABLE, "RestartPolicy": OBJECT}, "Resources")
    policy = changes.pop("RestartPolicy", None)
    # In an update 0 and "" mean "as before": the client sends every field.
    changed = dict(host) | {name: value for name, value in changes.items() if value not in (0, "", [], None)}
    if policy and policy.get("Name"):
        changed["RestartPolicy"] = policy
        _check_restart(changed)
    if (
        changed["Memory"]
        and host["Memory"]
        and changed["Memory"] > host["MemorySwap"] > 0
        and not changes.get("MemorySwap")
    ):
        raise BadParameter(
            "Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time"
        )
    limits_of(changed)
    return changed

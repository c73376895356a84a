"""``/_ping``, ``/version``, ``/info``, ``/auth``, ``/system/df``, and the answers of a daemon without swarm and plugins.

See: Docker Engine API, "System".
"""

from __future__ import annotations

import os
import platform
import sys
from collections import Counter
from functools import lru_cache
from pathlib import Path

import labkit
from labkit.engine.api.shown import container_summary
from labkit.engine.engine import Engine
from labkit.engine.wire.errors import ApiError, BadParameter, NotFound
from labkit.engine.wire.reply import Empty, Json, Reply
from labkit.engine.wire.request import Request
from labkit.engine.wire.routes import MAX_VERSION, MIN_VERSION, Routes, version_text

__all__ = ["ARCHITECTURES", "ENGINE_VERSION", "routes"]

routes = Routes()

#: What clients compare with versions of Docker: the release whose API this is.
ENGINE_VERSION = "25.0.0"
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "riscv64": "riscv64"}
_NO_SWARM = 'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this node to swarm and try again.'


@routes.get("/_ping")
def ping(engine: Engine, request: Request) -> Reply:
    """Say that the engine lives; clients take the API version from the headers of this answer."""
    del engine
    headers = {
        "Content-Type": "text/plain; charset=utf-8",
        "Cache-Control": "no-cache, no-store, must-revalidate",
        "Pragma": "no-cache",
    }
    if request.method == "HEAD":
        return Empty(200, headers)
    return Plain(b"OK", headers)


def Plain(data: bytes, headers: dict[str, str]) -> Reply:
    """Return an answer that is plain text."""
    from labkit.engine.wire.reply import Stream

    return Stream([data], "text/plain; charset=utf-8", headers=headers)


@routes.get("/version")
def version(engine: Engine, request: Request) -> Reply:
    """Return the versions of the engine and its parts."""
    del engine, request
    machine = ARCHITECTURES.get(platform.machine(), platform.machine())
    details = {
        "ApiVersion": version_text(MAX_VERSION), "Arch": machine, "BuildTime": "", "Experimental": "false", "GitCommit": "",
        "GoVersion": "", "KernelVersion": platform.release(), "MinAPIVersion": version_text(MIN_VERSION), "Os": "linux",
    }  # fmt: skip
    return Json(
        {
            "Platform": {"Name": f"labkit {labkit.__version__}"},
            "Components": [
                {"Name": "Engine", "Version": ENGINE_VERSION, "Details": details},
                {"Name": "labkit", "Version": labkit.__version__, "Details": {"Python": platform.python_version()}},
            ],
            "Version": ENGINE_VERSION, "ApiVersion": details["ApiVersion"], "MinAPIVersion": details["MinAPIVersion"],
            "GitCommit": "", "GoVersion": f"none (Python {platform.python_version()})", "Os": "linux", "Arch": machine,
            "KernelVersion": platform.release(), "BuildTime": "",
        }
    )  # fmt: skip


@lru_cache(maxsize=1)
def _system_name() -> str:
    try:
        lines = Path("/etc/os-release").read_text().splitlines()
    except OSError:
        return "Linux"
    return next((line.partition("=")[2].strip('"') for line in lines if line.startswith("PRETTY_NAME=")), "Linux")


def _memory_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


@routes.get("/info")
def info(engine: Engine, request: Request) -> Reply:
    """Return what the engine and its machine are."""
    del request
    states = [container.state.status for container in engine.containers.all()]
    from labkit.isolation.cgroups import default_parent

    found = default_parent().controllers
    warnings = [f"WARNING: no NAT: {engine.networks.why_no_nat}"] if engine.networks.why_no_nat else []
    for name, words in (("memory", "memory"), ("pids", "pids"), ("cpu", "cpu cfs quota")):
        if name not in found:
            warnings.append(f"WARNING: No {words} limit support")
    return Json(
        {
            "ID": engine.id, "Containers": len(states), "ContainersRunning": states.count("running"),
            "ContainersPaused": states.count("paused"),
            "ContainersStopped": len(states) - states.count("running") - states.count("paused"),
            "Images": len(engine.images.store.images()), "Driver": "overlay", "DriverStatus": [["Backing Filesystem", "any"], ["userxattr", "true"]],
            "Plugins": {"Volume": ["local"], "Network": ["bridge", "host", "null"], "Authorization": None, "Log": ["json-file", "local", "none"]},
            "MemoryLimit": "memory" in found, "SwapLimit": "memory" in found, "CpuCfsPeriod": "cpu" in found,
            "CpuCfsQuota": "cpu" in found, "CPUShares": "cpu" in found, "CPUSet": "cpuset" in found, "PidsLimit": "pids" in found,
            "IPv4Forwarding": not engine.networks.why_no_nat, "OomKillDisable": False, "Debug": False, "NFd": len(os.listdir("/proc/self/fd")),
            "NGoroutines": 0, "NEventsListener": 0, "SystemTime": _now(), "LoggingDriver": "json-file", "CgroupDriver": "cgroupfs",
            "CgroupVersion": "2" if default_parent().version == "v2" else "1", "KernelVersion": platform.release(),
            "OperatingSystem": _system_name(), "OSVersion": "", "OSType": "linux", "Architecture": platform.machine(),
            "IndexServerAddress": "", "RegistryConfig": {"IndexConfigs": {}, "InsecureRegistryCIDRs": ["127.0.0.0/8"], "Mirrors": []},
            "NCPU": os.cpu_count() or 1, "MemTotal": _memory_bytes(), "GenericResources": None, "DockerRootDir": engine.state,
            "HttpProxy": "", "HttpsProxy": "", "NoProxy": "", "Name": platform.node(), "Labels": [], "ExperimentalBuild": False,
            "ServerVersion": ENGINE_VERSION, "Runtimes": {"labkit": {"path": sys.executable}}, "DefaultRuntime": "labkit",
            "Swarm": {"NodeID": "", "NodeAddr": "", "LocalNodeState": "inactive", "ControlAvailable": False, "Error": "", "RemoteManagers": None},
            "LiveRestoreEnabled": True, "Isolation": "", "InitBinary": "", "ContainerdCommit": {"ID": "", "Expected": ""},
            "RuncCommit": {"ID": "", "Expected": ""}, "InitCommit": {"ID": "", "Expected": ""},
            "SecurityOptions": ["name=seccomp,profile=builtin", "name=userns", "name=no-new-privileges"]
            + ([] if os.geteuid() == 0 else ["name=rootless"]),
            "Warnings": warnings,
        }
    )  # fmt: skip


def _now() -> str:
    import time

    from labkit.engine.keeper.logfile import timestamp

    return timestamp(time.time_ns())


@routes.post("/auth")
def auth(engine: Engine, request: Request) -> Reply:
    """Check credentials with their registry. Raises: BadParameter, ApiError with 401 for wrong ones."""
    del engine
    body = request.json()
    address = str(body.get("serveraddress") or "")
    if not address:
        raise BadParameter("no registry is named: this engine assumes no hub, so give the address of one")
    from labkit.engine.api.registry import check_login

    check_login(address, str(body.get("username") or ""), str(body.get("password") or ""))
    return Json({"Status": "Login Succeeded", "IdentityToken": ""})


@routes.get("/system/df")
def disk_usage(engine: Engine, request: Request) -> Reply:
    """Return how much disk images, containers and volumes take."""
    wanted = set(request.query.texts("type")) or {"image", "container", "volume", "build-cache"}
    from labkit.engine.api.shown import image_summary

    users = Counter(container.image_id for container in engine.containers.all())
    images = (
        [image_summary(engine, image, containers=users) for image in engine.images.store.images()]
        if "image" in wanted
        else []
    )
    containers = (
        [container_summary(engine, c, size=True) for c in engine.containers.all()] if "container" in wanted else []
    )
    volumes = []
    for volume in engine.volumes.all() if "volume" in wanted else ():
        usage = {
            "Size": engine.volumes.size_bytes(volume["Name"]),
            "RefCount": len(engine.volumes.users(volume["Name"])),
        }
        volumes.append({**volume, "UsageData": usage})
    layers = sum(image["Size"] for image in images)
    return Json(
        {"LayersSize": layers, "Images": images, "Containers": containers, "Volumes": volumes, "BuildCache": []}
    )


def _no_swarm(engine: Engine, request: Request) -> Reply:
    del engine, request
    raise ApiError(_NO_SWARM, status=503)


for _pattern in ("/swarm", "/nodes", "/services", "/tasks", "/secrets", "/configs"):
    routes.get(_pattern)(_no_swarm)
    for _method in ("GET", "POST", "DELETE"):
        routes.on(_method, f"{_pattern}/{{rest...}}")(_no_swarm)


@routes.get("/plugins")
def plugins(engine: Engine, request: Request) -> Reply:
    """Return the plugins: there are none."""
    del engine, request
    return Json([])


@routes.get("/plugins/{name...}/json")
def plugin(engine: Engine, request: Request) -> Reply:
    """Say that there is no such plugin."""
    del engine
    raise NotFound(f'plugin "{request.names["name"]}" not found')


@routes.post("/plugins/pull")
def plugin_pull(engine: Engine, request: Request) -> Reply:
    """Say that this engine takes no plugins."""
    del engine, request
    raise ApiError("plugins are not offered by this engine", status=501)

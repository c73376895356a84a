"""labkit's container as an OCI bundle: what runc and crun are given in the race, so that all make the same thing.

The same namespaces, id maps, mounts, masked paths, capabilities, no_new_privs, system call filter and limits. One thing differs: the
runtimes know nothing of layers, so they get the root folder itself, read-only, where labkit puts a writable layer on top.

Leaves out: hooks, devices, rlimits, annotations.
See: OCI Runtime Specification, config.md and config-linux.md.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from labkit.container.spec import ALL_NAMESPACES
from labkit.isolation.capabilities import DOCKER_DEFAULT
from labkit.isolation.cgroups.limits import CPU_PERIOD_USEC, quota_usec
from labkit.isolation.idmap import IdMapping, IdMaps, container_maps, own_maps
from labkit.isolation.mounts import MASKED_PATHS, READONLY_PATHS
from labkit.isolation.seccomp import Profile, Rule, default_profile
from labkit.linux.constants import NS_FILES
from labkit.measure.contenders import LIMITS

__all__ = ["oci_config"]

_SAFE = ["nosuid", "noexec", "nodev"]
_TYPES = {"mnt": "mount", "net": "network"}
_ARCHITECTURES = {"x86_64": "SCMP_ARCH_X86_64", "aarch64": "SCMP_ARCH_AARCH64", "riscv64": "SCMP_ARCH_RISCV64"}


def oci_config(rootfs: Path, *, group: str | None) -> dict[str, Any]:
    """Return a bundle's ``config.json`` for ``/bin/true``.

    The container's cgroup, with limits, is ``group``; None sets no limits, for users who may set none.
    """
    sets = {name: list(DOCKER_DEFAULT) for name in ("bounding", "effective", "permitted")}
    return {
        "ociVersion": "1.0.2",
        "process": {
            "terminal": False, "user": {"uid": 0, "gid": 0}, "args": ["/bin/true"], "env": ["PATH=/bin"], "cwd": "/",
            "capabilities": sets, "noNewPrivileges": True,
        },
        "root": {"path": str(rootfs), "readonly": True},
        "hostname": "labkit",
        "mounts": _mounts(),
        "linux": _linux(group),
    }  # fmt: skip


def _mounts() -> list[dict[str, Any]]:
    dev = ["nosuid", "mode=755", "size=65536k"]
    pts = ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]
    if os.geteuid() == 0:
        pts.append("gid=5")  # a user with a single id has no such group
    return [
        {"destination": "/proc", "type": "proc", "source": "proc", "options": _SAFE},
        {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": dev},
        {"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": pts},
        {"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": [*_SAFE, "mode=1777", "size=65536k"]},
        {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": _SAFE},
        {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": [*_SAFE, "ro"]},
    ]


def _linux(group: str | None) -> dict[str, Any]:
    kinds = [_TYPES.get(name, name) for kind, name in NS_FILES.items() if kind in ALL_NAMESPACES]
    # Without newuidmap an ordinary user may map one id: the own one.
    user = IdMaps((IdMapping(0, os.geteuid(), 1),), (IdMapping(0, os.getegid(), 1),))
    maps = container_maps(own_maps()) if os.geteuid() == 0 else user
    linux: dict[str, Any] = {
        "namespaces": [{"type": kind} for kind in kinds],
        "uidMappings": [{"containerID": m.inside, "hostID": m.outside, "size": m.count} for m in maps.uids],
        "gidMappings": [{"containerID": m.inside, "hostID": m.outside, "size": m.count} for m in maps.gids],
        "maskedPaths": list(MASKED_PATHS),
        "readonlyPaths": list(READONLY_PATHS),
        "seccomp": _seccomp(default_profile()),
    }
    if group is not None:
        linux["cgroupsPath"] = group
        linux["resources"] = {
            "memory": {"limit": LIMITS.memory_bytes},
            "pids": {"limit": LIMITS.pids},
            "cpu": {"quota": quota_usec(LIMITS.cpus or 1), "period": CPU_PERIOD_USEC},
        }
    return linux


def _seccomp(profile: Profile) -> dict[str, Any]:
    return {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": profile.default_errno,
        "architectures": [_ARCHITECTURES[os.uname().machine]],
        "syscalls": [_rule(rule) for rule in profile.rules],
    }


def _rule(rule: Rule) -> dict[str, Any]:
    answer = (
        {"action": "SCMP_ACT_ALLOW"} if rule.errno is None else {"action": "SCMP_ACT_ERRNO", "errnoRet": rule.errno}
    )
    conditions = [
        {"index": c.index, "value": c.mask, "valueTwo": c.value & c.mask, "op": "SCMP_CMP_MASKED_EQ"}
        for c in rule.conditions
    ]
    return {"names": list(rule.calls), **answer, **({"args": conditions} if conditions else {})}

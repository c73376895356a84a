"""The contenders that others have written: unshare, bwrap, crun, runc; podman and docker are in `labkit.measure.engines`.

What they keep lies in a scratch folder and is removed at the end. They do not all do the same: ``note`` says what each one does, and
it is never more than labkit's full container does. runc and crun get labkit's container as an OCI bundle, with the same
namespaces, id maps, capabilities and, where they can use cgroups here, the same limits.

See: unshare(1), bwrap(1), runc(8), crun(1), OCI Runtime Specification, config.md.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from labkit.container.spec import ALL_NAMESPACES
from labkit.errors import LabkitError
from labkit.isolation.capabilities import DOCKER_DEFAULT
from labkit.isolation.cgroups.limits import CPU_PERIOD_USEC, quota_usec
from labkit.isolation.idmap import IdMapping, IdMaps, container_maps, own_maps
from labkit.linux.constants import NS_FILES
from labkit.measure import engines
from labkit.measure.contenders import LIMITS, Contender
from labkit.measure.programs import container_name, held_cgroups, outside, program, quietly
from labkit.measure.scratch import scratch_folder

__all__ = ["PEERS", "oci_config"]

_BUNDLE_NOTE = "an OCI bundle like labkit's container, but a read-only root and no seccomp filter"


@contextmanager
def _unshare(rootfs: Path) -> Iterator[Contender]:
    kinds = ("--user", "--map-root-user", "--mount", "--pid", "--fork", "--net", "--ipc", "--uts", "--cgroup")
    command = [program("unshare"), *kinds, f"--root={rootfs}", "/bin/true"]
    yield outside("unshare", command, "seven namespaces and chroot; no limits, no filter, no /proc")


@contextmanager
def _bwrap(rootfs: Path) -> Iterator[Contender]:
    command = [program("bwrap"), "--unshare-all", "--ro-bind", str(rootfs), "/", "/bin/true"]
    yield outside("bwrap", command, "seven namespaces, read-only root, no capabilities; no limits, no filter, no /proc")


def oci_config(rootfs: Path, *, group: str | None) -> dict[str, object]:
    """Return a bundle's ``config.json`` for ``/bin/true`` with labkit's defaults, but without a seccomp filter.

    The container's cgroup, with limits, is below ``group``; None sets no limits.
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
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
        ],
        "linux": _oci_linux(group),
    }  # fmt: skip


def _oci_linux(group: str | None) -> dict[str, object]:
    names = {"mnt": "mount", "net": "network"}
    kinds = [names.get(name, name) for kind, name in NS_FILES.items() if kind in ALL_NAMESPACES]
    # Without newuidmap an ordinary user may map one id: the own one.
    user = IdMaps((IdMapping(0, os.geteuid(), 1),), (IdMapping(0, os.getegid(), 1),))
    maps = container_maps(own_maps()) if os.geteuid() == 0 else user
    linux: dict[str, object] = {
        "namespaces": [{"type": kind} for kind in kinds],
        "uidMappings": [{"containerID": m.inside, "hostID": m.outside, "size": m.count} for m in maps.uids],
        "gidMappings": [{"containerID": m.inside, "hostID": m.outside, "size": m.count} for m in maps.gids],
    }
    if group is not None:
        linux["cgroupsPath"] = f"{group}/{container_name()}"
        linux["resources"] = {
            "memory": {"limit": LIMITS.memory_bytes},
            "pids": {"limit": LIMITS.pids},
            "cpu": {"quota": quota_usec(LIMITS.cpus or 1), "period": CPU_PERIOD_USEC},
        }
    return linux


def _oci_runtime(name: str, without_limits: Sequence[str] = ()) -> Callable[[Path], AbstractContextManager[Contender]]:
    """Return how to prepare an OCI runtime; ``without_limits`` are options for machines where it can use no cgroups."""

    @contextmanager
    def prepare(rootfs: Path) -> Iterator[Contender]:
        with scratch_folder() as folder, held_cgroups() as group:
            options = [program(name), "--root", str(folder / "state")]
            try:
                try:
                    contender = _try_bundle(name, options, folder, oci_config(rootfs, group=group), _BUNDLE_NOTE)
                except LabkitError as error:
                    options += without_limits
                    note = f"{_BUNDLE_NOTE}; no limits ({error})"
                    contender = _try_bundle(name, options, folder, oci_config(rootfs, group=None), note)
                yield contender
            finally:
                _delete(options)

    return prepare


def _try_bundle(
    name: str, options: Sequence[str], folder: Path, config: Mapping[str, object], note: str
) -> Contender:  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    try:
        return outside(name, [*options, "run", "--bundle", str(folder), container_name()], note)
    except LabkitError:
        _delete(options)
        raise


def _delete(options: Sequence[str]) -> None:
    """Have the runtime forget the container, if it still knows it."""
    quietly(*options, "delete", "--force", container_name())


#: How each of the others is prepared.
PEERS: Mapping[str, Callable[[Path], AbstractContextManager[Contender]]] = {
    "unshare": _unshare,
    "bwrap": _bwrap,
    "crun": _oci_runtime("crun", ["--cgroup-manager=disabled"]),
    "runc": _oci_runtime("runc"),
    "podman": engines.podman,
    "docker": engines.docker,
}

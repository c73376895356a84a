"""The levels of defence of the attack table, as containers: each is the one before with one thing more.

The first two have no root file system, only a chroot that the attacker is put into; labkit calls that `Namespaced`. From the third
on they are `Container`, and each level gives one more argument its real value. The last one is labkit's default.

See: `labkit.measure.attacks`, `labkit.container`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from labkit.container.container import Container, Namespaced
from labkit.container.spec import ALL_NAMESPACES, MountSpec, Security
from labkit.isolation.capabilities import DOCKER_DEFAULT
from labkit.isolation.cgroups import Limits
from labkit.linux.constants import NS
from labkit.units import MiB

__all__ = ["LADDER", "LEVEL_LIMITS", "PACKAGE_INSIDE", "WRITABLE_INSIDE", "Rung"]

LEVEL_LIMITS = Limits(memory_bytes=64 * MiB, pids=32, cpus=0.5)
#: Where containers find labkit, which the attackers are part of, and a folder that they may write to.
PACKAGE_INSIDE, WRITABLE_INSIDE = "/opt/labkit-attack", "/opt/labkit-writable"

_NO_DEFENCE = Security(
    namespaces=ALL_NAMESPACES & ~NS.USER, capabilities=None, no_new_privs=False, seccomp=False, mask_paths=False
)


@dataclass(frozen=True, slots=True)
class Rung:
    """One level. Without ``security`` it is the host's file tree, and the attacker must enter its jail itself."""

    namespaces: NS
    security: Security | None = None
    limits: Limits | None = None

    @property
    def jailed(self) -> bool:
        """True where there is no root file system but a chroot."""
        return self.security is None

    def make(self, command: Sequence[str], *, package: Path, writable: Path) -> Container | Namespaced:
        """Return what has to be started, with all streams as pipes."""
        if self.security is None:
            return Namespaced(command, namespaces=self.namespaces, cwd="/", streams=("pipe", "pipe", "pipe"))
        mounts = [
            MountSpec("bind", f"{PACKAGE_INSIDE}/labkit", str(package / "labkit"), ("ro",)),
            MountSpec("overlay", WRITABLE_INSIDE, str(writable)),
        ]
        return Container(
            command, image_like_host=True, security=self.security, limits=self.limits, mounts=mounts,
            streams=("pipe", "pipe", "pipe"),
        )  # fmt: skip

    def without_limits(self) -> Rung:
        """Return the same level for a machine on which this user can limit nothing."""
        return replace(self, limits=None)


def _rungs() -> dict[str, Rung]:
    without_user = ALL_NAMESPACES & ~NS.USER
    rungs = {
        "chroot": Rung(NS(0)),
        "namespaces": Rung(without_user),
        "pivot_root": Rung(without_user, _NO_DEFENCE),
    }
    security = replace(_NO_DEFENCE, namespaces=None)
    rungs["user"] = Rung(ALL_NAMESPACES, security)
    rungs["limits"] = Rung(ALL_NAMESPACES, security, LEVEL_LIMITS)
    for name, defended in _more_and_more(security):
        rungs[name] = Rung(ALL_NAMESPACES, defended, LEVEL_LIMITS)
    return rungs


def _more_and_more(security: Security) -> list[tuple[str, Security]]:
    with_capabilities = replace(security, capabilities=DOCKER_DEFAULT)
    with_no_new_privs = replace(with_capabilities, no_new_privs=True)
    with_seccomp = replace(with_no_new_privs, seccomp=True)
    with_masks = replace(with_seccomp, mask_paths=True)
    return [
        ("capabilities", with_capabilities),
        ("no_new_privs", with_no_new_privs),
        ("seccomp", with_seccomp),
        ("masks", with_masks),
    ]


#: From "chroot only" to labkit's default, by the names in `labkit.measure.attacks.DEFENCES`.
LADDER: dict[str, Rung] = _rungs()

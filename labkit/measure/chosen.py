"""The same attacks against any choice of defences: take one away, and see which attack comes back.

The ladder of `labkit.measure.attacks` adds one defence after the other. Here each may be had or not, as far as one does not need
another: capabilities, filters, limits and masks belong to a container, and that has namespaces and a root filesystem. And the
kernel loads the filter of a process without CAP_SYS_ADMIN only if it can gain no privileges any more (seccomp(2), EACCES).

See: `labkit.measure.attacks`, `labkit.measure.ladder`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from labkit.container.spec import ALL_NAMESPACES, Security
from labkit.errors import InvalidSpec
from labkit.isolation.capabilities import DOCKER_DEFAULT
from labkit.isolation.cgroups import Cgroup
from labkit.linux.constants import NS
from labkit.measure.attacks import ATTACKS, DEFENCES
from labkit.measure.inner_python import open_package
from labkit.measure.ladder import LADDER, LEVEL_LIMITS, Rung
from labkit.measure.outcomes import Outcome
from labkit.measure.record import Result
from labkit.measure.scratch import scratch_folder
from labkit.measure.siege import Level

__all__ = ["CHOSEN", "Board", "attack_with", "complete"]

#: What stands for the choice in an `Outcome`, where a level of the ladder has its name.
CHOSEN = "chosen"
_WITHOUT_CONTAINER = ("chroot", "namespaces")


@dataclass(frozen=True, slots=True)
class Board(Result):
    """A choice of defences and the outcomes so far, beside those of no defence and of all (None: not tried)."""

    defences: tuple[str, ...]
    outcomes: tuple[Outcome, ...]
    none: tuple[Outcome, ...]
    all: tuple[Outcome, ...]

    @property
    def through(self) -> tuple[str, ...]:
        """The attacks that succeeded against the choice."""
        return tuple(outcome.attack for outcome in self.outcomes if outcome.succeeded)


def complete(defences: Iterable[str]) -> tuple[str, ...]:
    """Return ``defences`` in the order of the ladder, with those that they need added; "chroot" is always there.

    Raises: InvalidSpec for a name that is not in `DEFENCES`.
    """
    chosen = {"chroot", *defences}
    unknown = sorted(chosen.difference(LADDER))
    if unknown:
        raise InvalidSpec(f"{unknown[0]!r} is no defence: choose among {', '.join(LADDER)}.")
    if chosen.difference(_WITHOUT_CONTAINER):
        chosen |= {"namespaces", "pivot_root"}
    if "seccomp" in chosen:
        chosen.add("no_new_privs")
    return tuple(defence.name for defence in DEFENCES if defence.name in chosen)


def attack_with(defences: Iterable[str], attacks: Iterable[str] | None = None) -> Iterator[Outcome]:
    """Try ``attacks`` (all) against exactly ``defences`` (see `complete`), and yield each outcome as it comes.

    Closing the iterator ends what runs. Raises: InvalidSpec for an unknown name, FeatureMissing for limits that this user may not set.
    """
    chosen = complete(defences)
    names = [attack.name for attack in ATTACKS]
    wanted = names if attacks is None else [name for name in attacks if _is_attack(name, names)]
    if "limits" in chosen:
        # Asked first: `Level` would go on without them.
        Cgroup.create(None, LEVEL_LIMITS).delete()
    with (
        scratch_folder() as folder,
        open_package() as package,
        Level(CHOSEN, folder, package, rung=_rung(chosen)) as level,
    ):
        for name in wanted:
            yield level.attempt(name)


def _is_attack(name: str, names: Iterable[str]) -> bool:
    if name not in names:
        raise InvalidSpec(f"{name!r} is no attack: choose among {', '.join(names)}.")
    return True


def _rung(chosen: tuple[str, ...]) -> Rung:
    """Return the level that has exactly the ``chosen`` defences."""
    if "pivot_root" not in chosen:
        return LADDER[chosen[-1]]
    namespaces = ALL_NAMESPACES if "user" in chosen else ALL_NAMESPACES & ~NS.USER
    security = Security(
        namespaces=namespaces,
        capabilities=DOCKER_DEFAULT if "capabilities" in chosen else None,
        no_new_privs="no_new_privs" in chosen,
        seccomp="seccomp" in chosen,
        mask_paths="masks" in chosen,
    )
    return Rung(namespaces, security, LEVEL_LIMITS if "limits" in chosen else None)

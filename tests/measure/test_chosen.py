"""Attacks against any choice of defences: what one defence alone stops comes back when it is taken away."""

from __future__ import annotations

from collections.abc import Generator
from typing import cast

import pytest

from labkit.errors import FeatureMissing, InvalidSpec
from labkit.measure.attacks import DEFENCES, try_attack
from labkit.measure.chosen import CHOSEN, Board, attack_with, complete
from labkit.measure.outcomes import Outcome
from tests.support import has, requires

ALL = tuple(defence.name for defence in DEFENCES)
#: Without limits, which not every user may set.
ALL_ELSE = tuple(name for name in ALL if name != "limits")
can_attack = requires("userns", "overlay-userns", "pyseccomp")


@pytest.mark.parametrize(
    ("chosen", "completed"),
    [
        ((), ("chroot",)),
        (("namespaces",), ("chroot", "namespaces")),
        (("pivot_root",), ("chroot", "namespaces", "pivot_root")),
        (("masks",), ("chroot", "namespaces", "pivot_root", "masks")),
        (("seccomp", "user"), ("chroot", "namespaces", "pivot_root", "user", "no_new_privs", "seccomp")),
        (ALL, ALL),
    ],
)
def test_a_choice_is_completed_by_what_it_needs(chosen: tuple[str, ...], completed: tuple[str, ...]) -> None:
    assert complete(chosen) == completed


def test_what_is_no_defence_or_attack_is_refused() -> None:
    with pytest.raises(InvalidSpec, match="'hope' is no defence: choose among chroot"):
        complete(["hope"])
    with pytest.raises(InvalidSpec, match="'blackmail' is no attack: choose among"):
        next(attack_with([], ["blackmail"]))


@can_attack
def test_all_defences_but_limits_stop_every_attack_but_those_on_quantity() -> None:
    outcomes = list(attack_with(ALL_ELSE))
    assert {outcome.attack for outcome in outcomes if outcome.succeeded} == {"fork_bomb", "memory_hog"}
    assert {outcome.defence for outcome in outcomes} == {CHOSEN}


@can_attack
@pytest.mark.parametrize(("attack", "taken_away"), [("new_namespace", "seccomp"), ("escape_chroot", None)])
def test_an_attack_comes_back_when_its_defence_is_taken_away(attack: str, taken_away: str | None) -> None:
    chosen = ["namespaces"] if taken_away is None else [name for name in ALL_ELSE if name != taken_away]
    assert [outcome.succeeded for outcome in attack_with(ALL_ELSE, [attack])] == [False]
    assert [outcome.succeeded for outcome in attack_with(chosen, [attack])] == [True]


@can_attack
def test_a_choice_that_is_a_level_of_the_ladder_agrees_with_it() -> None:
    chosen = ALL[: ALL.index("user") + 1]
    for attack in ("kill_process", "mount", "read_secret"):
        (outcome,) = attack_with(chosen, [attack])
        level = try_attack(attack, "user")
        assert (outcome.succeeded, outcome.errno) == (level.succeeded, level.errno)


@can_attack
def test_limits_that_cannot_be_had_are_said_before_anything_starts() -> None:
    attempts = attack_with(["limits"], ["fork_bomb"])
    if has("cgroups"):
        assert [outcome.succeeded for outcome in attempts] == [False]
    else:
        with pytest.raises(FeatureMissing):
            next(attempts)


@can_attack
def test_closing_the_iterator_ends_what_runs() -> None:
    attempts = cast("Generator[Outcome, None, None]", attack_with(["pivot_root"]))
    next(attempts)
    attempts.close()  # the leak check of all tests looks for the container and its folder


def test_a_board_knows_what_got_through() -> None:
    outcomes = (Outcome("mount", CHOSEN, True, "", ""), Outcome("setuid", CHOSEN, None, "", ""))
    assert Board(("chroot",), outcomes, (), ()).through == ("mount",)

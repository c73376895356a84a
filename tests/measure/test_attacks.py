from __future__ import annotations

import json
import os
import socket
import subprocess
from pathlib import Path

import pytest

from labkit.errors import InvalidSpec
from labkit.measure.attacker import ATTEMPTS
from labkit.measure.attacks import ATTACKS, DEFENCES, attack_table, try_attack
from labkit.measure.hostfacts import host_facts
from labkit.measure.ladder import LADDER
from labkit.measure.outcomes import Attack, AttackTable, Defence, Outcome
from labkit.measure.targets import BOMB_PROCESSES, TARGETS
from tests.support import alone, has, requires

pytestmark = [requires("userns", "overlay-userns", "pyseccomp"), pytest.mark.timeout(300)]
IS_ROOT = os.geteuid() == 0


@pytest.fixture(scope="module")
def table() -> AttackTable:
    return attack_table()


def test_the_last_level_stops_every_attack(table: AttackTable) -> None:
    last = [table.outcome(attack.name, DEFENCES[-1].name) for attack in ATTACKS]
    allowed = set() if has("cgroups") else {"fork_bomb", "memory_hog"}
    assert {outcome.attack for outcome in last if outcome.succeeded} <= allowed


@requires("root", "cgroups")
def test_without_defence_root_can_do_everything_that_the_machine_lets_it(table: AttackTable) -> None:
    first = {attack.name: table.outcome(attack.name, "chroot") for attack in ATTACKS}
    may_differ = {"read_disk", "steal_key", "setuid", "new_namespace"}  # no disk, no keys, a nosuid /tmp, a sysctl
    assert {name for name, outcome in first.items() if outcome.succeeded is not True} <= may_differ
    assert all(outcome.errno for outcome in first.values() if outcome.succeeded is False)


@requires("root", "cgroups")
@pytest.mark.parametrize(
    ("attack", "defence"),
    [
        ("escape_chroot", "pivot_root"), ("kill_process", "namespaces"), ("mount", "namespaces"), ("read_secret", "user"),
        ("rename_host", "namespaces"), ("write_sysctl", "user"), ("trace_process", "namespaces"),
        ("abstract_socket", "namespaces"), ("new_namespace", "seccomp"), ("fork_bomb", "limits"),
        ("memory_hog", "limits"), ("setuid", "no_new_privs"),
    ],
)  # fmt: skip
def test_each_attack_is_stopped_by_the_defence_that_is_meant_for_it(
    table: AttackTable, attack: str, defence: str
) -> None:
    stopped_by = table.stopped_by(attack)
    if table.outcome(attack, "chroot").succeeded:
        assert stopped_by is not None
        assert stopped_by.name == defence


@requires("user")
def test_without_defence_an_ordinary_user_can_do_less_than_root(table: AttackTable) -> None:
    first = {attack.name: table.outcome(attack.name, "chroot").succeeded for attack in ATTACKS}
    assert first["escape_chroot"] is first["kill_process"] is first["abstract_socket"] is True
    assert not first["read_secret"]
    assert not first["write_sysctl"]
    assert not first["mount"]
    assert not first["rename_host"]


@requires("undelegated")
def test_without_cgroups_the_level_with_limits_is_unknown_and_the_others_go_on(table: AttackTable) -> None:
    assert {table.outcome(attack.name, "limits").verdict for attack in ATTACKS} == {"unknown"}
    assert table.outcome("kill_process", "seccomp").verdict == "failed"
    assert table.stopped_by("fork_bomb") is None


def test_every_cell_is_there_and_the_table_survives_json(table: AttackTable) -> None:
    assert len(table.outcomes) == len(ATTACKS) * len(DEFENCES)
    assert AttackTable.from_json(json.loads(json.dumps(table.to_json()))) == table


def test_attacks_targets_and_defences_have_one_list_of_names() -> None:
    assert [attack.name for attack in ATTACKS] == list(ATTEMPTS) == list(TARGETS)
    assert [defence.name for defence in DEFENCES] == list(LADDER)


@alone("another run's attacks have such names, too")
def test_the_host_is_as_it_was(table: AttackTable) -> None:
    """Looked at again by other means: the leak check of all tests does the rest."""
    assert table.outcomes
    mounts = subprocess.run(
        ["findmnt", "--noheadings", "--output", "SOURCE"], capture_output=True, text=True, check=True
    )
    assert "labkit-attack" not in mounts.stdout
    assert (
        socket.gethostname()
        == subprocess.run(["uname", "-n"], capture_output=True, text=True, check=True).stdout.strip()
    )
    keys = Path("/proc/keys")
    assert not keys.exists() or "labkit-" not in keys.read_text()
    # An abstract name begins with @; paths may have the name of the user in them.
    assert "@labkit-" not in Path("/proc/net/unix").read_text()


def test_an_attack_reports_as_it_goes() -> None:
    seen: list[Outcome] = []
    result = attack_table(["kill_process", "trace_process"], ["namespaces"], progress=seen.append)
    assert tuple(seen) == result.outcomes


def test_the_bomb_is_bounded_where_nothing_else_bounds_it() -> None:
    outcome = try_attack("fork_bomb", "pivot_root")
    assert outcome.succeeded
    assert outcome.evidence == f"the host counts {BOMB_PROCESSES} of {BOMB_PROCESSES} processes"


@requires("cgroups")
def test_a_hog_that_was_killed_does_not_stop_the_attacks_after_it() -> None:
    result = attack_table(["kill_process", "memory_hog"], ["limits", "masks"])
    assert [outcome.verdict for outcome in result.outcomes] == ["failed"] * 4
    assert result.outcome("memory_hog", "limits").evidence == "it was killed"


@pytest.mark.parametrize(("attack", "defence"), [("blackmail", "chroot"), ("mount", "hope"), ("", "")])
def test_what_is_no_attack_and_no_defence_is_refused(attack: str, defence: str) -> None:
    with pytest.raises(InvalidSpec, match=r"is no (attack|defence): choose among"):
        try_attack(attack, defence)


@pytest.mark.parametrize(
    ("succeeded", "stopped_by"),
    [
        ((True, True, True), None), ((True, False, False), "b"), ((False, False, False), "a"), ((False, True, False), "c"),
        ((True, False, True), None), ((True, None, False), "c"), ((None, None, None), None),
    ],
)  # fmt: skip
def test_the_stopping_defence_is_the_first_from_which_on_nothing_succeeds(
    succeeded: tuple[bool | None, ...], stopped_by: str | None
) -> None:
    defences = tuple(Defence(name, name, "") for name in "abc")
    outcomes = tuple(Outcome("x", d.name, s, "", "") for d, s in zip(defences, succeeded, strict=True))
    found = AttackTable(host_facts(), (Attack("x", "", "", ""),), defences, outcomes).stopped_by("x")
    assert (found.name if found else None) == stopped_by

"""Virtual machines in the race: only when asked for, in the order of their cost, and a reason where one cannot run."""

from __future__ import annotations

import pytest

from labkit.charts.race import concept_of, title_of
from labkit.measure.machines import MACHINES
from labkit.measure.startup import MACHINE_NAMES, NAMES, race
from tests.support import requires


def test_machines_take_part_only_when_they_are_named() -> None:
    assert set(MACHINES) == set(MACHINE_NAMES)
    assert not set(MACHINE_NAMES) & set(NAMES)


@requires("vm", "userns", "program:busybox")
@pytest.mark.timeout(240)
def test_a_machine_takes_longer_than_a_container_and_a_saved_one_less_than_one_that_boots() -> None:
    result = race(2, only=["container", "microvm", "vm-restore", "virtme-ng"], warm_up=0)
    assert [row.name for row in result.rows] == ["container", "microvm", "vm-restore", "virtme-ng"]
    fastest = {row.name: min(row.samples_ms) for row in result.ran}
    assert fastest["container"] < fastest["vm-restore"] < fastest["microvm"]
    other = result.row("virtme-ng")
    assert other.samples_ms or other.skipped


def test_machines_have_titles_and_the_colour_of_their_concept() -> None:
    for name in ("microvm", "vm-restore", "vm-hostroot"):
        assert concept_of(name) == "vm"
        assert "VM" in title_of(name)
    assert concept_of("virtme-ng") == "peer"

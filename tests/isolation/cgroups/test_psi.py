from __future__ import annotations

from pathlib import Path

import pytest

from labkit.errors import FeatureMissing, InvalidSpec
from labkit.isolation.cgroups.psi import parse_pressure, read_pressure
from tests.support import requires

PSI = """some avg10=1.50 avg60=0.25 avg300=0.01 total=860961
full avg10=0.00 avg60=0.00 avg300=0.00 total=7
"""


def test_both_lines_of_a_pressure_file_become_numbers() -> None:
    seen = parse_pressure(PSI, resource="cpu", scope="cgroup")
    assert seen.some.avg10_percent == 1.5
    assert seen.some.total_usec == 860961
    assert seen.full is not None and seen.full.total_usec == 7


def test_the_cpu_pressure_of_older_kernels_has_no_full_line() -> None:
    assert parse_pressure(PSI.splitlines()[0], resource="cpu", scope="machine").full is None


def test_an_empty_pressure_file_is_a_feature_that_is_missing() -> None:
    with pytest.raises(FeatureMissing, match="psi=1"):
        parse_pressure("", resource="io", scope="cgroup")


@requires("psi")
def test_without_a_group_of_the_v2_tree_the_machines_pressure_is_shown_and_marked() -> None:
    seen = read_pressure(None, "memory")
    assert seen.scope == "machine"
    assert f"total={seen.some.total_usec}" in Path("/proc/pressure/memory").read_text()


def test_another_resource_is_refused() -> None:
    with pytest.raises(InvalidSpec, match="ask for cpu"):
        read_pressure(None, "disk")  # type: ignore[arg-type]

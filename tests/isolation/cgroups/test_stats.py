from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labkit.errors import FeatureMissing
from labkit.isolation.cgroups import Stats
from labkit.isolation.cgroups.stats import Events, parse_keyed, parse_pressure, sum_nested

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


@given(st.dictionaries(st.from_regex(r"[a-z_]{1,12}\Z", fullmatch=True), st.integers(0, 2**64)))
def test_keyed_files_are_read_back_as_they_were_written(numbers: dict[str, int]) -> None:
    assert parse_keyed("".join(f"{key} {value}\n" for key, value in numbers.items())) == numbers


def test_lines_without_a_number_are_left_out() -> None:
    assert parse_keyed("max 3\nnonsense\nrange 0-1\n\n") == {"max": 3}


def test_io_is_added_over_all_disks_and_a_bare_device_is_no_number() -> None:
    text = "254:0 rbytes=4096 wbytes=1 rios=1\n8:0 \n8:16 rbytes=4 wbytes=0 rios=1\n"
    assert sum_nested(text, "rbytes") == 4100


def test_two_halves_of_a_hybrid_group_make_one_reading() -> None:
    joined = Stats(pids=3).completed_by(Stats(pids=9, cpu_usage_usec=5))
    assert joined == Stats(pids=3, cpu_usage_usec=5)


def test_events_take_their_flags_from_the_v2_half() -> None:
    old, new = Events(populated=False, frozen=False, oom_kills=1), Events(populated=True, frozen=True)
    assert old.completed_by(new) == Events(populated=True, frozen=True, oom_kills=1)

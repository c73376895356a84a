from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from labkit.isolation.cgroups import Stats
from labkit.isolation.cgroups.stats import Events, parse_keyed, sum_nested


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

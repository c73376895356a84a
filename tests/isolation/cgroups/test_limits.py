from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labkit.errors import InvalidSpec
from labkit.isolation.cgroups import Limits, shares_from_weight, weight_from_shares
from labkit.isolation.cgroups.limits import format_cpuset, parse_cpuset, quota_usec

WEIGHTS = st.integers(1, 10_000)
SHARES = st.integers(2, 262_144)


def test_the_default_weight_of_v2_is_the_default_number_of_shares_of_v1() -> None:
    assert shares_from_weight(100) == 1024
    assert weight_from_shares(1024) == 100


def test_a_ratio_of_weights_stays_the_same_ratio_of_shares() -> None:
    assert shares_from_weight(300) == 3 * shares_from_weight(100)


@given(WEIGHTS)
def test_shares_are_what_the_kernel_accepts(weight: int) -> None:
    assert 2 <= shares_from_weight(weight) <= 262_144


@given(SHARES)
def test_weights_are_what_the_kernel_accepts(shares: int) -> None:
    assert 1 <= weight_from_shares(shares) <= 10_000


@given(WEIGHTS)
def test_a_weight_survives_the_way_to_v1_and_back(weight: int) -> None:
    assert weight_from_shares(shares_from_weight(weight)) == weight


@given(WEIGHTS, WEIGHTS)
def test_more_weight_never_means_fewer_shares(one: int, other: int) -> None:
    low, high = sorted((one, other))
    assert shares_from_weight(low) <= shares_from_weight(high)


@given(SHARES, SHARES)
def test_more_shares_never_mean_less_weight(one: int, other: int) -> None:
    low, high = sorted((one, other))
    assert weight_from_shares(low) <= weight_from_shares(high)


@given(st.floats(0.01, 1000))
def test_a_quota_is_the_asked_part_of_the_period_to_the_microsecond(cpus: float) -> None:
    assert abs(quota_usec(cpus) - cpus * 100_000) <= 0.5


@given(st.frozensets(st.integers(0, 8191), min_size=1, max_size=64))
def test_a_cpu_list_is_read_back_as_it_was_written(numbers: frozenset[int]) -> None:
    assert parse_cpuset(format_cpuset(numbers)) == numbers


def test_a_cpu_list_is_written_as_the_kernel_writes_it() -> None:
    assert format_cpuset(frozenset({5, 0, 1, 2})) == "0-2,5"


@given(st.text(max_size=12))
def test_any_text_is_a_cpu_list_or_refused_in_a_sentence(text: str) -> None:
    try:
        assert parse_cpuset(text)
    except InvalidSpec as error:
        assert str(error).endswith(".")


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ({"memory_bytes": -1}, "memory_bytes"),
        ({"memory_bytes": 100}, "memory_bytes"),
        ({"memory_bytes": 1.5e6}, "memory_bytes"),
        ({"memory_bytes": 2**63}, "memory_bytes"),
        ({"memory_high_bytes": -5}, "memory_high_bytes"),
        ({"swap_bytes": 0}, "memory_bytes"),
        ({"swap_bytes": -1, "memory_bytes": 1 << 20}, "swap_bytes"),
        ({"pids": 0}, "pids"),
        ({"pids": True}, "pids"),
        ({"cpus": 0}, "cpus"),
        ({"cpus": -1.0}, "cpus"),
        ({"cpus": float("nan")}, "cpus"),
        ({"cpus": float("inf")}, "cpus"),
        ({"cpus": 0.001}, "0.01"),
        ({"cpus": "1"}, "cpus"),
        ({"cpu_weight": 0}, "cpu_weight"),
        ({"cpu_weight": 10_001}, "cpu_weight"),
        ({"cpuset": ""}, "CPUs"),
        ({"cpuset": "1-0"}, "1-0"),
        ({"cpuset": "a"}, "CPUs"),
        ({"io_read_bytes_per_s": -1}, "io_read_bytes_per_s"),
        ({"io_write_bytes_per_s": 1}, "io_write_bytes_per_s"),
    ],
)
def test_a_limit_that_cannot_be_is_refused_by_name_in_one_sentence(words: dict[str, object], named: str) -> None:
    with pytest.raises(InvalidSpec) as caught:
        Limits(**words)  # type: ignore[arg-type]
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)


@given(
    st.one_of(st.none(), st.integers(), st.floats(), st.text(max_size=4)),
    st.one_of(st.none(), st.integers(), st.floats(), st.text(max_size=4)),
)
def test_any_pair_of_values_makes_limits_or_invalid_spec(memory: object, cpus: object) -> None:
    try:
        Limits(memory_bytes=memory, cpus=cpus)  # type: ignore[arg-type]
    except InvalidSpec:
        pass


def test_limits_name_the_controllers_that_they_need() -> None:
    assert Limits().controllers() == frozenset()
    asked = Limits(memory_bytes=1 << 20, cpus=1, cpuset="0", io_read_bytes_per_s=1 << 20)
    assert asked.controllers() == {"memory", "cpu", "cpuset", "io"}

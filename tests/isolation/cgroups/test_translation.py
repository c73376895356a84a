"""The lines written to v1 and to v2 for the same limits."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labkit.errors import FeatureMissing
from labkit.isolation.cgroups import Limits, v1, v2

ALL = Limits(
    memory_bytes=64 << 20,
    swap_bytes=16 << 20,
    pids=32,
    cpus=0.5,
    cpu_weight=200,
    cpuset="0",
    io_read_bytes_per_s=1 << 20,
)


def test_v1_is_told_in_its_own_words() -> None:
    assert list(v1.limit_writes(ALL, Limits(), device="254:0")) == [
        ("cpu", "cpu.cfs_quota_us", "50000"),
        ("cpu", "cpu.shares", "2048"),
        ("memory", "memory.limit_in_bytes", "67108864"),
        ("memory", "memory.memsw.limit_in_bytes", "83886080"),
        ("pids", "pids.max", "32"),
        ("cpuset", "cpuset.cpus", "0"),
        ("io", "blkio.throttle.read_bps_device", "254:0 1048576"),
    ]


def test_v2_is_told_in_its_own_words() -> None:
    assert list(v2.limit_writes(ALL, Limits(), device="254:0")) == [
        ("cpu", "cpu.max", "50000 100000"),
        ("cpu", "cpu.weight", "200"),
        ("memory", "memory.max", "67108864"),
        ("memory", "memory.swap.max", "16777216"),
        ("pids", "pids.max", "32"),
        ("cpuset", "cpuset.cpus", "0"),
        ("io", "io.max", "254:0 rbps=1048576 wbps=max"),
    ]


def test_lifting_every_limit_but_the_cpu_list_writes_the_words_for_none() -> None:
    assert [text for _, _, text in v1.limit_writes(Limits(), ALL, device="254:0")] == [
        "-1", "1024", "-1", "-1", "max", "254:0 0",
    ]  # fmt: skip
    assert [text for _, _, text in v2.limit_writes(Limits(), ALL, device="254:0")] == [
        "max 100000", "100", "max", "max", "max", "254:0 rbps=max wbps=max",
    ]  # fmt: skip


def test_the_same_limits_again_write_nothing() -> None:
    assert list(v1.limit_writes(ALL, ALL, device="")) == []
    assert list(v2.limit_writes(ALL, ALL, device="")) == []


def test_v1_has_no_memory_high() -> None:
    with pytest.raises(FeatureMissing, match=r"memory\.high"):
        list(v1.limit_writes(Limits(memory_high_bytes=1 << 20), Limits(), device=""))


SIZES = st.one_of(st.none(), st.integers(4096, 2**40))


@given(SIZES, SIZES, SIZES, SIZES)
def test_at_no_moment_is_memory_allowed_more_than_memory_and_swap_together(
    old: int | None, old_swap: int | None, new: int | None, new_swap: int | None
) -> None:
    before = Limits(memory_bytes=old, swap_bytes=None if old is None else old_swap)
    after = Limits(memory_bytes=new, swap_bytes=None if new is None else new_swap)
    state = {"memory.limit_in_bytes": _number(old), "memory.memsw.limit_in_bytes": _sum(before)}
    for _, name, text in v1.limit_writes(after, before, device=""):
        state[name] = float("inf") if text == "-1" else float(text)
        assert state["memory.limit_in_bytes"] <= state["memory.memsw.limit_in_bytes"]
    assert state == {"memory.limit_in_bytes": _number(new), "memory.memsw.limit_in_bytes": _sum(after)}


def _number(value: int | None) -> float:
    return float("inf") if value is None else float(value)


def _sum(limits: Limits) -> float:
    if limits.memory_bytes is None or limits.swap_bytes is None:
        return float("inf")
    return float(limits.memory_bytes + limits.swap_bytes)

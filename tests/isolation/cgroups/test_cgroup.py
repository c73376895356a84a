"""What is written to the files of a group, as cat(1) reads it, and what is refused."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from labkit.errors import DeadlineExceeded, FeatureMissing, InvalidSpec, InvalidState
from labkit.isolation.cgroups import Cgroup, CgroupParent, Limits
from tests.support import requires

from .helpers import SLEEP, cat, folders_named, running

pytestmark = requires("cgroups")
MIB = 1 << 20


def file_of(group: Cgroup, controller: str, v1_name: str, v2_name: str) -> Path:
    folder = group.folders[controller]
    return folder / (v2_name if group.version == "v2" else v1_name)


def test_memory_pids_and_cpu_limits_stand_in_the_files(parent: CgroupParent) -> None:
    with Cgroup.create(parent, Limits(memory_bytes=64 * MIB, pids=32, cpus=0.5, cpu_weight=300)) as group:
        assert cat(file_of(group, "memory", "memory.limit_in_bytes", "memory.max")) == str(64 * MIB)
        assert cat(group.folders["pids"] / "pids.max") == "32"
        assert cat(file_of(group, "cpu", "cpu.cfs_quota_us", "cpu.max")).split()[0] == "50000"
        assert cat(file_of(group, "cpu", "cpu.shares", "cpu.weight")) == ("300" if group.version == "v2" else "3072")


def test_lifted_limits_stand_in_the_files(parent: CgroupParent) -> None:
    with Cgroup.create(parent, Limits(memory_bytes=64 * MIB, pids=32, cpus=0.5)) as group:
        group.set(Limits())
        memory = cat(file_of(group, "memory", "memory.limit_in_bytes", "memory.max"))
        assert memory == "max" or int(memory) > 2**60
        assert cat(group.folders["pids"] / "pids.max") == "max"
        assert cat(file_of(group, "cpu", "cpu.cfs_quota_us", "cpu.max")).split()[0] in ("-1", "max")


def test_swap_is_limited_beside_memory_and_both_can_grow_and_shrink(parent: CgroupParent) -> None:
    with Cgroup.create(parent, Limits(memory_bytes=64 * MIB, swap_bytes=16 * MIB)) as group:
        path = file_of(group, "memory", "memory.memsw.limit_in_bytes", "memory.swap.max")
        for memory_bytes, swap_bytes in ((64, 16), (128, 0), (32, 8), (256, 64)):
            group.set(Limits(memory_bytes=memory_bytes * MIB, swap_bytes=swap_bytes * MIB))
            expected = swap_bytes if group.version == "v2" else memory_bytes + swap_bytes
            assert cat(path) == str(expected * MIB)


def test_a_group_without_limits_is_still_counted(parent: CgroupParent) -> None:
    with Cgroup.create(parent) as group, running(group, SLEEP) as child:
        assert group.procs() == [child.pid]
        assert group.stats().pids == 1
        assert (group.stats().memory_bytes or 0) > 0
        assert (group.stats().cpu_usage_usec or 0) > 0


def test_proc_says_that_a_joined_process_is_in_every_folder_of_the_group(parent: CgroupParent) -> None:
    with Cgroup.create(parent) as group, running(group, SLEEP) as child:
        positions = cat(f"/proc/{child.pid}/cgroup").splitlines()
        assert sum(line.endswith(f"/{parent.name}/{group.name}") for line in positions) == len(
            set(group.folders.values())
        )


def test_a_running_process_is_moved_in_with_attach(parent: CgroupParent) -> None:
    with Cgroup.create(parent) as one, Cgroup.create(parent) as other, running(one, SLEEP) as child:
        other.attach(child.pid)
        assert (one.procs(), other.procs()) == ([], [child.pid])


def test_join_descriptors_are_closed_with_their_context(parent: CgroupParent) -> None:
    with Cgroup.create(parent) as group:
        before = len(os.listdir("/proc/self/fd"))
        with group.join_fds() as join:
            assert len(os.listdir("/proc/self/fd")) == before + len(join.numbers)
            assert (join.v2_fd >= 0) == ("unified" in group.folders)
        join.close()
        assert len(os.listdir("/proc/self/fd")) == before


def test_a_limit_set_later_on_a_running_group_takes_its_processes_along(parent: CgroupParent) -> None:
    if "cpuset" not in parent.controllers:
        pytest.skip(parent.missing_controllers["cpuset"])
    with Cgroup.create(parent) as group, running(group, SLEEP) as child:
        assert "cpuset" not in group.folders
        group.set(Limits(cpuset="0"))
        assert cat(group.folders["cpuset"] / "cpuset.cpus") == "0"
        assert os.sched_getaffinity(child.pid) == {0}
        group.set(Limits())
        assert os.sched_getaffinity(child.pid) >= os.sched_getaffinity(0)


def test_a_cpu_that_is_not_there_is_refused_with_those_that_are(parent: CgroupParent) -> None:
    if "cpuset" not in parent.controllers:
        pytest.skip(parent.missing_controllers["cpuset"])
    with pytest.raises(InvalidSpec, match=re.escape("only 0")):
        Cgroup.create(parent, Limits(cpuset="4095"), name="wrong")
    assert folders_named("labkit-wrong") == []


def test_an_io_path_on_no_disk_is_refused_and_leaves_nothing(parent: CgroupParent) -> None:
    if "io" not in parent.controllers:
        pytest.skip(parent.missing_controllers["io"])
    with pytest.raises(FeatureMissing, match="on no disk"):
        Cgroup.create(parent, Limits(io_read_bytes_per_s=MIB, io_path="/proc"), name="wrong")
    with pytest.raises(InvalidSpec, match="cannot be looked at"):
        Cgroup.create(parent, Limits(io_read_bytes_per_s=MIB, io_path="/no/such/path"), name="wrong")
    assert folders_named("labkit-wrong") == []


def test_a_refused_set_leaves_the_limits_as_they_were(parent: CgroupParent) -> None:
    if "cpuset" not in parent.controllers:
        pytest.skip(parent.missing_controllers["cpuset"])
    with Cgroup.create(parent, Limits(pids=7)) as group:
        with pytest.raises(InvalidSpec):
            group.set(Limits(pids=9, cpuset="4095"))
        assert group.limits == Limits(pids=7)
        assert cat(group.folders["pids"] / "pids.max") == "7"


def test_less_memory_than_is_in_use_is_refused_on_v1_and_ends_in_a_kill_on_v2(parent: CgroupParent) -> None:
    hold = "x = bytearray(48 << 20)\nfor i in range(0, len(x), 4096): x[i] = 1\nprint('full', flush=True)\n" + SLEEP
    with Cgroup.create(parent, Limits(memory_bytes=64 * MIB, swap_bytes=0)) as group, running(group, hold) as child:
        assert child.stdout is not None and child.stdout.readline() == b"full\n"
        less = Limits(memory_bytes=16 * MIB, swap_bytes=0)
        if group.version == "v2":
            group.set(less)
            assert child.wait(timeout=20) == -9
            assert group.stats().oom_kills == 1
            return
        with pytest.raises(InvalidState, match="could not take enough back"):
            group.set(less)
        assert group.limits.memory_bytes == 64 * MIB
        assert cat(group.folders["memory"] / "memory.limit_in_bytes") == str(64 * MIB)


def test_memory_high_is_set_on_v2_and_refused_by_name_on_v1(parent: CgroupParent) -> None:
    if parent.version == "v2":
        with Cgroup.create(parent, Limits(memory_high_bytes=32 * MIB)) as group:
            assert cat(group.folders["memory"] / "memory.high") == str(32 * MIB)
        return
    with pytest.raises(FeatureMissing, match=r"memory\.high"):
        Cgroup.create(parent, Limits(memory_high_bytes=32 * MIB), name="wrong")
    assert folders_named("labkit-wrong") == []


@pytest.mark.parametrize("name", ["", "a/b", "..", "x" * 65, "a b", "ä"])
def test_a_name_that_could_leave_the_folder_is_refused(parent: CgroupParent, name: str) -> None:
    if name == "..":
        with Cgroup.create(parent, name=name) as group:
            assert group.name == "labkit-.."  # with the prefix it is a name like any other
        return
    with pytest.raises(InvalidSpec):
        Cgroup.create(parent, name=name)


def test_a_name_in_use_is_refused_and_its_owner_keeps_the_group(parent: CgroupParent) -> None:
    with Cgroup.create(parent, name="twice") as group:
        with pytest.raises(InvalidState, match="exists already"):
            Cgroup.create(parent, name="twice")
        assert all(folder.is_dir() for folder in group.folders.values())


def test_attaching_a_process_that_has_ended_is_an_invalid_state(parent: CgroupParent) -> None:
    with Cgroup.create(parent) as group:
        with running(group, "") as child:
            child.wait()
        with pytest.raises(InvalidState, match="has ended"):
            group.attach(child.pid)


def test_groups_nest_and_the_outer_one_takes_the_inner_one_along(parent: CgroupParent) -> None:
    outer = Cgroup.create(parent, Limits(pids=20))
    inner = Cgroup.create(outer, Limits(pids=5))
    with running(inner, SLEEP) as child:
        assert inner.folders["pids"].parent == outer.folders["pids"]
        outer.delete()
        assert child.wait(timeout=5) == -9
    inner.delete()
    assert folders_named(inner.name) == []


@requires("cgroup2:memory")
def test_on_v2_a_group_with_processes_cannot_have_groups_below_it(parent: CgroupParent) -> None:
    with Cgroup.create(parent) as outer, running(outer, SLEEP), pytest.raises(InvalidState, match="leaves only"):
        Cgroup.create(outer)


def test_deleting_twice_is_safe_and_a_deleted_group_says_so(parent: CgroupParent) -> None:
    group = Cgroup.create(parent)
    group.delete()
    group.delete()
    assert folders_named(group.name) == []
    assert group.procs() == []
    with pytest.raises(InvalidState, match="deleted"):
        group.set(Limits(pids=3))
    for action in (group.join_fds, group.freeze, group.thaw, lambda: group.attach(1), lambda: group.pressure("cpu")):
        with pytest.raises(InvalidState, match="deleted"):
            action()
    assert group.stats().pids is None
    assert not group.events.populated
    group.kill()
    group.wait_empty(0.1)


def test_delete_kills_what_still_runs_in_the_group(parent: CgroupParent) -> None:
    group = Cgroup.create(parent)
    with running(group, SLEEP) as child:
        group.delete()
        assert child.wait(timeout=5) == -9
    assert folders_named(group.name) == []


def test_wait_empty_ends_with_the_last_process_and_gives_up_in_time(parent: CgroupParent) -> None:
    with Cgroup.create(parent) as group, running(group, SLEEP) as child:
        with pytest.raises(DeadlineExceeded):
            group.wait_empty(0.05)
        child.kill()
        group.wait_empty(5)
        assert group.procs() == []


def test_pressure_is_the_groups_own_where_there_is_a_v2_tree(parent: CgroupParent) -> None:
    if not Path("/proc/pressure/cpu").exists():
        pytest.skip("this kernel keeps no pressure")
    with Cgroup.create(parent) as group:
        for resource in ("cpu", "memory", "io"):
            seen = group.pressure(resource)  # type: ignore[arg-type]
            assert seen.scope == ("cgroup" if "unified" in group.folders else "machine")
        with pytest.raises(InvalidSpec, match="ask for cpu"):
            group.pressure("disk")  # type: ignore[arg-type]


def test_making_and_deleting_200_groups_leaves_no_descriptor(parent: CgroupParent) -> None:
    Cgroup.create(parent).delete()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(200):
        Cgroup.create(parent, Limits(pids=5)).delete()
    assert len(os.listdir("/proc/self/fd")) == before

"""What a container's end is explained with: the limits that its group has met."""

from __future__ import annotations

import time

from labkit.isolation.cgroups import Cgroup, CgroupParent, Limits, LimitsMet, limits_met
from tests.support import requires

from .helpers import BURN, favour, running, wait_until

pytestmark = requires("cgroups")
MIB = 1 << 20


def test_a_group_that_met_no_limit_says_so(parent: CgroupParent) -> None:
    with Cgroup.create(parent, Limits(memory_bytes=64 * MIB, pids=5, cpus=8)) as group, running(group, "") as child:
        child.wait()
        assert limits_met(group) == LimitsMet()


def test_the_memory_limit_is_met_by_an_oom_kill(parent: CgroupParent) -> None:
    with Cgroup.create(parent, Limits(memory_bytes=16 * MIB, swap_bytes=0)) as group:
        with running(group, "x = bytearray(64 << 20)") as hog:
            assert hog.wait(timeout=20) == -9
        assert limits_met(group) == LimitsMet(oom_kills=1)


def test_the_pids_limit_is_met_by_a_refused_fork(parent: CgroupParent) -> None:
    fork = "import os\ntry: os.fork()\nexcept OSError: pass"
    with Cgroup.create(parent, Limits(pids=1)) as group, running(group, fork) as child:
        child.wait()
        assert limits_met(group) == LimitsMet(pids_limit_hits=1)


def test_the_cpu_limit_is_met_by_waiting_and_in_the_same_unit_as_the_statistics(parent: CgroupParent) -> None:
    with Cgroup.create(parent, Limits(cpus=0.1)) as group:
        with running(group, BURN):
            favour(group)
            wait_until(lambda: limits_met(group).throttled_usec > 100_000)
        group.wait_empty(5)
        time.sleep(0.11)  # the period in which it was killed still ends
        assert limits_met(group).throttled_usec == group.stats().throttled_usec

"""Waiting for an event instead of asking again and again."""

from __future__ import annotations

import time

import pytest

from labkit.errors import DeadlineExceeded
from labkit.isolation.cgroups import Cgroup, CgroupParent, Limits
from tests.support import requires

from .helpers import SLEEP, running

pytestmark = requires("cgroups")
MIB = 1 << 20


def test_an_oom_kill_is_an_event_that_is_not_missed(parent: CgroupParent) -> None:
    with Cgroup.create(parent, Limits(memory_bytes=16 * MIB, swap_bytes=0)) as group, group.watch() as watch:
        with running(group, "x = bytearray(64 << 20)") as hog:
            hog.wait(timeout=20)
        deadline_s = time.monotonic() + 10
        while group.events.oom_kills == 0:
            assert time.monotonic() < deadline_s
            assert watch.wait(10)
        assert group.events.oom_kills == 1


def test_a_refused_fork_is_an_event(parent: CgroupParent) -> None:
    fork = "import os, time\ntry: os.fork()\nexcept OSError: pass\ntime.sleep(20)"
    with Cgroup.create(parent, Limits(pids=1)) as group:
        with running(group, fork):
            seen = group.events
            while not seen.pids_limit_hits:
                seen = group.wait_event(10, since=seen)
        assert seen.pids_limit_hits == 1


def test_the_end_of_the_last_process_is_an_event(parent: CgroupParent) -> None:
    with Cgroup.create(parent) as group, running(group, SLEEP) as child:
        before = group.events
        assert before.populated
        child.kill()
        assert not group.wait_event(5, since=before).populated


def test_waiting_for_nothing_ends_at_the_deadline(parent: CgroupParent) -> None:
    with Cgroup.create(parent) as group:
        began_s = time.monotonic()
        with pytest.raises(DeadlineExceeded, match="Nothing happened"):
            group.wait_event(0.1)
        assert 0.09 < time.monotonic() - began_s < 2


def test_deleting_the_group_under_a_watch_neither_hangs_nor_fails(parent: CgroupParent) -> None:
    group = Cgroup.create(parent)
    with group.watch() as watch:
        group.delete()
        began_s = time.monotonic()
        for _ in range(3):
            watch.wait(0.2)
        assert time.monotonic() - began_s < 5
    watch.close()

"""The v2 group above labkit's own folder: changed for as long as it is needed. (A user's group: test_unprivileged.)"""

from __future__ import annotations

import os
from pathlib import Path

from labkit.isolation.cgroups import Cgroup, CgroupParent, Limits
from tests.support import requires

from .helpers import cat


@requires("root", "cgroup2:memory")
def test_controllers_that_were_enabled_at_the_top_are_disabled_again() -> None:
    control = Path("/sys/fs/cgroup/cgroup.subtree_control")
    before = cat(control)
    with CgroupParent() as parent, Cgroup.create(parent, Limits(pids=5, cpuset="0")):
        assert {"cpuset", "pids"} <= set(cat(control).split())
    assert cat(control) == before


@requires("root", "cgroup2:memory")
def test_controllers_stay_enabled_while_other_groups_may_rely_on_them() -> None:
    control = Path("/sys/fs/cgroup/cgroup.subtree_control")
    before = cat(control)
    other = Path(f"/sys/fs/cgroup/somebody-{os.getpid()}")
    other.mkdir()
    try:
        with CgroupParent() as parent, Cgroup.create(parent, Limits(pids=5)):
            pass
        assert "pids" in cat(control).split()
    finally:
        other.rmdir()
        for name in set(cat(control).split()) - set(before.split()):
            control.write_text(f"-{name}")

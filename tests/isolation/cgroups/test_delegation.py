"""The v2 group above labkit's own folder: changed for as long as it is needed. (A user's group: test_unprivileged.)"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from labkit.isolation.cgroups import Cgroup, CgroupParent, Limits, remove_tree
from tests.support import in_child, requires

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


def _use_labkit_as_root_of_a_container() -> dict[str, str]:
    import os
    from pathlib import Path

    from labkit.isolation.cgroups import Cgroup, CgroupParent, Limits
    from labkit.linux.constants import NS, MountFlag, Umount
    from labkit.linux.syscalls import mount, umount2, unshare

    outside = Path("/sys/fs/cgroup", f"labkit-test-{os.getpid()}")
    outside.mkdir()
    (outside / "cgroup.procs").write_text("0")
    unshare(NS.CGROUP | NS.MNT)
    mount(None, "/", None, MountFlag.REC | MountFlag.PRIVATE)
    umount2("/sys/fs/cgroup", Umount.DETACH)
    mount("cgroup2", "/sys/fs/cgroup", "cgroup2", MountFlag(0))
    with CgroupParent() as parent, Cgroup.create(parent, Limits(pids=5)) as group:
        inside = {"folder": str(group.folders["pids"].parent.parent), "own": Path("/proc/self/cgroup").read_text()}
    inside["own afterwards"] = Path("/proc/self/cgroup").read_text()
    inside["left"] = " ".join(entry.name for entry in os.scandir("/sys/fs/cgroup") if entry.is_dir())
    inside["outside"] = str(outside)
    return inside


@requires("root", "cgroup2:memory")
def test_root_of_a_cgroup_namespace_is_not_root_of_the_tree_and_makes_room_in_a_leaf() -> None:
    control = Path("/sys/fs/cgroup/cgroup.subtree_control")
    before = cat(control)
    control.write_text("+cpu +memory +pids")  # a container manager gives its containers controllers
    try:
        seen = in_child(_use_labkit_as_root_of_a_container)
        remove_tree(seen["outside"])
    finally:
        for name in set(cat(control).split()) - set(before.split()):
            control.write_text(f"-{name}")
    assert seen["folder"] == "/sys/fs/cgroup"
    assert seen["own"] == "0::/labkit-leaf\n"
    assert (seen["own afterwards"], seen["left"]) == ("0::/\n", "")


@requires("root", "cgroup2:memory")
def test_a_group_that_its_maker_keeps_locked_can_still_give_controllers() -> None:
    top_fd = os.open("/sys/fs/cgroup", os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(top_fd, fcntl.LOCK_SH)  # as a labkit outside does, whose container runs a labkit

        def make_a_group() -> int:
            from labkit.isolation.cgroups import Cgroup, CgroupParent, Limits

            with CgroupParent() as parent, Cgroup.create(parent, Limits(pids=5)) as group:
                return len(group.folders)

        assert in_child(make_a_group) > 0
    finally:
        os.close(top_fd)

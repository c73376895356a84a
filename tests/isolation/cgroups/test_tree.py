"""Removing trees of groups, with whatever still runs in them."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from labkit.errors import DeadlineExceeded
from labkit.isolation.cgroups import Cgroup, CgroupParent, remove_tree
from labkit.isolation.cgroups import tree as tree_module
from tests.support import requires

from .helpers import SLEEP, cat, folders_named, running

pytestmark = requires("cgroups")


def test_a_folder_that_is_gone_is_removed_already(tmp_path: Path) -> None:
    remove_tree(tmp_path / "gone")


def test_a_tree_is_removed_with_the_processes_in_its_leaves(parent: CgroupParent) -> None:
    top = Cgroup.create(parent)
    inner = Cgroup.create(top)
    with running(Cgroup.create(inner), SLEEP) as child:
        for folder in set(top.folders.values()):
            remove_tree(folder)
        assert child.wait(timeout=5) == -9
    assert not any(folder.exists() for folder in top.folders.values())


def test_fifty_levels_are_no_trouble(parent: CgroupParent) -> None:
    group = Cgroup.create(parent)
    deepest = group.folders["pids"]
    for _ in range(50):
        deepest /= "labkit-x"
        deepest.mkdir()
    remove_tree(group.folders["pids"])
    assert not group.folders["pids"].exists()
    group.delete()


def test_removing_gives_up_in_time_and_names_who_is_in_the_way(
    parent: CgroupParent, monkeypatch: pytest.MonkeyPatch
) -> None:
    group = Cgroup.create(parent)
    with running(group, SLEEP) as child:
        monkeypatch.setattr(tree_module, "kill_members", lambda folder: [])
        began_s = time.monotonic()
        with pytest.raises(DeadlineExceeded, match=str(child.pid)):
            remove_tree(group.folders["pids"], timeout_s=0.2)
        assert time.monotonic() - began_s < 2
        monkeypatch.undo()
    group.delete()


def test_members_are_killed_one_by_one_where_there_is_no_cgroup_kill(parent: CgroupParent) -> None:
    with Cgroup.create(parent) as group, running(group, SLEEP) as child:
        folder = group.folders["pids"]
        assert tree_module.kill_members(str(folder)) == [child.pid]
        assert child.wait(timeout=5) == -9


def test_this_process_is_not_killed_with_its_group(parent: CgroupParent) -> None:
    with Cgroup.create(parent) as group:
        path = group.folders["pids"] / "cgroup.procs"
        assert not tree_module._kill_if_still_in(os.getpid(), str(path))
        assert cat(path) == ""


def test_no_name_of_labkit_is_left_of_all_this(parent: CgroupParent) -> None:
    assert folders_named(f"{parent.name}*") == []

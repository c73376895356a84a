"""The program's own folders: when they come, who holds them, what happens to the tree above, and their end."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from labkit.errors import FeatureMissing, InvalidSpec, InvalidState
from labkit.isolation.cgroups import Cgroup, CgroupParent, Limits
from labkit.isolation.cgroups.parent import checked_name
from tests.support import PROJECT, requires

from .helpers import folders_named

pytestmark = requires("cgroups")


def test_nothing_is_made_before_the_first_group(parent: CgroupParent) -> None:
    assert parent.controllers
    assert folders_named(parent.name) == []


def test_only_the_hierarchies_that_a_group_needs_get_a_folder(parent: CgroupParent) -> None:
    with Cgroup.create(parent) as group:
        assert sorted(folders_named(parent.name)) == sorted({str(folder.parent) for folder in group.folders.values()})
        assert "io" not in group.folders


def test_a_closed_parent_makes_no_more_groups() -> None:
    parent = CgroupParent()
    Cgroup.create(parent)
    parent.close()
    parent.close()
    assert folders_named(parent.name) == []
    with pytest.raises(InvalidState, match="closed"):
        Cgroup.create(parent)


def test_two_programs_cannot_share_a_name() -> None:
    with CgroupParent("shared") as one, CgroupParent("shared") as other:
        Cgroup.create(one)
        with pytest.raises(InvalidState, match="two programs"):
            Cgroup.create(other)
        assert folders_named("labkit-shared") != []
    assert folders_named("labkit-shared") == []


def test_a_child_of_fork_does_not_remove_its_parents_groups() -> None:
    with CgroupParent() as parent:
        Cgroup.create(parent)
        pid = os.fork()
        if pid == 0:
            parent.close()
            os._exit(0)
        os.waitpid(pid, 0)
        assert folders_named(parent.name) != []


def test_the_default_parent_is_gone_when_python_has_exited() -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(PROJECT)!r})\n"
        "from labkit.isolation.cgroups import *\n"
        "Cgroup.create(); Cgroup.create(); print(default_parent().name)"
    )
    name = subprocess.run([sys.executable, "-I", "-c", code], check=True, capture_output=True, text=True).stdout.strip()
    assert name.startswith("labkit-")
    assert folders_named(name) == []


def test_a_limit_whose_controller_is_missing_is_refused_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABKIT_CGROUP", "labkit-no-such-group")
    with CgroupParent() as parent:
        assert parent.controllers == frozenset()
        with pytest.raises(FeatureMissing, match="LABKIT_CGROUP names, does not exist"):
            Cgroup.create(parent, Limits(pids=3))
        with pytest.raises(FeatureMissing, match="No cgroup can be made"):
            Cgroup.create(parent)


def test_labkit_cgroup_may_not_climb_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABKIT_CGROUP", "a/../../b")
    with CgroupParent() as parent, pytest.raises(InvalidSpec, match=r"without '\.\.'"):
        Cgroup.create(parent)


@requires("root")
def test_labkit_cgroup_names_the_group_to_start_from(monkeypatch: pytest.MonkeyPatch) -> None:
    with CgroupParent() as outer, Cgroup.create(outer) as base:
        hierarchies = {h.mount: h for h in outer.layout.hierarchies}
        folder = base.folders["pids"]
        mount = next(mount for mount in sorted(hierarchies, key=len, reverse=True) if folder.is_relative_to(mount))
        monkeypatch.setenv("LABKIT_CGROUP", str(folder.relative_to(mount)))
        with CgroupParent() as inner, Cgroup.create(inner, Limits(pids=3)) as group:
            assert group.folders["pids"].parent.parent == folder
        assert folders_named(inner.name) == []


@pytest.mark.parametrize("name", ["labkit-a", "b", "c.d_e-f"])
def test_every_name_has_the_prefix_once(name: str) -> None:
    assert checked_name(name).count("labkit-") == 1

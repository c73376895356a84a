"""Groups whose owner was killed, and those of owners that live."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from labkit.isolation.cgroups import Cgroup, CgroupParent, find_leftovers, leftovers, remove_leftovers
from tests.support import PROJECT, requires
from tests.support.hierarchies import mounted_hierarchies

from .helpers import cat, folders_named

pytestmark = requires("cgroups")


def test_a_program_that_was_killed_leaves_folders_that_are_found_and_those_of_the_living_are_not() -> None:
    code = (
        f"import sys, time; sys.path.insert(0, {str(PROJECT)!r})\n"
        "from labkit.isolation.cgroups import *\n"
        "Cgroup.create(); print(default_parent().name, flush=True); time.sleep(30)"
    )
    with subprocess.Popen([sys.executable, "-I", "-c", code], stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout is not None
        name = program.stdout.readline().strip()
        assert name not in {folder.name for folder in find_leftovers()}
        program.kill()
        program.wait()
    assert sorted(map(str, (f for f in find_leftovers() if f.name == name))) == sorted(folders_named(name))
    assert folders_named(name) != []
    assert name in {folder.name for folder in remove_leftovers(is_alive=lambda other: other != name)}
    assert folders_named(name) == []


def test_is_alive_is_asked_by_name_and_only_for_the_outermost_folders(parent: CgroupParent) -> None:
    asked: list[str] = []

    def is_alive(name: str) -> bool:
        asked.append(name)
        return True

    with Cgroup.create(parent, name="inner"):
        assert find_leftovers(is_alive, layout=parent.layout) == []
    assert parent.name in asked
    assert "labkit-inner" not in asked


@requires("root")
def test_the_group_that_this_process_is_in_is_never_a_leftover(parent: CgroupParent) -> None:
    with Cgroup.create(parent) as group:
        pid = os.fork()
        if pid == 0:
            group.attach(os.getpid())
            os._exit(any(folder.name == parent.name for folder in find_leftovers(lambda name: False)))
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


@requires("root", "cgroup2:memory")
def test_cleaning_up_after_a_killed_program_disables_what_it_enabled_at_the_top() -> None:
    hierarchy = next(h for h in mounted_hierarchies() if h.version == 2)
    control = Path(hierarchy.mount, "cgroup.subtree_control")
    before = cat(control)
    pid = os.fork()
    if pid == 0:
        Cgroup.create(CgroupParent("killed"))
        os._exit(0)
    os.waitpid(pid, 0)
    assert "memory" in cat(control).split()
    remove_leftovers()
    others = [entry for entry in os.scandir(hierarchy.mount) if entry.is_dir()]
    assert others or cat(control) in ("", before)


def test_one_folder_that_cannot_be_removed_does_not_save_the_others(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    names = [f"{tmp_path}/labkit-{letter}" for letter in "abc"]
    for name in names:
        os.mkdir(name)
    tried: list[str] = []

    def remove(folder: Path) -> None:
        tried.append(str(folder))
        if folder.name == "labkit-b":
            raise PermissionError("not yours")

    monkeypatch.setattr(leftovers, "find_leftovers", lambda is_alive: [Path(name) for name in names])
    monkeypatch.setattr(leftovers, "remove_tree", remove)
    with pytest.raises(ExceptionGroup) as caught:
        remove_leftovers()
    assert tried == names
    assert len(caught.value.exceptions) == 1

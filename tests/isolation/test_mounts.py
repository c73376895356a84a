"""Mounts in a namespace of a child's own, looked at with findmnt and /proc/self/mountinfo."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from labkit.errors import InvalidSpec
from labkit.isolation import mounts
from labkit.isolation.overlay import overlay_options
from labkit.linux.constants import NS, MountFlag
from tests.support import in_child, requires

BOTH = NS.USER | NS.MNT


def test_options_are_split_into_flags_and_data() -> None:
    flags, data = mounts.parse_options(("ro", "nosuid", "size=1m", "mode=700"))
    assert flags == MountFlag.RDONLY | MountFlag.NOSUID
    assert data == "size=1m,mode=700"


def test_a_path_that_this_machine_lacks_needs_no_mask() -> None:
    assert mounts.mask("/proc/no-such-thing") == []
    assert len(mounts.mask("/proc/sys")) == 1


@requires("userns", "program:findmnt")
def test_a_tmpfs_is_where_findmnt_says(tmp_path: Path) -> None:
    def body(folder: str) -> str:
        import subprocess

        from labkit.isolation import mounts
        from labkit.linux.steps import perform

        perform(mounts.tmpfs(folder, data="size=1m,mode=700"))
        command = ["findmnt", "--noheadings", "--output", "FSTYPE,OPTIONS", folder]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    printed = in_child(body, str(tmp_path), namespaces=BOTH)
    assert printed.startswith("tmpfs")
    assert "size=1024k" in printed
    assert "nosuid,nodev" in printed
    assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text()


@requires("userns")
def test_after_pivot_root_nothing_of_the_old_root_is_left(tmp_path: Path) -> None:
    def body(folder: str) -> dict[str, object]:
        import os

        from labkit.isolation import mounts
        from labkit.linux.steps import perform

        perform(mounts.tmpfs(folder))
        os.mkdir(f"{folder}/only")
        perform([*mounts.pivot_into(folder), *mounts.let_go_of_old_root()])
        return {"root": os.listdir("/"), "cwd": os.getcwd(), "above": os.listdir("/..")}

    seen: Any = in_child(body, str(tmp_path), namespaces=BOTH)
    assert seen == {"root": ["only"], "cwd": "/", "above": ["only"]}


@requires("userns")
def test_readonly_holds_for_the_whole_tree(tmp_path: Path) -> None:
    def body(folder: str) -> list[str]:
        import os

        from labkit.isolation import mounts
        from labkit.linux.steps import perform

        perform(mounts.tmpfs(folder))
        os.mkdir(f"{folder}/inner")
        perform(mounts.tmpfs(f"{folder}/inner"))
        perform(mounts.readonly(folder))
        refused = []
        for path in (f"{folder}/x", f"{folder}/inner/x"):
            try:
                open(path, "w").close()
            except OSError as error:
                refused.append(error.strerror)
        return refused

    assert in_child(body, str(tmp_path), namespaces=BOTH) == ["Read-only file system"] * 2


@requires("userns")
def test_a_masked_file_is_empty_and_a_masked_folder_too(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/secret").write_text("secret")

    def body(folder: str) -> list[object]:
        import os

        from labkit.isolation import mounts
        from labkit.linux.steps import perform

        perform([*mounts.mask(f"{folder}/secret"), *mounts.mask(f"{folder}/folder")])
        return [open(f"{folder}/secret").read(), os.listdir(f"{folder}/folder")]

    assert in_child(body, str(tmp_path), namespaces=BOTH) == ["", []]
    assert (tmp_path / "secret").read_text() == "secret"


def test_too_many_layers_for_one_mount_are_refused() -> None:
    with pytest.raises(InvalidSpec, match="fewer layers"):
        overlay_options([f"/{'x' * 60}/{number}" for number in range(100)])


def test_colons_and_commas_in_a_layer_s_path_are_escaped() -> None:
    assert overlay_options(["/a:b", "/c,d"]) == "lowerdir=/a\\:b:/c\\,d"


@requires("overlay-userns")
def test_a_union_shows_the_topmost_file_and_deletes_by_a_whiteout(tmp_path: Path) -> None:
    def body(folder: str) -> dict[str, object]:
        import os
        import stat

        from labkit.isolation import mounts
        from labkit.isolation.overlay import overlay
        from labkit.linux.steps import perform

        perform(mounts.tmpfs(folder))
        for name in ("top", "bottom", "upper", "work", "merged"):
            os.mkdir(f"{folder}/{name}")
        for name, text in (("top/a", "top"), ("bottom/a", "bottom"), ("bottom/b", "bottom")):
            with open(f"{folder}/{name}", "w") as file:
                file.write(text)
        layers = [f"{folder}/top", f"{folder}/bottom"]
        perform(overlay(f"{folder}/merged", layers, upper=f"{folder}/upper", work=f"{folder}/work", userxattr=True))
        os.unlink(f"{folder}/merged/b")
        with open(f"{folder}/merged/a", "a") as file:
            file.write("+")
        upper = {name: os.lstat(f"{folder}/upper/{name}") for name in os.listdir(f"{folder}/upper")}
        return {
            "merged": os.listdir(f"{folder}/merged"),
            "a": open(f"{folder}/upper/a").read(),
            "whiteout": stat.S_ISCHR(upper["b"].st_mode) or upper["b"].st_size == 0,
            "below": open(f"{folder}/bottom/b").read() + open(f"{folder}/top/a").read(),
        }

    assert in_child(body, str(tmp_path), namespaces=BOTH) == {
        "merged": ["a"], "a": "top+", "whiteout": True, "below": "bottomtop",
    }  # fmt: skip

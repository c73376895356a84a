from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from labkit.image.build.errors import BuildError
from labkit.image.build.tree import Tree
from tests.support import requires


def fill(folder: Path, names: str) -> Path:
    """Make files (``a/b``), folders (``a/``) and links (``a->b``) in ``folder``."""
    for name in names.split():
        link, arrow, target = name.partition("->")
        path = folder / link
        path.parent.mkdir(parents=True, exist_ok=True)
        if arrow:
            path.symlink_to(target)
        elif name.endswith("/"):
            path.mkdir(exist_ok=True)
        else:
            path.write_text(f"{folder.name}:{name}")
    return folder


def paths(tree: Tree) -> list[str]:
    return [entry.path for entry in tree.walk(tree.root)]


def test_folders_come_before_what_they_hold_and_names_are_sorted(tmp_path: Path) -> None:
    tree = Tree([fill(tmp_path, "b/y b/x a c/")])
    assert paths(tree) == ["/a", "/b", "/b/x", "/b/y", "/c"]


def test_links_are_followed_inside_the_tree_only(tmp_path: Path) -> None:
    (tmp_path / "outside").write_text("outside")
    root = tmp_path / "root"
    tree = Tree([fill(root, "etc/passwd up->../../../../outside abs->/etc/passwd dir->etc loop->loop in/rel->../etc")])
    assert tree.find("/up") is None
    assert (found := tree.find("abs")) is not None and found.path == "/etc/passwd"
    assert (found := tree.find("dir/passwd")) is not None and found.path == "/etc/passwd"
    assert (found := tree.find("in/rel/passwd")) is not None and found.path == "/etc/passwd"
    assert (found := tree.find("/dir", follow=False)) is not None and found.is_link
    assert (found := tree.find("../../etc")) is not None and found.path == "/etc"
    with pytest.raises(BuildError, match="too many levels"):
        tree.find("loop")


def test_what_is_not_there_yet_is_named(tmp_path: Path) -> None:
    tree = Tree([fill(tmp_path, "a/b link->a")])
    entry, missing = tree.place_of("/link/new/../other/file")
    assert (entry.path, missing) == ("/a", ["other", "file"])


def test_hidden_paths_are_not_there_but_lead_to_what_came_back(tmp_path: Path) -> None:
    from labkit.image.build.dockerignore import Ignore

    fill(tmp_path, "d/keep d/x e/y f")
    ignore = Ignore.from_text("d\n!d/keep\ne\nf")
    tree = Tree([tmp_path], hides=ignore.hides, prunes=ignore.hides_all_below)
    assert paths(tree) == ["/d", "/d/keep"]


@requires("root")
def test_layers_are_seen_as_overlayfs_shows_them(tmp_path: Path) -> None:
    low = fill(tmp_path / "low", "a d/one d/two gone opaque/old file_then_dir dir_then_file/x deep/e/f")
    middle = fill(tmp_path / "middle", "d/two opaque/new file_then_dir/y link->d")
    top = fill(tmp_path / "top", "d/three dir_then_file deep/e/g")
    os.mknod(middle / "gone", 0o020000, os.makedev(0, 0))
    os.setxattr(middle / "opaque", "user.overlay.opaque", b"y")
    tree = Tree([top, middle, low], layers=True)
    script = (
        'mount -t overlay labkit-test -o "userxattr,lowerdir=$1:$2:$3" "$4" && cd "$4"'
        " && find . -mindepth 1 -printf '/%P %y\\n'"
    )
    merged = tmp_path / "merged"
    merged.mkdir()
    command = ["unshare", "--mount", "sh", "-c", script, "sh", *map(str, (top, middle, low, merged))]
    kernel = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    kinds = {"f": "is_file", "d": "is_folder", "l": "is_link"}
    seen = {line.split()[0]: kinds[line.split()[1]] for line in kernel.splitlines()}
    assert {entry.path: next(k for k in kinds.values() if getattr(entry, k)) for entry in tree.walk(tree.root)} == seen
    two = tree.find("/d/two")
    assert two is not None
    assert Path(two.places[0]).read_text() == "middle:d/two"


def test_a_link_of_a_lower_layer_is_no_way_out(tmp_path: Path) -> None:
    secret = fill(tmp_path / "host", "secret")
    low = tmp_path / "low"
    low.mkdir()
    (low / "d").symlink_to(secret)
    top = fill(tmp_path / "top", "d/own")
    tree = Tree([top, low], layers=True)
    assert paths(tree) == ["/d", "/d/own"]
    assert tree.find("/d/secret") is None

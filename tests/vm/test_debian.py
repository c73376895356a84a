"""A system out of packages: its files, what its scripts would have written, and a disk on which everything is root's."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

import pytest

from labkit.errors import FeatureMissing, GuestError
from labkit.vm.debian import make_disk, unpack_system
from tests.support import requires

pytestmark = requires("program:dpkg-deb")


def package(folder: Path, name: str, files: dict[str, str]) -> Path:
    """Return a real package with ``files``."""
    tree = folder / f"{name}-tree"
    for path, content in files.items():
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        (tree / path).write_text(content)
    (tree / "DEBIAN").mkdir()
    (tree / "DEBIAN/control").write_text(
        f"Package: {name}\nVersion: 1\nArchitecture: all\nMaintainer: nobody <nobody@localhost>\nDescription: test\n"
    )
    path = folder / f"{name}_1_all.deb"
    command = ["dpkg-deb", "-Znone", "--root-owner-group", "--build", str(tree), str(path)]
    subprocess.run(command, check=True, capture_output=True)
    return path


@pytest.fixture
def archives(tmp_path: Path) -> list[Path]:
    """Two small packages: one with the users, one with programs in old places."""
    masters = {
        "usr/share/base-passwd/passwd.master": "root:*:0:0:root:/root:/bin/bash\ndaemon:*:1:1::/:/bin/false\n",
        "usr/share/base-passwd/group.master": "root:*:0:\nshadow:*:42:\n",
        "usr/share/doc/base/readme": "left out\n",
    }
    programs = {"bin/hello": "#!/bin/sh\n", "usr/sbin/secret": "x\n", "lib/systemd/unit": "y\n"}
    return [package(tmp_path, "base", masters), package(tmp_path, "programs", programs)]


def test_files_go_where_a_merged_system_has_them_and_users_are_there(archives: list[Path], tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    assert unpack_system(archives, tree) == {}
    assert (tree / "bin").readlink() == Path("usr/bin")
    assert (tree / "usr/bin/hello").read_text() == (tree / "bin/hello").read_text() == "#!/bin/sh\n"
    assert (tree / "usr/lib/systemd/unit").is_file()
    assert not (tree / "usr/share/doc/base").exists()
    assert (tree / "etc/passwd").read_text().startswith("root:x:0:0:")
    assert (tree / "etc/shadow").read_text() == "root::::::::\ndaemon:*:::::::\n"
    assert stat.S_IMODE((tree / "etc/shadow").stat().st_mode) == 0o640
    assert len((tree / "etc/machine-id").read_text().strip()) == 32


@requires("program:e2fsck")
def test_on_the_disk_files_are_roots_but_for_those_that_are_not(archives: list[Path], tmp_path: Path) -> None:
    tree, disk = tmp_path / "tree", tmp_path / "disk"
    unpack_system(archives, tree)
    make_disk(tree, {"usr/sbin/secret": (7, 42)}, disk)
    assert subprocess.run(["e2fsck", "-fn", disk], capture_output=True, check=False).returncode == 0

    def owner(path: str) -> list[str]:
        done = subprocess.run(["debugfs", "-R", f"stat {path}", disk], capture_output=True, text=True, check=True)
        words = next(line for line in done.stdout.splitlines() if line.startswith("User:")).split()
        return [words[1], words[3]]

    assert owner("/usr/sbin/secret") == ["7", "42"]
    every = [Path("/"), *(Path("/") / path.relative_to(tree) for path in tree.rglob("*"))]
    for path in every:
        assert str(path) == "/usr/sbin/secret" or owner(str(path)) == ["0", "0"], path
    assert disk.stat().st_blocks * 512 < 64 << 20


def test_a_damaged_package_and_a_disk_that_cannot_be_made_are_sentences(archives: list[Path], tmp_path: Path) -> None:
    archives[0].write_bytes(archives[0].read_bytes()[:300])
    with pytest.raises(FeatureMissing, match=r"base_1_all\.deb is damaged"):
        unpack_system(archives, tmp_path / "tree")
    with pytest.raises(GuestError, match="mke2fs could not make a disk"):
        make_disk(tmp_path / "nothing", {}, tmp_path / "disk")


def test_the_caller_may_be_anybody(archives: list[Path], tmp_path: Path) -> None:
    unpack_system(archives, tmp_path / "tree")
    assert {path.lstat().st_uid for path in (tmp_path / "tree").rglob("*")} == {os.geteuid()}

from __future__ import annotations

import json
import subprocess

from hypothesis import given
from hypothesis import strategies as st

from labkit.linux.constants import NS
from labkit.linux.mountinfo import Mount, parse_mountinfo, read_mountinfo, unescape
from tests.support import in_child, requires

names = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=12)
paths = names.map("/".__add__)
plain = st.text("abcdefghij=:-", min_size=1, max_size=10).filter(lambda text: text != "-")
mounts = st.builds(
    Mount,
    mount_id=st.integers(1, 10**6),
    parent_id=st.integers(1, 10**6),
    device=st.builds("{}:{}".format, st.integers(0, 4095), st.integers(0, 2**20)),
    root=paths,
    mount_point=paths,
    options=st.lists(plain, max_size=3).map(lambda more: ("rw", *more)),  # the kernel always begins with rw or ro
    propagation=st.lists(st.sampled_from(["shared:1", "master:22", "propagate_from:3", "unbindable"]), max_size=3).map(
        tuple
    ),
    fstype=st.sampled_from(["ext4", "tmpfs", "fuse.sshfs", "cgroup2"]),
    source=names | st.just("") | st.just("-"),
    super_options=st.lists(plain, min_size=1, max_size=4).map(tuple),
)


def escape(text: str) -> str:
    """Write octal escapes as the kernel's seq_escape does."""
    return "".join(f"\\{ord(char):03o}" if char in " \t\n\\#" else char for char in text)


def line_of(mount: Mount) -> str:
    """Write a line as fs/proc_namespace.c does."""
    before = [
        str(mount.mount_id), str(mount.parent_id), mount.device, escape(mount.root), escape(mount.mount_point),
        ",".join(mount.options), *mount.propagation,
    ]  # fmt: skip
    return " ".join([*before, "-", mount.fstype, escape(mount.source), ",".join(mount.super_options)])


@given(st.lists(mounts, max_size=4))
def test_mounts_are_read_as_they_were_written_with_blanks_and_backslashes(written: list[Mount]) -> None:
    assert parse_mountinfo("".join(line_of(mount) + "\n" for mount in written)) == tuple(written)


@given(names)
def test_escapes_are_undone(text: str) -> None:
    assert unescape(escape(text)) == text


def test_an_escaped_backslash_does_not_begin_another_escape() -> None:
    assert unescape(r"\134040") == r"\040"


@requires("program:findmnt")
def test_the_own_mounts_agree_with_findmnt() -> None:
    columns = "ID,PARENT,MAJ:MIN,FSROOT,TARGET,FSTYPE,VFS-OPTIONS"
    done = subprocess.run(
        ["findmnt", "--list", "--json", "--output", columns], capture_output=True, text=True, check=True
    )
    seen = {
        (row["id"], row["parent"], row["maj:min"], row["fsroot"], row["target"], row["fstype"], row["vfs-options"])
        for row in json.loads(done.stdout)["filesystems"]
    }
    read = {
        (m.mount_id, m.parent_id, m.device, m.root, m.mount_point, m.fstype, ",".join(m.options))
        for m in read_mountinfo()
    }
    assert read == seen


@requires("mount-namespace")
def test_a_mount_at_a_place_with_blanks_is_found_there() -> None:
    def mount_and_read() -> list[str]:
        import tempfile
        from pathlib import Path

        from labkit.linux.constants import MountFlag
        from labkit.linux.mountinfo import read_mountinfo
        from labkit.linux.syscalls import mount

        # The machine's own /tmp is covered first: nothing is written to it.
        mount("labkit-test", "/tmp", "tmpfs", MountFlag(0))
        place = Path(tempfile.mkdtemp()) / "a b\tc\n\\040#"
        place.mkdir()
        mount("labkit test", str(place), "tmpfs", MountFlag.NOSUID | MountFlag.NODEV, "size=64k")
        found = read_mountinfo()[-1]
        return [str(place), found.mount_point, found.source, found.fstype, *found.options]

    place, found, source, fstype, *options = in_child(mount_and_read, namespaces=NS.USER | NS.MNT)
    assert found == place
    assert (source, fstype) == ("labkit test", "tmpfs")
    assert {"nosuid", "nodev"} <= set(options)

"""What lies in layers is read from outside, and agrees with what the container's own programs say."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from labkit.container.container import Container
from labkit.errors import InvalidState
from labkit.measure.layers import Layer, changed_between, look_at_stack, read_layer, writable_folder
from labkit.measure.rootfs import fill_rootfs
from tests.support import requires

PATHS = ("/etc/motd", "/srv/page", "/srv/old", "/data", "/data/a")


def fill(folder: Path, files: dict[str, str]) -> None:
    """Write ``files`` below ``folder``."""
    for path, text in files.items():
        place = Path(f"{folder}{path}")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Container]:
    """A container that waits on two lower layers, ``site`` on ``base``."""
    for part in (tmp_path, *tmp_path.parents[:2]):
        part.chmod(0o755)  # the container's root is another user
    base, site = tmp_path / "base", tmp_path / "site"
    base.mkdir()
    fill_rootfs(base)
    fill(base, {"/etc/motd": "hello\n", "/data/a": "apple\n"})
    fill(site, {"/etc/motd": "welcome\n", "/srv/page": "a page\n", "/srv/old": "a relic\n"})
    with ExitStack() as stack:
        writable = stack.enter_context(writable_folder(tmp_path / "writable"))
        container = stack.enter_context(Container(["/bin/sleep", "60"], rootfs=[site, base], writable=writable))
        container.start()
        yield container


def sh(container: Container, command: str) -> str:
    """Run a shell command inside and return what it printed."""
    with container.exec(["/bin/sh", "-c", command]) as process:
        return process.communicate(timeout_s=20).text.strip()


@requires("overlay-userns", "program:busybox")
def test_each_file_is_seen_from_the_topmost_layer_that_has_it(running: Container) -> None:
    stack = look_at_stack(running, PATHS)
    assert [layer.name for layer in stack.layers] == ["upper", "site", "base"]
    assert [layer.writable for layer in stack.layers] == [True, False, False]
    assert stack.source("/etc/motd") == "site"
    assert stack.source("/data/a") == "base"
    seen = stack.sees("/etc/motd")
    assert seen is not None
    assert seen.text == sh(running, "cat /etc/motd") == "welcome"


@requires("overlay-userns", "program:busybox")
def test_a_deletion_is_a_whiteout_above_a_file_that_stays(running: Container) -> None:
    before = look_at_stack(running, PATHS)
    sh(running, "rm /srv/old")
    after = look_at_stack(running, PATHS)
    entry = after.upper.entry("/srv/old")
    assert entry is not None
    assert entry.kind == "whiteout"
    witness = os.lstat(Path(str(running.spec.rootfs.writable), "upper/srv/old"))
    assert stat.S_ISCHR(witness.st_mode)
    assert witness.st_rdev == 0
    assert after.sees("/srv/old") is None
    assert sh(running, "ls /srv") == "page"
    assert "a whiteout at /srv/old appeared" in changed_between(before.upper, after.upper)
    assert before.layers[1:] == tuple(layer.at(before.paths) for layer in after.layers[1:])


@requires("overlay-userns", "program:busybox")
def test_a_folder_made_anew_is_opaque(running: Container) -> None:
    sh(running, "rm -r /data && mkdir /data && echo plum > /data/b")
    stack = look_at_stack(running, PATHS)
    folder = stack.upper.entry("/data")
    assert folder is not None
    assert folder.kind == "opaque folder"
    assert stack.sees("/data/a") is None
    assert sh(running, "ls /data") == "b"
    assert "/data/b" in stack.paths, "what the upper layer holds is looked at without being asked for"


@requires("overlay-userns", "program:busybox")
def test_a_change_of_mode_copies_the_whole_file_up(running: Container) -> None:
    before = look_at_stack(running, PATHS)
    sh(running, "chmod 600 /data/a")
    after = look_at_stack(running, PATHS)
    copied = after.upper.entry("/data/a")
    assert copied is not None
    assert (copied.mode, copied.size_bytes) == (0o600, len("apple\n"))
    assert changed_between(before.upper, after.upper) == ("a folder at /data appeared", "a file at /data/a appeared")


@requires("overlay-userns", "program:busybox")
def test_only_a_running_container_on_folders_shows_a_stack(running: Container) -> None:
    running.kill()
    running.wait(10)
    with pytest.raises(InvalidState, match="start it"):
        look_at_stack(running, PATHS)


def test_links_and_odd_names_are_entries_and_are_not_followed(tmp_path: Path) -> None:
    fill(tmp_path, {"/a": "one\ntwo\n", "/b/empty": "", "/b/binary": "\0\1\n"})
    (tmp_path / "link").symlink_to("/etc")
    os.mkfifo(tmp_path / "pipe")
    entries = {entry.path: entry for entry in read_layer(tmp_path)}
    assert [entry.kind for entry in entries.values()] == ["file", "folder", "file", "file", "link", "other"]
    assert entries["/a"].text == "one"
    assert entries["/b/binary"].text == ""
    assert entries["/link"].text == "/etc"
    assert read_layer(tmp_path, ["/a/below", "/none"]) == ()
    assert str(entries["/a"]).split() == ["/a", "file", "8", "B", "one"]


def test_changes_are_told_by_path(tmp_path: Path) -> None:
    fill(tmp_path, {"/a": "one\n", "/gone": "x"})
    before = Layer("upper", writable=True, entries=read_layer(tmp_path))
    fill(tmp_path, {"/a": "changed\n", "/new": "y"})
    (tmp_path / "gone").unlink()
    after = Layer("upper", writable=True, entries=read_layer(tmp_path))
    assert changed_between(before, after) == ("/a changed", "/gone went away", "a file at /new appeared")
    assert changed_between(after, after) == ()

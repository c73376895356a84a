"""Files below one folder: what works, what leads out, and what an opening would start or wait for."""

from __future__ import annotations

import errno
import os
import socket
import stat
import threading
import time
from pathlib import Path

import pytest

from labkit.sandbox.server_folder import CourseFolder
from tests.support import in_child, requires

SECRET = b"the host's own"


@pytest.fixture
def places(tmp_path: Path) -> tuple[CourseFolder, Path, Path]:
    """Return the folder, its path, and a place outside with a secret in it."""
    inside, outside = tmp_path / "course", tmp_path / "outside"
    inside.mkdir()
    outside.mkdir()
    (outside / "secret").write_bytes(SECRET)
    return CourseFolder(inside), inside, outside


def refused(*numbers: int) -> pytest.RaisesExc[OSError]:
    """Expect an OSError with one of these numbers."""
    return pytest.raises(OSError, check=lambda error: error.errno in numbers)


def test_what_is_written_is_read_and_looks_like_what_ls_sees(places: tuple[CourseFolder, Path, Path]) -> None:
    folder, inside, _ = places
    folder.make_folder("a")
    folder.write("a/b.txt", b"first")
    folder.write("a/b.txt", b"second")
    folder.append("a/b.txt", b"!", most_bytes=100)
    assert folder.read("a/b.txt", most_bytes=100) == b"second!"
    assert (inside / "a/b.txt").read_bytes() == b"second!"
    entry = folder.look("a/b.txt")
    assert (entry.name, entry.kind, entry.size_bytes, entry.writable) == ("b.txt", "file", 7, True)
    assert sorted(os.listdir(inside / "a")) == ["b.txt"]
    assert [entry.name for entry in folder.entries("", most=9)] == ["a"]


@pytest.mark.parametrize("target", ["/etc", "../outside", "..", "/proc/self/root", "{outside}"])
def test_a_link_that_leads_out_is_neither_read_listed_written_nor_a_folder(
    places: tuple[CourseFolder, Path, Path], target: str
) -> None:
    folder, inside, outside = places
    (inside / "link").symlink_to(target.format(outside=outside))
    before = sorted(os.listdir(outside))
    way_out = refused(errno.EXDEV, errno.ELOOP, errno.ENOENT)
    for act in (
        lambda: folder.look("link"),
        lambda: folder.look("link/secret"),
        lambda: folder.read("link/secret", most_bytes=100),
        lambda: folder.entries("link", most=9),
        lambda: folder.write("link/new", b"x"),
        lambda: folder.make_folder("link/new"),
        lambda: folder.append("link/secret", b"x", most_bytes=100),
        lambda: folder.rename("link/secret", "mine"),
        lambda: folder.remove("link/secret"),
    ):
        with way_out:
            act()
    assert folder.entries("", most=9) == []
    assert sorted(os.listdir(outside)) == before
    assert (outside / "secret").read_bytes() == SECRET


def test_a_link_is_replaced_by_what_is_written_in_its_place_and_removed_without_its_target(
    places: tuple[CourseFolder, Path, Path],
) -> None:
    folder, inside, outside = places
    (inside / "link").symlink_to(outside / "secret")
    folder.write("link", b"mine")
    assert not (inside / "link").is_symlink()
    assert (outside / "secret").read_bytes() == SECRET
    (inside / "link").unlink()
    (inside / "link").symlink_to(outside)
    folder.remove("link")
    assert (outside / "secret").read_bytes() == SECRET


def test_a_link_that_stays_below_is_as_good_as_any(places: tuple[CourseFolder, Path, Path]) -> None:
    folder, inside, _ = places
    (inside / "a").mkdir()
    (inside / "a" / "up").symlink_to("../b")
    (inside / "b").write_bytes(b"text")
    assert folder.read("a/up", most_bytes=9) == b"text"
    assert [(entry.name, entry.kind) for entry in folder.entries("a", most=9)] == [("up", "file")]


@pytest.mark.parametrize("path", ["..", "../outside/secret", "a/../../outside/secret", "a\0b", "."])
def test_a_path_with_dots_or_a_zero_is_nowhere(places: tuple[CourseFolder, Path, Path], path: str) -> None:
    folder, _, _ = places
    with refused(errno.ENOENT):
        folder.look(path)
    with refused(errno.ENOENT):
        folder.write(path + "/x", b"")


def test_a_FIFO_a_socket_and_a_device_are_not_opened(places: tuple[CourseFolder, Path, Path]) -> None:
    folder, inside, _ = places
    os.mkfifo(inside / "fifo")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(inside / "socket"))
        started_s = time.monotonic()
        for name in ("fifo", "socket"):
            with refused(errno.EINVAL):
                folder.read(name, most_bytes=100)
            with refused(errno.EINVAL):
                folder.append(name, b"x", most_bytes=100)
        assert time.monotonic() - started_s < 5.0
    assert folder.entries("", most=9) == []


def test_a_file_that_is_too_large_costs_nothing_though_it_takes_no_disk(
    places: tuple[CourseFolder, Path, Path],
) -> None:
    folder, inside, _ = places
    with (inside / "sparse").open("wb") as file:
        file.truncate(1 << 40)
    with refused(errno.EFBIG):
        folder.read("sparse", most_bytes=1 << 20)
    with refused(errno.EFBIG):
        folder.append("sparse", b"x", most_bytes=1 << 20)
    assert folder.look("sparse").size_bytes == 1 << 40


def test_only_so_many_entries_are_listed(places: tuple[CourseFolder, Path, Path]) -> None:
    folder, inside, _ = places
    for number in range(50):
        (inside / str(number)).touch()
    assert len(folder.entries("", most=20)) == 20


def test_a_swap_of_folder_and_link_wins_nothing(places: tuple[CourseFolder, Path, Path]) -> None:
    """The race that defeats programs which look first and open then: 3,000 rounds against a swapper that never rests."""
    folder, inside, outside = places
    (inside / "real").mkdir()
    (inside / "real" / "secret").write_bytes(b"harmless")
    (inside / "trap").symlink_to(outside)
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            os.rename(inside / "real", inside / "swapped")
            os.rename(inside / "trap", inside / "real")
            os.rename(inside / "real", inside / "trap")
            os.rename(inside / "swapped", inside / "real")

    swapper = threading.Thread(target=swap)
    swapper.start()
    seen = set()
    try:
        for number in range(3_000):
            try:
                seen.add(folder.read("real/secret", most_bytes=100))
                folder.write(f"real/new-{number}", b"x")
            except OSError as error:
                assert error.errno in (errno.ENOENT, errno.EXDEV, errno.ELOOP, errno.EAGAIN)
    finally:
        stop.set()
        swapper.join()
    assert SECRET not in seen
    assert os.listdir(outside) == ["secret"]


def test_nothing_is_replaced_by_a_rename(places: tuple[CourseFolder, Path, Path]) -> None:
    folder, _, _ = places
    folder.write("a", b"a")
    folder.write("b", b"b")
    with refused(errno.EEXIST):
        folder.rename("a", "b")
    folder.rename("a", "c")
    assert folder.read("c", most_bytes=9) == b"a"


def test_other_folders_are_shown_by_name_and_cannot_be_moved_or_removed(tmp_path: Path) -> None:
    root, work = tmp_path / "course", tmp_path / "elsewhere"
    root.mkdir()
    work.mkdir()
    folder = CourseFolder(root, parts={"work": work})
    folder.write("work/mine", b"kept")
    assert (work / "mine").read_bytes() == b"kept"
    assert [entry.name for entry in folder.entries("", most=9)] == ["work"]
    assert [entry.name for entry in folder.entries("work", most=9)] == ["mine"]
    (work / "link").symlink_to(root)
    with refused(errno.EXDEV):
        folder.look("work/link")
    for act in (lambda: folder.remove("work"), lambda: folder.rename("work", "play")):
        with refused(errno.EPERM):
            act()


def make_deep(folder: Path, depth: int) -> None:
    """Make folders one in the other, that no path could name any more."""
    fd = os.open(folder, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir("d", dir_fd=fd)
        inner_fd = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = inner_fd
    os.close(fd)


def test_a_tree_of_any_depth_with_any_names_and_modes_is_removed(places: tuple[CourseFolder, Path, Path]) -> None:
    folder, inside, outside = places
    (inside / "heap").mkdir()
    make_deep(inside / "heap", 3_000)
    for name in (b"-rf", b"new\nline", b"\xff\xfe", b"*", b" "):
        os.mkdir(os.fsencode(inside / "heap") + b"/" + name)
    (inside / "heap/out").symlink_to(outside)
    (inside / "heap/closed/inner").mkdir(parents=True)
    (inside / "heap/closed/inner/file").touch()
    (inside / "heap/closed/inner").chmod(0)
    (inside / "heap/closed").chmod(0)
    folder.remove("heap")
    assert os.listdir(inside) == []
    assert (outside / "secret").read_bytes() == SECRET


def test_the_mode_of_a_file_stays_without_the_bits_that_give_rights(places: tuple[CourseFolder, Path, Path]) -> None:
    folder, inside, _ = places
    (inside / "script").write_bytes(b"#!/bin/sh")
    (inside / "script").chmod(0o4755)
    folder.write("script", b"#!/bin/sh\n")
    assert stat.S_IMODE((inside / "script").stat().st_mode) == 0o755


@requires("root")
def test_what_root_writes_in_a_folder_belongs_to_the_owner_of_the_folder(
    places: tuple[CourseFolder, Path, Path],
) -> None:
    folder, inside, _ = places
    os.chown(inside, 54321, 54322)
    folder.write("file", b"")
    folder.make_folder("folder")
    (inside / "folder/roots").write_bytes(b"made by root")
    folder.rename("folder/roots", "moved")
    for name in ("file", "folder", "moved"):
        assert ((inside / name).stat().st_uid, (inside / name).stat().st_gid) == (54321, 54322)


@requires("user")
def test_what_the_user_may_not_write_stays(places: tuple[CourseFolder, Path, Path]) -> None:
    folder, inside, _ = places
    (inside / "fixed").write_bytes(b"as it is")
    (inside / "fixed").chmod(0o444)
    with refused(errno.EACCES):
        folder.write("fixed", b"new")
    assert not folder.look("fixed").writable


@requires("userns", "mount-namespace")
def test_a_full_disk_leaves_the_old_file_and_no_half_of_the_new_one() -> None:
    assert in_child(_fill, namespaces=0x10000000 | 0x00020000) == ["ENOSPC", "old", ["file"]]


def _fill() -> list[object]:
    import errno
    import os
    from pathlib import Path

    from labkit.linux.constants import MountFlag
    from labkit.linux.syscalls import mount
    from labkit.sandbox.server_folder import CourseFolder

    mount("labkit-test", "/mnt", "tmpfs", MountFlag.NOSUID, "size=64k")
    folder = CourseFolder(Path("/mnt"))
    folder.write("file", b"old")
    try:
        folder.write("file", b"x" * (1 << 20))
    except OSError as error:
        return [errno.errorcode[error.errno or 0], folder.read("file", most_bytes=9).decode(), os.listdir("/mnt")]
    return []

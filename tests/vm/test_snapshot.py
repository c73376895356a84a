"""Machines as files: saved, brought back, twice from one file, and what is said of bad ones."""

from __future__ import annotations

import os
import statistics
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from labkit.errors import GuestError, InvalidState
from labkit.vm.guest import Guest
from tests.support import requires

pytestmark = requires("vm")


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, float]]:
    """A snapshot of a guest that has written a file and left a counter running, and how long its boot took."""
    path = tmp_path_factory.mktemp("snapshots") / "guest.snapshot"
    with Guest() as guest:
        guest.exec(
            [
                "sh",
                "-c",
                "echo kept > /tmp/note; (i=0; while usleep 20000; do i=$((i+1)); echo $i > /tmp/count; done) &",
            ]
        )
        guest.snapshot(path)
        assert guest.exec(["cat", "/tmp/note"]).text == "kept\n"  # it goes on
        yield path, guest.timeline.ready_s


def test_a_restored_guest_has_its_files_and_its_programs_go_on(saved: tuple[Path, float]) -> None:
    with Guest.restore(saved[0]) as guest:
        assert guest.exec(["cat", "/tmp/note"]).text == "kept\n"
        first = int(guest.exec(["cat", "/tmp/count"]).text or 0)
        deadline_s = time.monotonic() + 20
        while int(guest.exec(["cat", "/tmp/count"]).text or 0) <= first:
            assert time.monotonic() < deadline_s
        with pytest.raises(InvalidState, match="has not booted"):
            guest.timeline  # noqa: B018
        assert guest.state == "running"


def test_one_file_gives_two_machines_that_do_not_know_of_each_other(saved: tuple[Path, float]) -> None:
    with Guest.restore(saved[0]) as one, Guest.restore(saved[0]) as two:
        one.exec(["sh", "-c", "echo changed > /tmp/note"])
        assert two.exec(["cat", "/tmp/note"]).text == "kept\n"
        assert one.exec(["cat", "/tmp/note"]).text == "changed\n"


def test_restoring_is_much_faster_than_booting(saved: tuple[Path, float]) -> None:
    path, _ = saved
    restored, booted = [], []
    for _ in range(3):
        started_s = time.monotonic()
        with Guest.restore(path) as guest:
            guest.exec(["true"])
            restored.append(time.monotonic() - started_s)
        with Guest() as guest:
            booted.append(guest.timeline.ready_s)
    assert statistics.median(restored) < statistics.median(booted) / 1.5


def test_the_file_is_smaller_than_the_memory_and_says_what_it_is(saved: tuple[Path, float]) -> None:
    path, _ = saved
    assert path.stat().st_size < 100 << 20
    assert path.stat().st_mode & 0o777 == 0o600  # what was in the guest's memory is nobody else's business
    assert path.read_bytes()[:1000].startswith(b"labkit snapshot 1 {")
    assert os.listdir(path.parent) == [path.name]


def test_a_paused_guest_is_saved_and_stays_paused(tmp_path: Path) -> None:
    with Guest() as guest:
        guest.pause()
        guest.snapshot(tmp_path / "paused")
        assert guest.qmp.execute("query-status")["running"] is False
        guest.resume()
        assert guest.exec(["true"]).status == 0


@pytest.mark.parametrize(
    "content", [b"", b"something else", b"labkit snapshot 1 {}\n", b"labkit snapshot 1 {not json\n"]
)
def test_a_file_that_is_no_snapshot_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(GuestError, match="is no snapshot that labkit can read"):
        Guest.restore(tmp_path / "file")
    with pytest.raises(GuestError, match="cannot be opened: No such file"):
        Guest.restore(tmp_path / "nowhere")


@pytest.mark.parametrize("damage", ["cut", "garbage"])
def test_a_damaged_snapshot_is_a_sentence_and_leaves_nothing(
    saved: tuple[Path, float], tmp_path: Path, damage: str
) -> None:
    whole = saved[0].read_bytes()
    head = whole.index(b"\n") + 1
    bad = whole[: len(whole) // 2] if damage == "cut" else whole[:head] + bytes(100_000)
    (tmp_path / "damaged").write_bytes(bad)
    started_s = time.monotonic()
    with pytest.raises(GuestError, match=r"QEMU ended|refused|did not arrive"):
        Guest.restore(tmp_path / "damaged", timeout_s=20)
    assert time.monotonic() - started_s < 25


@requires("root")
def test_a_full_disk_is_said_and_the_guest_runs_on(tmp_path: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "labkit-small", str(tmp_path)], check=True)
    try:
        with Guest() as guest:
            with pytest.raises(GuestError, match=r"needs up to .* and its disk has .* left: make room"):
                guest.snapshot(tmp_path / "file")
            assert os.listdir(tmp_path) == []
            assert guest.exec(["echo", "on"]).text == "on\n"
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_a_disk_that_fills_up_on_the_way_is_said_and_the_guest_runs_on(tmp_path: Path) -> None:
    """A limit on the size of QEMU's files stands for the disk: it can be set without root, and hits in the middle."""
    with Guest() as guest:
        subprocess.run(["prlimit", "--pid", str(guest.pid), f"--fsize={4 << 20}"], check=True)
        with pytest.raises(GuestError, match=r"could not be (sent|written)"):
            guest.snapshot(tmp_path / "file")
        assert os.listdir(tmp_path) == []


def test_a_folder_that_is_not_there_is_said(tmp_path: Path, saved: tuple[Path, float]) -> None:
    with Guest.restore(saved[0]) as guest, pytest.raises(GuestError, match="could not be written: No such file"):
        guest.snapshot(tmp_path / "no" / "folder")

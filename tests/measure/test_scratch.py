from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from labkit.measure.rootfs import APPLETS, busybox_rootfs
from labkit.measure.scratch import find_dead_scratch, remove_dead_scratch, scratch_folder
from tests.support import PROJECT, requires

_HOLD = """
import sys
sys.path.insert(0, {!r})
from labkit.measure.scratch import scratch_folder
with scratch_folder() as folder:
    (folder / "file").touch()
    print(folder, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder() -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """Another program that holds a scratch folder."""
    command = [sys.executable, "-c", _HOLD.format(str(PROJECT))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield process, Path(process.stdout.readline().strip())
        assert process.stdin is not None
        process.stdin.close()  # it ends, and takes its folder along


def test_the_folder_is_open_to_all_and_gone_at_the_end() -> None:
    with scratch_folder() as folder:
        assert folder.stat().st_mode & 0o777 == 0o755
        (folder / "deep/deeper").mkdir(parents=True)
    assert not folder.exists()


def test_a_folder_of_a_living_program_is_no_leftover(holder: tuple[subprocess.Popen[str], Path]) -> None:
    _, folder = holder
    assert folder.is_dir()
    assert folder not in find_dead_scratch()
    remove_dead_scratch(folder)
    assert (folder / "file").exists()


def test_a_folder_of_a_killed_program_is_found_and_removed(holder: tuple[subprocess.Popen[str], Path]) -> None:
    process, folder = holder
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert folder in find_dead_scratch()
    remove_dead_scratch(folder)
    assert not folder.exists()


def test_the_next_folder_takes_away_what_a_killed_program_left(holder: tuple[subprocess.Popen[str], Path]) -> None:
    process, folder = holder
    process.send_signal(signal.SIGKILL)
    process.wait()
    with scratch_folder():
        assert not folder.exists()


def test_a_link_or_a_file_with_such_a_name_is_not_touched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    (tmp_path / "precious").mkdir()
    (tmp_path / "labkit-scratch-link").symlink_to(tmp_path / "precious")
    (tmp_path / "labkit-scratch-file").touch()
    assert find_dead_scratch() == []


@requires("root")
def test_a_folder_of_another_user_is_not_touched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    (tmp_path / "labkit-scratch-other").mkdir()
    os.chown(tmp_path / "labkit-scratch-other", 12345, 12345)
    assert find_dead_scratch() == []


@requires("program:busybox")
def test_the_rootfs_holds_programs_that_run_without_a_library() -> None:
    with busybox_rootfs() as rootfs:
        assert subprocess.run([rootfs / "bin/true"], check=False, env={}).returncode == 0
        assert subprocess.run([rootfs / "bin/false"], check=False, env={}).returncode == 1
        missing = [name for name in APPLETS if not (rootfs / "bin" / name).exists()]
        shown = subprocess.run([rootfs / "bin/busybox", "--list"], capture_output=True, text=True, check=True).stdout
        assert missing == []
        assert set(APPLETS) <= set(shown.split())

"""How full a folder is, with du(1) as the witness, and with folders that somebody made on purpose."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from labkit.sandbox.usage import UsageLimit, measure

MUCH = {"most_bytes": 1 << 40, "most_files": 1 << 30}


def test_it_counts_what_du_counts(tmp_path: Path) -> None:
    for number in range(5):
        folder = tmp_path / f"folder{number}" / "below"
        folder.mkdir(parents=True)
        (folder / "file").write_bytes(bytes(100_000 * number))
    os.link(tmp_path / "folder4/below/file", tmp_path / "again")
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(1 << 30)
    du = subprocess.run(["du", "--block-size=1", "--summarize", tmp_path], capture_output=True, text=True, check=True)
    counted = measure(str(tmp_path), **MUCH)
    top = tmp_path.stat().st_blocks * 512
    assert counted.size_bytes == int(du.stdout.split()[0]) - top
    assert counted.files == len(list(tmp_path.rglob("*")))


def test_links_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "out").symlink_to("/usr")
    (tmp_path / "loop").symlink_to(".")
    assert measure(str(tmp_path), **MUCH).files == 2


def test_counting_stops_where_a_limit_is_passed(tmp_path: Path) -> None:
    for number in range(100):
        (tmp_path / str(number)).mkdir()
    assert measure(str(tmp_path), most_bytes=1 << 40, most_files=10).files > 10
    assert UsageLimit(str(tmp_path), most_bytes=1 << 40, most_files=10).passed()
    assert not UsageLimit(str(tmp_path), most_bytes=1 << 40, most_files=100).passed()


def test_a_tree_of_a_thousand_floors_is_too_full_and_costs_few_descriptors(tmp_path: Path) -> None:
    here = os.open(tmp_path, os.O_RDONLY)
    for _ in range(1000):
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    assert UsageLimit(str(tmp_path), most_bytes=1 << 40, most_files=100_000).passed()
    subprocess.run(["rm", "-rf", tmp_path / "d"], check=True)


def test_a_folder_that_is_not_there_is_empty(tmp_path: Path) -> None:
    assert measure(str(tmp_path / "none"), **MUCH).files == 0


def test_it_is_not_asked_more_than_once_a_second(tmp_path: Path) -> None:
    limit = UsageLimit(str(tmp_path), most_bytes=1, most_files=1)
    assert not limit.passed()
    (tmp_path / "file").write_bytes(bytes(10_000))
    assert not limit.passed()
    assert 0 < limit.wait_s <= 1

from __future__ import annotations

import os
from pathlib import Path

import pytest

from labkit.errors import FeatureMissing, InvalidSpec
from labkit.isolation.cgroups.device import disk_of


def _mounted_disks() -> list[tuple[str, str]]:
    """Return mount point and device number of each mount that /sys knows as a block device."""
    rows = [line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return [(row[4], row[2]) for row in rows if os.path.isdir(f"/sys/dev/block/{row[2]}") and os.path.isdir(row[4])]


def test_the_disk_under_a_mount_is_the_whole_disk_that_sysfs_lists() -> None:
    disks = {path.read_text().strip() for path in Path("/sys/block").glob("*/dev")}
    found = _mounted_disks()
    if not found:
        pytest.skip("nothing is mounted from a disk here")
    assert {disk_of(point) for point, number in found if f"{os.major(os.stat(point).st_dev)}:" in number} <= disks


@pytest.mark.parametrize("path", ["/proc", "/sys"])
def test_a_file_system_without_a_disk_is_a_missing_feature(path: str) -> None:
    with pytest.raises(FeatureMissing, match="on no disk"):
        disk_of(path)


def test_a_path_that_is_not_there_is_an_invalid_spec(tmp_path: Path) -> None:
    with pytest.raises(InvalidSpec, match="cannot be looked at"):
        disk_of(f"{tmp_path}/no")

from __future__ import annotations

from pathlib import Path

import pytest

from labkit.errors import FeatureMissing, InvalidSpec, InvalidState
from labkit.isolation.cgroups import Cgroup, CgroupParent, files
from tests.support import requires

from .helpers import cat


def test_a_file_that_is_not_there_reads_as_none(tmp_path: Path) -> None:
    assert files.try_read(f"{tmp_path}/no") is None
    assert files.read_number(f"{tmp_path}/no") is None
    assert files.read_pids(f"{tmp_path}/no") == []


def test_max_is_no_number(tmp_path: Path) -> None:
    (tmp_path / "limit").write_text("max\n")
    assert files.read_number(f"{tmp_path}/limit") is None


def test_a_limit_file_that_this_kernel_does_not_have_is_a_missing_feature(tmp_path: Path) -> None:
    with pytest.raises(FeatureMissing, match=r"no memory\.zap"):
        files.write_limit(f"{tmp_path}/memory.zap", "1")


def test_a_group_that_is_gone_is_an_invalid_state(tmp_path: Path) -> None:
    with pytest.raises(InvalidState, match="has been deleted"):
        files.write_limit(f"{tmp_path}/gone/pids.max", "1")


@requires("cgroups")
def test_what_the_kernel_calls_invalid_is_an_invalid_spec(parent: CgroupParent) -> None:
    with Cgroup.create(parent) as group:
        with pytest.raises(InvalidSpec, match="many"):
            files.write_limit(f"{group.folders['pids']}/pids.max", "many")
        assert cat(group.folders["pids"] / "pids.max") == "max"

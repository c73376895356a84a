"""``labkit record`` measures, writes, reads back and lists; what cannot be recorded is a sentence and a status."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from labkit.cli import main
from labkit.measure.recordable import EXPERIMENTS, find_recording
from labkit.measure.scenes import Tenants
from tests.support import requires


@requires("vm", "program:busybox")
@pytest.mark.timeout(120)
def test_a_measurement_becomes_a_recording_that_is_read_back(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["record", "--only", "tenants", "--folder", str(tmp_path / "new")]) == 0
    assert capsys.readouterr().out.startswith("tenants: two tenants, in ")
    found = find_recording("tenants", folder=tmp_path / "new")
    assert found.result == Tenants(1, 0)
    assert found.host.kernel == os.uname().release
    assert json.loads((tmp_path / "new/tenants.json").read_text())["name"] == "tenants"


def test_the_list_names_what_is_recorded_on_what(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["record", "--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in lines] == list(EXPERIMENTS)


def test_an_empty_folder_has_none_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["record", "--list", "--only", "boot", "--folder", str(tmp_path)]) == 1
    said = capsys.readouterr()
    assert said.out == "" and "boot.json cannot be used, because No such file" in said.err


def test_a_name_that_is_none_is_wrong_use(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["record", "--only", "lunch"]) == 2
    assert "Nothing called 'lunch' is recorded: choose among boot" in capsys.readouterr().err


def test_a_machine_that_cannot_records_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "empty"))
    assert main(["record", "--only", "boot", "--folder", str(tmp_path)]) == 1
    assert "boot is not recorded: There is no" in capsys.readouterr().err
    assert not (tmp_path / "boot.json").exists()

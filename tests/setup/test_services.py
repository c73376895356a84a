"""Packages that are installed for the course start no service, and what the machine's owner has decided stays."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from labkit.setup.services import without_services


def test_no_service_may_start_meanwhile_and_every_one_afterwards(tmp_path: Path) -> None:
    policy = tmp_path / "policy-rc.d"
    with without_services(policy, tmp_path):
        assert subprocess.run([str(policy), "docker", "start"], check=False).returncode == 101
    assert not policy.exists()


def test_the_rule_of_the_machines_owner_stays(tmp_path: Path) -> None:
    policy = tmp_path / "policy-rc.d"
    policy.write_text("#!/bin/sh\nexit 0\n")
    with without_services(policy, tmp_path):
        assert policy.read_text() == "#!/bin/sh\nexit 0\n"
    assert policy.exists()


def test_the_rule_goes_also_when_the_installation_fails(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), without_services(tmp_path / "policy-rc.d", tmp_path):
        raise RuntimeError
    assert not (tmp_path / "policy-rc.d").exists()


def test_only_units_that_came_along_are_disabled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    units, programs = tmp_path / "units", tmp_path / "bin"
    units.mkdir()
    programs.mkdir()
    (units / "old.service").touch()
    systemctl = programs / "systemctl"
    systemctl.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/asked\n')
    systemctl.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    with without_services(tmp_path / "policy-rc.d", units):
        (units / "new.service").touch()
        (units / "new.socket").touch()
    assert (tmp_path / "asked").read_text().split() == ["--no-reload", "disable", "new.service", "new.socket"]

"""``labkit setup vm --distribution``: where it cannot be had, one sentence, and nothing half done."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from labkit.errors import FeatureMissing, GuestError
from labkit.setup.archives import archives
from labkit.setup.progress import Step
from labkit.vm import setup_disk
from labkit.vm.distribution import disk_folder
from tests.setup.conftest import Machine
from tests.support.cli import assert_one_sentence, labkit


def test_without_apt_it_is_said_what_else_there_is(machine: Machine, step: Step) -> None:
    with pytest.raises(FeatureMissing, match="no apt-get here"):
        setup_disk.fetch_disk(step)


def test_without_room_or_tools_nothing_is_fetched(
    machine: Machine, step: Step, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("apt-get", "dpkg-deb"):
        machine.add(name, "exit 100")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(FeatureMissing, match="sudo apt-get install e2fsprogs"):
        setup_disk.fetch_disk(step)
    for name in ("mke2fs", "debugfs"):
        machine.add(name, "exit 1")
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=50 << 20))
    with pytest.raises(FeatureMissing, match="has 50 MiB left, and this takes up to 500 MiB"):
        setup_disk.fetch_disk(step)
    assert machine.calls("apt-get") == []
    assert not disk_folder().exists()


def test_a_system_that_does_not_start_leaves_no_disk(
    machine: Machine, step: Step, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("apt-get", "dpkg-deb", "mke2fs", "debugfs"):
        machine.add(name, "exit 0")

    def make(new: Path, _: Step) -> tuple[str, int]:
        (new / "disk.ext4").write_bytes(b"no file system")
        return "Debian", 1

    monkeypatch.setattr(setup_disk, "_make", make)
    with pytest.raises((GuestError, FeatureMissing), match="new disk's system did not start"):
        setup_disk.fetch_disk(step)
    assert list((tmp_path / "cache/labkit").iterdir()) == []


def test_apt_is_asked_for_a_machine_that_has_nothing_and_only_for_what_it_knows(machine: Machine, step: Step) -> None:
    machine.add("apt-cache", "printf 'Package: udev\\nPackage: base-files\\n'")
    machine.add("apt-get", "printf 'Inst libc6 (1)\\nInst udev (2)\\nConf libc6 (1)\\n'")
    with archives(step) as source:
        assert source.system(["?essential", "no-such", "udev"]) == ["libc6", "udev"]
        (asked,) = machine.calls("apt-get")
        assert asked.endswith("install ?essential udev")
        assert f"-oDir::State::status={source.work}/nothing" in asked
        assert (source.work / "nothing").read_text() == ""
    machine.add("apt-get", "echo E: broken >&2; exit 100")
    with archives(step) as source, pytest.raises(FeatureMissing, match="cannot put a system together: E: broken"):
        source.system(["udev"])


def test_the_option_belongs_to_machines() -> None:
    done = labkit("setup", "--distribution")
    assert done.returncode == 2
    assert_one_sentence(done.stderr)

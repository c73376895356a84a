"""Parts: found where they lie, static told from dynamic, and a package name for every manager."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from labkit.setup import parts
from tests.setup.conftest import Machine
from tests.support import requires


def test_the_cache_follows_xdg_and_ignores_a_relative_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", "/var/elsewhere")
    assert parts.cache_folder() == Path("/var/elsewhere/labkit")
    for unusable in ("", "relative/path"):
        monkeypatch.setenv("XDG_CACHE_HOME", unusable)
        assert parts.cache_folder() == tmp_path / ".cache/labkit"


def test_the_search_path_only_adds_folders_at_the_end() -> None:
    path = parts.search_path("/b:/a:/usr/sbin")
    assert path.startswith("/b:/a:/usr/sbin:")
    assert len(path.split(":")) == len(set(path.split(":")))


@requires("program:ldd")
@pytest.mark.parametrize("program", ["sh", "busybox", "python"])
def test_a_program_is_static_exactly_if_ldd_finds_nothing_to_load(program: str) -> None:
    found = sys.executable if program == "python" else shutil.which(program)
    if found is None:
        pytest.skip(f"there is no {program} here")
    listed = subprocess.run(["ldd", os.path.realpath(found)], capture_output=True, text=True, check=False)
    assert parts.is_static(Path(found)) == ("=>" not in listed.stdout)


def test_what_is_no_elf_file_is_not_static(tmp_path: Path) -> None:
    for name, content in {"script": b"#!/bin/sh\n" + b"x" * 100, "cut": b"\x7fELF\x02\x01", "empty": b""}.items():
        (tmp_path / name).write_bytes(content)
        assert not parts.is_static(tmp_path / name)
    assert not parts.is_static(tmp_path / "absent")


def test_a_dynamic_busybox_does_not_count(machine: Machine, tmp_path: Path) -> None:
    shutil.copy(os.path.realpath(sys.executable), machine.bin / "busybox")
    if not parts.is_static(machine.bin / "busybox"):
        assert parts.find_busybox() is None


@requires("program:busybox")
def test_a_busybox_in_the_cache_is_found_without_one_on_the_path(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    found = parts.find_busybox()
    assert found is not None
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(parts, "SBIN_FOLDERS", ())
    assert parts.find_busybox() is None
    unpacked = tmp_path / "cache/labkit/parts/bin"
    unpacked.mkdir(parents=True)
    shutil.copy(found, unpacked / "busybox")
    assert parts.find_busybox() == unpacked / "busybox"


def test_every_part_has_a_package_of_every_manager() -> None:
    for part in parts.PARTS:
        assert set(part.packages) == {"apt-get", "dnf", "pacman", "zypper", "apk"}, part.name
        assert all(part.packages.values()), part.name


def test_what_is_missing_is_what_is_not_there(machine: Machine) -> None:
    named = {part.name: part for part in parts.PARTS}
    assert parts.missing([named["runc"], named["crun"]]) == [named["runc"], named["crun"]]
    machine.add("crun", "")
    assert parts.missing([named["runc"], named["crun"]]) == [named["runc"]]

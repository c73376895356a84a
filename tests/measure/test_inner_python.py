from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from labkit.errors import FeatureMissing
from labkit.linux.constants import NS
from labkit.measure import inner_python
from labkit.measure.inner_python import answer_of, inner_command, interpreter, is_open_to_all, open_package
from labkit.measure.isolation import probe_isolation
from tests.support import requires


def test_a_file_is_open_to_all_only_if_each_folder_above_it_is(tmp_path: Path) -> None:
    tmp_path = Path(os.path.realpath(tmp_path))
    folder = tmp_path / "folder"
    folder.mkdir()
    file = folder / "file"
    file.touch(mode=0o644)
    for part in (folder, tmp_path, tmp_path.parent, tmp_path.parent.parent):
        part.chmod(part.stat().st_mode | 0o055) if part.owner() == Path("/proc/self").owner() else None
    assert is_open_to_all(file)
    file.chmod(0o600)
    assert not is_open_to_all(file)
    file.chmod(0o644)
    folder.chmod(0o700)
    assert not is_open_to_all(file)


@requires("root", "program:setpriv")
def test_the_interpreter_and_the_package_can_be_used_by_another_user() -> None:
    with open_package() as package:
        command = inner_command("loads", {"loads": ["cpu"]}, package_parent=package)
        other = ["setpriv", "--reuid", "12345", "--regid", "12345", "--clear-groups", "--", *command]
        done = subprocess.run(other, capture_output=True, text=True, check=False, cwd="/")
    assert done.returncode == 0, done.stderr
    assert answer_of(done.stdout.encode())


@requires("userns")
def test_a_package_in_a_closed_folder_is_copied_and_the_copy_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inner_python, "is_open_to_all", lambda path: path.name != "__init__.py")
    with open_package() as package:
        assert package != inner_python._PACKAGE.parent
        copy = package
    assert not copy.exists()
    monkeypatch.setattr(inner_python, "interpreter", interpreter)
    assert probe_isolation(NS.USER | NS.UTS).finding("hostname").sees_host is False


def test_without_a_python_for_everybody_the_remedy_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inner_python, "is_open_to_all", lambda _: False)
    interpreter.cache_clear()
    try:
        with pytest.raises(FeatureMissing, match="chmod o\\+x"):
            interpreter()
    finally:
        monkeypatch.undo()
        interpreter.cache_clear()
    assert os.access(interpreter(), os.X_OK)
    assert sys.version_info >= (3, 11)


def test_a_python_that_is_too_old_for_labkit_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = tmp_path / "python3"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    monkeypatch.setattr(inner_python, "is_open_to_all", lambda path: path == old)
    monkeypatch.setattr(inner_python, "_SYSTEM_PYTHONS", (str(old),))
    interpreter.cache_clear()
    try:
        with pytest.raises(FeatureMissing):
            interpreter()
    finally:
        monkeypatch.undo()
        interpreter.cache_clear()


@pytest.mark.parametrize("line", [b"", b"\n", b"no json", b"[1]", b"3"])
def test_what_is_no_answer_is_none(line: bytes) -> None:
    assert answer_of(line) is None

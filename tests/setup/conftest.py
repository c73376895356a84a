"""A set-up that may be tried: a checkout, a home, a PATH of a test's own, and programs that only note how they were called."""

from __future__ import annotations

import io
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from labkit.setup.progress import Progress, Step
from tests.support import PROJECT

#: What scripts and virtual environments use themselves.
TOOLS = ("sh", "env", "id", "uname", "dirname", "cat", "cp", "mkdir", "grep", "make", "awk", "printf", "true", "false")


@dataclass(frozen=True, slots=True)
class Machine:
    """A PATH with a few tools and the fakes that a test puts there; ``calls`` has one line a call of a fake."""

    bin: Path
    calls_path: Path

    def add(self, name: str, script: str) -> None:
        """Put a program on PATH: a shell script that first notes its name and arguments."""
        path = self.bin / name
        path.write_text(f'#!/bin/sh\nprintf "%s\\n" "{name} $*" >> {self.calls_path}\n{script}\n')
        path.chmod(0o755)

    def calls(self, name: str) -> list[str]:
        """Return the calls of the fake ``name``, without its name."""
        lines = self.calls_path.read_text().splitlines() if self.calls_path.exists() else []
        return [line.removeprefix(f"{name} ") for line in lines if line.startswith(f"{name} ")]


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Make PATH a folder with `TOOLS` alone, and the cache an empty folder."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in TOOLS:
        found = shutil.which(name)
        if found:
            (folder / name).symlink_to(found)
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("labkit.setup.parts.SBIN_FOLDERS", ())
    return Machine(folder, tmp_path / "calls")


@pytest.fixture
def step() -> Step:
    """Return a step that prints into nothing."""
    return Step("a step", io.StringIO())


@pytest.fixture
def out() -> io.StringIO:
    """Return where `progress` prints."""
    return io.StringIO()


@pytest.fixture
def progress(out: io.StringIO) -> Progress:
    """Return a progress that prints into `out`."""
    return Progress(0, out=out)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Return a folder with what set-up reads of a checkout."""
    root = tmp_path / "checkout"
    (root / "labkit").mkdir(parents=True)
    shutil.copy(PROJECT / "pyproject.toml", root)
    shutil.copytree(PROJECT / "labkit/setup", root / "labkit/setup", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("__init__.py", "errors.py"):
        shutil.copy(PROJECT / "labkit" / name, root / "labkit" / name)
    assert os.access(root, os.W_OK)
    return root

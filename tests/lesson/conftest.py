"""Progress goes to a temporary file: a test must not count as something that the student did."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def progress_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return where progress is kept during this test."""
    path = tmp_path / "kept" / "progress.json"
    monkeypatch.setenv("LABKIT_PROGRESS", str(path))
    return path

"""Runs of pytest inside a test, under the project's own conftest: how the test machinery itself is tested."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

from tests.support.child import PROJECT

__all__ = ["run_inner"]

#: The outer run's reports and the other plugins of the environment are no business of the inner run.
_ENVIRONMENT = {
    "PYTHONPATH": str(PROJECT),
    "LABKIT_FEATURE_REPORT": "",
    "LABKIT_TEST_TURNS": "",
    "LABKIT_ALSO_RUNS": "",
    "LABKIT_MUST_HAVE": "",
    "PYTEST_ADDOPTS": "",
    "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
}


def run_inner(
    folder: Path, tests: str, *, status: int, conftest: str = "", options: tuple[str, ...] = (),
    environment: dict[str, str] | None = None,
) -> str:  # fmt: skip
    """Run the source ``tests`` in a pytest of their own; demand its exit ``status``; return what it prints."""
    (folder / "conftest.py").write_text("from tests.conftest import *\n" + textwrap.dedent(conftest))
    (folder / "test_inner.py").write_text(textwrap.dedent(tests))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(folder), *options, str(folder)],
        env=os.environ | _ENVIRONMENT | (environment or {}),
        cwd=folder, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr

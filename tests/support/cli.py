"""The command ``labkit`` as a person runs it: a process of its own, with its own launcher."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from tests.support import PROJECT

__all__ = ["LABKIT", "assert_one_sentence", "labkit", "start", "wait_until"]

LABKIT = [sys.executable, "-m", "labkit"]


def labkit(*words: str, data: str = "", timeout_s: float = 60, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run ``labkit WORDS`` to its end, with ``data`` on its standard input."""
    return subprocess.run(
        [*LABKIT, *words], input=data, capture_output=True, text=True, timeout=timeout_s, check=False, cwd=PROJECT,
        **options,
    )  # fmt: skip


def start(*words: str, **options: Any) -> subprocess.Popen[str]:
    """Start ``labkit WORDS`` with all streams as pipes."""
    streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
    return subprocess.Popen([*LABKIT, *words], text=True, cwd=PROJECT, **streams)


def wait_until(condition: Callable[[], object], *, timeout_s: float = 10) -> bool:
    """Look again and again until ``condition`` holds; False if it does not in time."""
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline_s:
            return False
        time.sleep(0.02)
    return True


def assert_one_sentence(stderr: str) -> None:
    """Demand that an error is one line for people, and no traceback."""
    lines = stderr.splitlines()
    assert len(lines) == 1, stderr
    assert lines[0].startswith("labkit: "), stderr
    assert lines[0].endswith((".", "?", ")")), stderr

"""A lesson's engine answers, leaves nothing, and does not outlive the program that started it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from labkit.engine.local import LocalEngine
from tests.support import PROJECT, requires

pytestmark = requires("userns", "overlay-userns", "pyseccomp")

PROGRAM = """
import sys; sys.path.insert(0, sys.argv[1])
from labkit.engine.local import LocalEngine
engine = LocalEngine()
print(engine.pid, engine.socket, flush=True)
sys.stdin.read()
"""


def test_an_engine_answers_and_leaves_nothing() -> None:
    with LocalEngine() as engine:
        assert engine.client().version()["ApiVersion"] == "1.44"
        folder = engine.socket.parent
        assert oct(engine.socket.stat().st_mode & 0o777) == "0o600"
    assert engine.process.returncode == 0 and not folder.exists()
    engine.close()


def test_an_engine_ends_with_the_program_that_started_it(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(PROJECT)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env=os.environ | {"TMPDIR": str(tmp_path)},
    ) as program:  # fmt: skip
        assert program.stdout is not None
        pid = int(program.stdout.readline().split()[0])
        program.kill()
    deadline_s = time.monotonic() + 10
    while Path(f"/proc/{pid}/cmdline").exists() and Path(f"/proc/{pid}/cmdline").read_bytes():
        if time.monotonic() > deadline_s:
            pytest.fail("the engine lives on")
        time.sleep(0.02)

"""Runs beside each other: whole outputs one after another, one status of all, and an interrupt that leaves nothing."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support import PROJECT
from tests.support.cli import wait_until
from tests.support.runs import Run, planned, run_lanes

MAIN = """
import sys
from pathlib import Path
from tests.support import runs
runs.TIDY_S = {tidy_s}
runs.NEWS_S = 0.2
runs.planned = lambda arguments, *, root, guests: {lanes}
Run = runs.Run
def python(name, code, **more):
    return Run(name, (sys.executable, "-c", code), **more)
sys.exit(runs.main([]))
"""
#: A run that says that it is there, and waits; when it is interrupted it tidies up, for which it takes a moment.
TIDY = """
import pathlib, sys, time
try:
    pathlib.Path({path!r} + ".ready").touch()
    time.sleep(60)
except KeyboardInterrupt:
    time.sleep(0.3)
    pathlib.Path({path!r}).write_text("tidied up")
"""
#: A run that hears no signal, with a child in a session of its own.
DEAF = """
import signal, subprocess, time
signal.signal(signal.SIGINT, signal.SIG_IGN)
subprocess.Popen(["sleep", "{mark}"], start_new_session=True)
time.sleep(60)
"""


def shell(name: str, script: str) -> Run:
    """Return a run that is a shell script."""
    return Run(name, ("sh", "-c", script))


@contextmanager
def start_main(lanes: str, *, tidy_s: float = 10) -> Iterator[subprocess.Popen[str]]:
    """Start the program with other ``lanes``, written as Python; a test that fails leaves nothing of it."""
    code = textwrap.dedent(MAIN).format(lanes=lanes, tidy_s=tidy_s)
    environ = os.environ | {"LABKIT_MUST_HAVE": "1", "PYTHONPATH": str(PROJECT)}
    with subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environ,
        cwd=PROJECT,
    ) as main:
        try:
            yield main
        finally:
            main.kill()


def test_outputs_come_whole_and_the_statuses_are_those_of_the_runs(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    slow = shell("slow", "for i in 1 2 3 4 5; do echo slow $i; sleep 0.1; done")
    quick = shell("quick", "for i in 1 2 3 4 5; do echo quick $i; sleep 0.05; done; exit 3")
    statuses = run_lanes([[slow], [quick]], tmp_path)
    assert statuses == {"slow": 0, "quick": 3}
    said = [line for line in capfd.readouterr().out.splitlines() if not line.startswith("make test: ")]
    assert said == [f"{name} {number}" for name in ("quick", "slow") for number in range(1, 6)]


def test_lanes_run_side_by_side_and_the_runs_of_a_lane_one_after_another(tmp_path: Path) -> None:
    here = tmp_path / "here"
    waits = f"for i in $(seq 100); do [ ! -e {here} ] || exit 0; sleep 0.05; done; exit 1"
    after = shell("after", f"[ -e {here} ]")
    assert run_lanes([[shell("waits", waits), after], [shell("makes", f"touch {here}")]], tmp_path) == {
        "waits": 0, "makes": 0, "after": 0,
    }  # fmt: skip


def test_how_far_they_are_and_what_fails_is_said_while_they_run(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.support.runs.NEWS_S", 0.1)
    lines = "tests/a/test_good.py ....s.x    [ 41%]\\ntests/a/test_bad.py ..F.E.    [ 52%]\\nA Failure [ 99 %]\\n"
    run_lanes([[shell("root", f"printf '%b' '{lines}'; sleep 0.5")]], tmp_path)
    said = [line for line in capfd.readouterr().out.splitlines() if line.startswith("make test: ")]
    assert "make test: root: tests/a/test_bad.py ..F.E.    [ 52%]" in said
    assert not any("test_good" in line for line in said)
    assert any(re.fullmatch(r"make test: \d+:\d\d min: root run 52 %", line) for line in said)


def test_a_run_that_fails_or_tells_nothing_fails_the_whole() -> None:
    with start_main('[[python("root", "print(1)")], [python("user", "raise SystemExit(1)")]]') as main:
        output = main.communicate(timeout=30)[0]
    assert main.returncode == 1
    assert "make test: the user run failed with status 1" in output


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupt_lets_every_run_tidy_up_and_leaves_nothing(tmp_path: Path, number: signal.Signals) -> None:
    codes = {name: TIDY.format(path=str(tmp_path / name)) for name in ("root", "user")}
    lanes = ", ".join(f"[python({name!r}, {code!r})]" for name, code in codes.items())
    with start_main(f"[{lanes}]") as main:
        assert wait_until(lambda: all((tmp_path / f"{name}.ready").exists() for name in codes), timeout_s=30)
        main.send_signal(number)
        output = main.communicate(timeout=30)[0]
    assert main.returncode == 130, output
    assert [(tmp_path / name).read_text() for name in codes] == ["tidied up"] * 2
    assert f"make test: ended by {number.name}" in output


@pytest.mark.parametrize("again", [False, True], ids=["in time", "twice"])
def test_what_does_not_end_is_killed_with_its_orphans(again: bool) -> None:
    mark = f"61.{os.getpid()}{again:d}"

    def sleeping() -> bool:
        return bool(subprocess.run(["pgrep", "-f", f"^sleep {mark}$"], capture_output=True, check=False).stdout)

    with start_main(f"[[python('root', {DEAF.format(mark=mark)!r})]]", tidy_s=60 if again else 0.3) as main:
        assert wait_until(sleeping, timeout_s=30)
        began_s = time.monotonic()
        main.send_signal(signal.SIGINT)
        if again:
            assert main.stdout is not None
            assert any("a second Ctrl-C does not wait" in line for line in main.stdout)
            main.send_signal(signal.SIGINT)
        output = main.communicate(timeout=30)[0]
    assert (main.returncode, sleeping()) == (130, False), output
    assert time.monotonic() - began_s < 30


def test_root_has_all_runs_and_an_ordinary_user_those_without_another_user() -> None:
    names = [
        [[run.name for run in lane] for lane in planned(["-k", "x"], root=root, guests=guests)]
        for root, guests in ((True, True), (False, True), (True, False))
    ]
    assert names == [
        [["root", "notebooks"], ["user", "guest"]],
        [["user", "notebooks"], ["guest"]],
        [["root", "notebooks"], ["user"]],
    ]
    runs = [run for lane in planned(["-k", "x"], root=True, guests=True) for run in lane]
    assert [run.name for run in runs if run.command[-2:] == ("-k", "x")] == ["root", "user", "guest"]
